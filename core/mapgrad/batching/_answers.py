"""A batch's answers: as arrays while workers fill them in, as tensors once they are back on θ's device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from mapgrad.batching._staging import to_device
from mapgrad.errors import ShapeError
from mapgrad.solvers import Solutions, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.solvers import Solution


@dataclass
class Answers:
    """Answers to rows [N, *shape]; NaN where there is none.

    Attributes:
        z: [N, *shape] float64.
        status: [N] int64.
        objective: [N] float64, NaN where the solver didn't say.
        bound: [N] float64, NaN where the solver didn't say.
        errors: What a row raised, by its number.
    """

    z: NDArray[np.float64]
    status: NDArray[np.int64]
    objective: NDArray[np.float64]
    bound: NDArray[np.float64]
    errors: dict[int, BaseException] = field(default_factory=dict[int, BaseException])

    @staticmethod
    def unsolved(shape: tuple[int, ...]) -> Answers:
        """Return answers to rows of [N, *shape] that nobody has solved yet."""
        return Answers(
            z=np.full(shape, np.nan),
            status=np.full(shape[0], int(Status.ERROR), dtype=np.int64),
            objective=np.full(shape[0], np.nan),
            bound=np.full(shape[0], np.nan),
        )

    def put(self, row: int, answer: Solution) -> None:
        """Write one row's answer.

        Raises:
            ValueError: it is none: a state is missing, of another shape, or not finite.
        """
        if answer.z is not None:
            z = np.asarray(answer.z, dtype=np.float64)
            if z.shape != self.z.shape[1:]:
                raise ValueError(f"the solver answered with shape {z.shape} where {self.z.shape[1:]} was expected")
            if not math.isfinite(np.vdot(z, z)):  # the quickest way to look at all entries
                raise ValueError("the solver answered with NaN or infinite entries")
            self.z[row] = z
        elif answer.status in (Status.OPTIMAL, Status.FEASIBLE):
            raise ValueError(f"the solver reports {answer.status.name} without a state")
        self.status[row] = answer.status
        self.objective[row] = np.nan if answer.objective is None else answer.objective
        self.bound[row] = np.nan if answer.bound is None else answer.bound

    def place(self, rows: NDArray[np.int64], part: Answers) -> None:
        """Write the answers to some rows, given by their numbers."""
        self.z[rows], self.status[rows] = part.z, part.status
        self.objective[rows], self.bound[rows] = part.objective, part.bound
        self.errors.update({int(rows[row]): error for row, error in part.errors.items()})

    def take(self, rows: list[int]) -> Answers:
        """Return the answers at these places, repeated where a place is."""
        errors = {row: self.errors[place] for row, place in enumerate(rows) if place in self.errors}
        return Answers(self.z[rows], self.status[rows], self.objective[rows], self.bound[rows], errors)

    def fill_objectives(self, rows: NDArray[np.float64]) -> None:
        """Work out ⟨row, z⟩ for rows [N, *shape] where the solver didn't say."""
        computed = (rows * self.z).sum(axis=tuple(range(1, rows.ndim)))
        self.objective = np.where(np.isnan(self.objective), computed, self.objective)

    def refuse_inexact(self, integer: NDArray[np.bool_], dtype: torch.dtype) -> None:
        """Fail the rows in which a dtype can't hold one of these coordinates [*shape]."""
        held = np.asarray(torch.as_tensor(self.z).to(dtype).double())
        wrong = integer & (held != self.z) & np.isfinite(self.z)
        for row in np.flatnonzero(wrong.any(axis=tuple(range(1, wrong.ndim)))).tolist():
            value = self.z[row][wrong[row]][0]
            self.errors[row] = ShapeError(f"{dtype} can't hold the integer {value:.0f}: pass θ in a wider dtype")
            self.status[row], self.z[row] = Status.ERROR, np.nan

    def to_tensors(self, like: Tensor) -> Solved:
        """Return the answers on a tensor's device, z in its dtype."""
        status, objective, bound = (
            torch.as_tensor(values).to(like.device) for values in (self.status, self.objective, self.bound)
        )
        return Solved(to_device(self.z, like), status, objective, bound, self.errors)


@dataclass
class Solved:
    """A flat batch's answers: z [N, *shape], the rest [N], on θ's device; NaN where a solver didn't say."""

    z: Tensor
    status: Tensor
    objective: Tensor
    bound: Tensor
    errors: dict[int, BaseException]

    def solutions(self, batch: tuple[int, ...], seconds: float, counts: dict[str, float]) -> Solutions:
        """Return what the caller gets, with batch dimensions."""
        unproved = torch.where(self.status == Status.OPTIMAL, self.objective, torch.inf)
        return Solutions(
            z=self.z.reshape(*batch, *self.z.shape[1:]),
            status=self.status.reshape(batch),
            objective=self.objective.reshape(batch),
            bound=torch.where(self.bound.isnan(), unproved, self.bound).reshape(batch),
            seconds=seconds,
            stats=counts,
        )
