"""What a solver is: two base classes for plugin authors, what they may return, and what they declare."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems import Problem


class Status(enum.IntEnum):
    """How a row ended. `Solutions.status` holds these numbers in an int64 tensor."""

    ERROR = 0
    OPTIMAL = 1
    FEASIBLE = 2
    INFEASIBLE = 3
    UNBOUNDED = 4
    TIME_LIMIT = 5

    @property
    def meaning(self) -> str:
        """A sentence for people, with the remedy in it."""
        return _MEANINGS[self]


_MEANINGS = {
    Status.ERROR: "the solver raised or gave no usable answer; the chained cause says what happened",
    Status.OPTIMAL: "the answer is proved optimal",
    Status.FEASIBLE: "the answer is feasible, but not proved optimal",
    Status.INFEASIBLE: "the feasible set is empty; check the problem's constraints",
    Status.UNBOUNDED: "the objective is unbounded; give every priced variable finite bounds",
    Status.TIME_LIMIT: "the time limit came first; raise time_limit or accept incumbents",
}


@dataclass(frozen=True)
class Traits:
    """What a solver promises about itself.

    Attributes:
        exact: Answers are optimal, so a bare array means `Status.OPTIMAL` (else `Status.FEASIBLE`).
        releases_gil: Threads speed it up.
        history_free: An answer doesn't depend on the rows solved before.
        deterministic: Equal rows get equal answers, so they may be solved once.
    """

    exact: bool = True
    releases_gil: bool = False
    history_free: bool = True
    deterministic: bool = True


@dataclass(frozen=True)
class Solution:
    """One row's answer.

    Attributes:
        z: The state, of the problem's shape; None where the solver has none.
        status: How the row ended.
        objective: ⟨θ, z⟩ of the row as handed to the solver; None lets the core compute it.
        bound: Proved upper bound on the optimum of that row; None where unknown.
    """

    z: NDArray[np.float64] | None
    status: Status = Status.OPTIMAL
    objective: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Solutions:
    """A batch's answers.

    Attributes:
        z: [*batch, *shape], in θ's dtype and on its device, a list of [*shape] where θ is one; NaN without an answer.
        status: [*batch] int64, values of `Status`.
        objective: [*batch] float64, ⟨θ, z⟩ of the row that was solved (after the domain's clip).
        bound: [*batch] float64, proved upper bound on the optimum; equal to the objective where optimal, else +inf
            unless the solver gave one.
        seconds: Wall-clock time of the call.
        stats: Counts of this call, under the names of `Solver.stats`.
    """

    z: Any
    status: Tensor
    objective: Tensor
    bound: Tensor
    seconds: float = 0.0
    stats: dict[str, float] = field(default_factory=dict[str, float])


@runtime_checkable
class MAPSolver(Protocol):
    """What a layer needs of a solver; `mapgrad.Solver` is one."""

    @property
    def problem(self) -> Problem | None:
        """The feasible set; None for a callable that doesn't say."""
        ...

    def __call__(self, theta: Tensor) -> Tensor:
        """Return argmax ⟨θ, z⟩ for each row of θ [*batch, *shape]: the same shape, dtype and device."""
        ...


class InstanceSolver(ABC):
    """Base class for plugins that solve one row at a time, on the CPU.

    The core batches, copies, scales, merges equal rows and runs threads; a plugin is a constructor, `init` and
    `solve`. One object serves all workers: whatever a row changes belongs in the state that `init` returns.

    Args:
        problem: The feasible set.
        options: What the caller of `get_solver` gave beside the core's own options; a subclass names those it knows.

    Attributes:
        time_limit: Seconds that one row may take, or None; the core sets it before it asks for rows.
        reuse: Whether what earlier rows left behind (a basis, an incumbent) may speed up later ones; the core sets it.
            Where it is false, an answer must not depend on the rows before.
    """

    traits: ClassVar[Traits] = Traits()
    time_limit: float | None = None
    reuse: bool = False

    def __init__(self, problem: Problem, **options: Any) -> None:
        if options:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(map(repr, sorted(options)))}")
        self.problem = problem

    def init(self) -> Any:
        """Build the native model. Called once a worker; the state is never used by two threads at a time."""
        return None

    @abstractmethod
    def solve(self, state: Any, theta: NDArray[np.float64], start: NDArray[np.float64] | None = None) -> Any:
        """Return argmax ⟨θ, z⟩ over the problem's set.

        Args:
            state: What `init` returned.
            theta: float64, C-contiguous, of the problem's shape, scaled to max |θ| in [½, 1) unless it is zero; a
                private copy that may be written to.
            start: A state near the optimum to warm-start from, or None.

        Returns:
            An array of the problem's shape, or a `Solution`.
        """

    def close(self, state: Any) -> None:  # noqa: B027 (a solver that holds nothing has nothing to free)
        """Free the native model."""


class BatchSolver(ABC):
    """Base class for plugins that solve the whole batch at once, on θ's device.

    Args:
        problem: The feasible set.
        options: As for `InstanceSolver`.
    """

    traits: ClassVar[Traits] = Traits()

    def __init__(self, problem: Problem, **options: Any) -> None:
        if options:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(map(repr, sorted(options)))}")
        self.problem = problem

    @abstractmethod
    def solve(self, theta: Tensor) -> Tensor | Solutions:
        """Return argmax ⟨θ, z⟩ over the problem's set, row by row.

        Args:
            theta: [N, *shape], float32 or float64, contiguous, any device; must not be written to.

        Returns:
            A tensor of θ's shape and device, or `Solutions` with batch dimensions [N].
        """


@dataclass(frozen=True)
class SolverSpec:
    """What a plugin says of a solver before anything heavy is imported.

    Attributes:
        name: Name within the plugin. The full name is ``plugin.name``, or ``plugin`` where both are the same.
        factory: The solver class as ``"module:Class"``, imported on first use; or the class itself.
        accepts: Problem classes that it takes.
        supports: Maps a problem of these classes to None, or to the reason why it can't be taken; None accepts all.
        requires: Importable packages that must be there.
        install: The command that installs them.
        cost: Expected seconds a row, by which ``"auto"`` chooses; None sorts last.
    """

    name: str
    factory: str | type[InstanceSolver] | type[BatchSolver]
    accepts: tuple[type[Problem], ...]
    supports: Callable[[Problem], str | None] | None = None
    requires: tuple[str, ...] = ()
    install: str = ""
    cost: Callable[[Problem], float] | None = None
