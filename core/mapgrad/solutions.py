"""What an answer is: the status of a row, one row's answer, a batch's answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


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


_MEANINGS: Final = {
    Status.ERROR: "the solver raised or gave no usable answer, as its cause says",
    Status.OPTIMAL: "the answer is proved optimal",
    Status.FEASIBLE: "the answer is feasible, but not proved optimal",
    Status.INFEASIBLE: "the feasible set is empty; check the problem's constraints, and which entries θ = −inf forbids",
    Status.UNBOUNDED: "the objective is unbounded; give every priced variable finite bounds",
    Status.TIME_LIMIT: "the time limit came first; raise time_limit or deadline",
}


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


@dataclass(slots=True)
class Solutions:
    """A batch's answers.

    A `BatchSolver` may leave out the objective and the bound, or put NaN where it doesn't know one; a user always finds
    both.

    Attributes:
        z: [*batch, *shape], in θ's dtype and on its device, a list of [*shape] where θ is one; NaN without an answer.
        status: [*batch] int64, values of `Status`.
        objective: [*batch] float64, ⟨θ, z⟩ of the row that was solved (after the domain's clip).
        bound: [*batch] float64, proved upper bound on the optimum; equal to the objective where optimal, else +inf
            unless the solver gave one.
        variables: [*batch, num_vars] float64, values of all variables of the program that was solved, in its order,
            those that θ doesn't price included; None where no program was. Where rows have problems of their own whose
            programs differ in size, or have none: a list of [num_vars], with None for a row without a program.
        seconds: Wall-clock time of the call.
        stats: Counts of this call, under the names of `Solver.stats`.
        causes: What rows raised, by their numbers over the flattened batch.
        samples: S; where it isn't 1, all of these have a dimension [S] before those of the batch.
        forbidden: Bool, like z: the entries that θ = −inf forbids; None where there are none.
        failed: Bool, like the status: the rows without an acceptable answer whose z is filled in, as ``on_error="nan"``
            or ``"zero_grad"`` says; None where there are none.
        needs_all: Whether a row has an answer only where all its samples have one; False where any is enough.
    """

    z: Any
    status: Tensor
    objective: Tensor = None  # pyright: ignore[reportAssignmentType] (the core fills it in before a user sees it)
    bound: Tensor = None  # pyright: ignore[reportAssignmentType] (as above)
    variables: Any = None
    seconds: float = 0.0
    stats: dict[str, float] = field(default_factory=dict[str, float])
    causes: dict[int, BaseException] = field(default_factory=dict[int, BaseException], repr=False)
    samples: int = 1
    forbidden: Any = None
    failed: Any = None
    needs_all: bool = True

    @property
    def mask(self) -> Tensor:
        """[*batch] bool: the rows that have an answer, proved optimal or not, in all samples or, as said, in any."""
        z: Tensor | list[Tensor] = self.z
        if isinstance(z, list):
            rows = [row[None] if self.samples == 1 else row for row in z]
            finite = [[bool(row[sample].isfinite().all()) for row in rows] for sample in range(self.samples)]
            answered = self.status.new_tensor(finite[0] if self.samples == 1 else finite).bool()
        else:
            answered = z.flatten(self.status.ndim).isfinite().all(dim=-1)
        if self.failed is not None:
            answered = answered & ~self.failed
        if self.samples == 1:
            return answered
        return answered.all(dim=0) if self.needs_all else answered.any(dim=0)
