"""What makes a law on problems of a function, and which states of a problem the laws look at."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch

from mapgrad.batching import get_solver
from mapgrad.errors import (
    ConformanceError,
    InfeasibleError,
    MapgradError,
    MissingDependencyError,
    RowsError,
    UnknownSolverError,
    UnsupportedProblemError,
)
from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Status
from mapgrad.testing._outcome import Outcome
from mapgrad.testing._points import flat, sample_thetas, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.problems import Problem

BOX_TOLERANCE: Final = 1e-6
REPR_LIMIT: Final = 2_000
"""Characters, so that a message about a problem can be read."""


class Require(Protocol):
    """What a law calls whenever something must be fine."""

    def __call__(self, fine: object, message: str) -> None: ...


class NotApplicableError(MapgradError):
    """There is nothing to check."""


def law(body: Callable[[Problem, Require], None]) -> Callable[[Problem], Outcome]:
    """Make a law of a function that calls what it gets whenever something must be fine.

    What a problem's own methods raise breaks the law as well, but for Ctrl-C and this library's errors, which speak for
    themselves.
    """
    name = body.__name__.removeprefix("check_")

    @functools.wraps(body)
    def check(problem: Problem) -> Outcome:
        def require(fine: object, message: str) -> None:
            if not fine:
                raise broken(problem, name, message)

        try:
            body(problem, require)
        except NotApplicableError as error:
            return Outcome(name, applies=False, reasons=(str(error),))
        except (MapgradError, KeyboardInterrupt):
            raise
        except BaseException as error:  # those that would end the program too
            raise broken(problem, name, f"it raises {type(error).__name__}: {error}") from error
        return Outcome(name)

    del check.__wrapped__  # a law takes the problem alone
    return check


def broken(problem: Problem, law: str, message: str) -> ConformanceError:
    """Return the error that says how a problem breaks a law."""
    return ConformanceError(f"{_name_of(problem)} breaks the law {law!r}: {message}", law=law)


def _name_of(problem: Problem) -> str:
    try:
        return repr(problem)[:REPR_LIMIT]
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (nothing is known yet of this problem)
        return f"a {type(problem).__name__}"


def is_enumerated(problem: Problem) -> bool:
    """Tell whether `states_of` returns all states."""
    try:
        problem.iterate_states()
    except UnsupportedProblemError:
        return False
    return True


def states_of(problem: Problem) -> NDArray[np.float64]:
    """Return all states, [N, *shape]; of a problem that can't be enumerated, those that a solver finds."""
    try:
        return problem.state_rows()
    except UnsupportedProblemError as error:
        reason = str(error)
    try:
        try:
            program = program_of(problem)
        except NotApplicableError:
            program = problem  # there may be a solver of its own class
        found = problem.repair(solved(program, sample_thetas(problem))[1])
    except NotApplicableError as error:
        raise NotApplicableError(f"{reason}, and {error}") from None
    return np.unique(found, axis=0)


def program_of(problem: Problem) -> IntegerProgram:
    """Return what `to_ilp` gives; a law on it doesn't apply where there is none."""
    try:
        given: Any = problem.to_ilp()
    except UnsupportedProblemError:
        raise NotApplicableError(f"{type(problem).__name__} stands for no integer program") from None
    if not isinstance(given, IntegerProgram):
        raise TypeError(f"to_ilp gives a {type(given).__name__}, not an IntegerProgram")
    return given


def solved(program: Problem, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the optima of a program or a problem at θ [m, *shape], by the solver that "auto" takes, and its solutions.

    Raises:
        NotApplicableError: no solver is installed that takes it, or it has no optimum.
        InfeasibleError: it has no solution.
    """
    try:
        with get_solver("auto", program) as solver:
            solutions = solver.solve(torch.as_tensor(theta))
    except (UnknownSolverError, UnsupportedProblemError, MissingDependencyError) as error:
        raise NotApplicableError(f"no solver takes its program: {error}") from None
    except RowsError as error:
        if error.solutions is not None and (error.solutions.status == Status.INFEASIBLE).any():
            raise InfeasibleError("its program has no solution") from None
        raise NotApplicableError(f"its program can't be solved: {error}") from None
    z: NDArray[np.float64] = solutions.z.numpy()
    return solutions.objective.numpy(), z


def require_in_box(problem: Problem, points: NDArray[np.float64], repaired: NDArray[np.float64]) -> None:
    """Raise ConformanceError where the solver of programs finds what no repair brings into the box.

    Args:
        problem: The problem.
        points: Solutions of its program, [N, *shape].
        repaired: What `Problem.repair` makes of them.
    """
    lower, upper = problem.box
    outside = flat((repaired < lower - BOX_TOLERANCE) | (repaired > upper + BOX_TOLERANCE)).any(axis=1)
    if outside.any():
        low, high = (f"{bound.flat[0]:g}" if np.ptp(bound) == 0 else show(bound[None]) for bound in (lower, upper))
        message = f"{show(points[outside])}, a solution of to_ilp, isn't within box {low}..{high}: "
        remedy = "give the problem a box that holds all states, or the program's variables their bounds"
        raise broken(problem, "problem_bounds", message + remedy)


def raises(kind: type[Exception], call: Callable[..., object], *arguments: Any) -> bool:
    """Tell whether a call raises an exception of this kind."""
    try:
        call(*arguments)
    except kind:
        return True
    return False
