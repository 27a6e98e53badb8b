"""One tree of exceptions: ``except MapgradError`` catches whatever this library raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.solutions import Solutions

__all__ = [
    "ConformanceError",
    "DomainError",
    "InfeasibleError",
    "MapgradError",
    "MissingDependencyError",
    "NonFiniteError",
    "PluginError",
    "ProblemError",
    "RowsError",
    "ShapeError",
    "SolveTimeoutError",
    "SolverCrashError",
    "UnboundedError",
    "UndecidedError",
    "UnknownSolverError",
    "UnsupportedProblemError",
]


class MapgradError(Exception):
    """Base of every error that mapgrad raises on purpose."""


class ProblemError(MapgradError, ValueError):
    """A problem was described with arguments that make no feasible set, or asked for what its size forbids."""


class UnknownSolverError(MapgradError, LookupError):
    """No plugin offers a solver of this name."""


class PluginError(MapgradError):
    """A plugin is broken, blocked, or claims a name that another one claims too."""


class MissingDependencyError(MapgradError, ImportError):
    """A solver needs a package that isn't installed; the message says how to install it."""


class UnsupportedProblemError(MapgradError, TypeError):
    """The solver can't take this problem, or its class has no such method; the message says why."""


class ShapeError(MapgradError, ValueError):
    """A tensor's shape or dtype doesn't fit the problem."""


class UndecidedError(MapgradError):
    """A membership test ran out of its step budget before it knew the answer."""


class RowsError(MapgradError):
    """Something is wrong with some rows of a batch.

    Rows that failed alike raise the class below that says how; rows that failed in several ways raise this one itself,
    so that whoever catches a class has rows of that kind alone: `solutions.status` tells them apart, `solutions.causes`
    what each raised.

    The batch is the one that the user passed, to a solver or to a layer, whatever became of it on the way: samples,
    groups of rows with one problem, parts, or the steps of a backward pass, which the message then names. Under
    torch.vmap its dimensions come after those that are mapped.

    Attributes:
        rows: Numbers of all such rows, counted over the flattened batch, each once.
        solutions: What was found for the whole batch, the other rows' answers included. From a layer with S > 1 samples
            the answers are [S, *batch, …], and objectives and bounds are NaN where rows were solved apart from those
            that failed. None where no solver ran, and from a backward pass, whose answers are none to θ.
    """

    def __init__(self, message: str, *, rows: Sequence[int] = (), solutions: Solutions | None = None) -> None:
        super().__init__(message)
        self.rows = tuple(rows)
        self.solutions = solutions


class NonFiniteError(RowsError, ValueError):
    """θ has NaN or infinite entries, other than −inf where that forbids an entry.

    Attributes:
        kept: The first entry that −inf would forbid, but its lower bound keeps from 0, in words; empty without one.
    """

    def __init__(self, message: str, *, rows: Sequence[int] = (), kept: str = "") -> None:
        super().__init__(message, rows=rows)
        self.kept = kept


class DomainError(RowsError, ValueError):
    """θ lies outside the problem's domain and the caller asked not to clip."""


class InfeasibleError(RowsError, ValueError):
    """The feasible set is empty, or each of its states holds an entry that θ = −inf forbids."""


class UnboundedError(RowsError):
    """The objective grows without limit over the feasible set."""


class SolveTimeoutError(RowsError, TimeoutError):
    """A solver ran into its time limit before it had proved an optimum."""


class SolverCrashError(RowsError):
    """A solver raised, or answered with something unusable; the cause is chained."""


class ConformanceError(MapgradError, AssertionError):
    """A solver or a problem breaks a law of the conformance kit.

    Attributes:
        law: Name of the law, as in ``check_<law>``.
    """

    def __init__(self, message: str, *, law: str = "") -> None:
        super().__init__(message)
        self.law = law
