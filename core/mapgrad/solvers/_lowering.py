"""From a problem to the one that a solver takes: itself, or its integer program with every variable priced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from mapgrad.problems import IntegerProgram, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray


@runtime_checkable
class Embedded(Protocol):
    """A problem of which θ prices only some variables, such as `IntegerProgram`."""

    def full(self) -> Problem:
        """Return the problem with every variable priced."""
        ...

    def embed(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return utilities of all variables, [N, num_vars], for rows [N, *shape]."""
        ...

    def extract(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the priced variables, [N, *shape], of values [N, num_vars]."""
        ...


@dataclass(frozen=True)
class Lowering:
    """How rows of a problem go to a solver, and how its answers come back.

    Attributes:
        problem: What the user wants solved.
        native: What the solver gets.
        is_restated: Whether a program stands for the problem, whose answers may become better ones of the problem.
        num_vars: Number of variables of that program, or of the problem if it is one; None if it isn't.
    """

    problem: Problem
    native: Problem
    is_restated: bool = False
    num_vars: int | None = None
    _program: Embedded | None = None

    @property
    def is_lowered(self) -> bool:
        """Whether the solver's rows differ from the problem's."""
        return self._program is not None

    def rows(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the native rows [N, *native.shape] of θ [N, *problem.shape]."""
        return theta if self._program is None else self._program.embed(theta)

    def forbidden(self, entries: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which native entries [N, *native.shape] must be 0 so that these entries [N, *problem.shape] are.

        Variables whose own bounds keep them from 0 are left out: an answer will show that they are chosen.
        """
        if self._program is None:
            return entries
        weights = self._program.embed(entries.astype(np.float64)) - self._program.embed(np.zeros(entries.shape))
        return (weights != 0) & (self.native.box[0] <= 0)

    def states(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the problem's states [N, *problem.shape] of native answers; NaN where those are."""
        if self._program is None:
            return x
        z = self._program.extract(x)
        answered = np.isfinite(z).all(axis=tuple(range(1, z.ndim)))
        z[answered] = self.problem.repair(z[answered])
        return z

    def variables(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the variables of the program that stands for the problem, [N, num_vars], of native answers.

        What was added for features that the solver doesn't take comes behind them, and is cut off.
        """
        return x[:, : self.num_vars]

    def start(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return native states [N, *native.shape] with NaN where z [N, *problem.shape] says nothing."""
        if self._program is None:
            return z
        # the other variables' utilities cancel: 1 where θ prices a variable, 0 elsewhere
        known = self._program.embed(np.ones_like(z)) - self._program.embed(np.zeros_like(z))
        return np.where(known == 1, self._program.embed(z), np.nan)


@lru_cache(maxsize=64)
def lower(
    problem: Problem, accepts: tuple[type[Problem], ...] | None, native: tuple[str, ...] | None = None
) -> Lowering:
    """Return how a problem goes to a solver.

    Args:
        problem: What the user wants solved.
        accepts: The problem classes that the solver takes; None for one that doesn't say, and gets what the user gave.
        native: Which features of integer programs the solver takes; None for one that doesn't say.

    Raises:
        UnsupportedProblemError: the solver takes integer programs, and the problem has none; or it has a feature that
            the solver doesn't take, and that rows can't stand for.
    """
    if accepts is not None and not isinstance(problem, accepts) and IntegerProgram in accepts:
        program: Problem = problem.to_ilp()
    else:
        program = problem
    is_restated = program is not problem
    num_vars = program.num_vars if isinstance(program, IntegerProgram) else None
    if isinstance(program, IntegerProgram) and native is not None:
        program = program.reformulated(native)
    if isinstance(program, Embedded):
        return Lowering(problem, program.full(), is_restated, num_vars, program)
    return Lowering(problem, program)
