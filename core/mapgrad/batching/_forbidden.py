"""Stage `forbidden`: entries that θ = −inf forbids, for solvers that know nothing of them, and in the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mapgrad.batching._theta import row_numbers
from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import IntegerProgram, Problem
from mapgrad.solutions import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.solutions import Solutions

_TOLERANCE: Final = 1e-6
"""Up to which an entry counts as 0."""

UNSERVED: Final = (
    "θ = −inf forbids an entry of a continuous variable, or beside variables without bounds, where no finite θ in its "
    "place is low enough: take a solver whose traits say masks=True, such as 'highs' or 'scipy.milp'"
)


_OF_FUNCTION: Final = (
    "the function answered with an entry that θ = −inf forbids, where it was given a utility so low that an argmax "
    "holds the entry only if every state holds such an entry. If another state has none, let the function return the "
    "argmax, or make it a mapgrad.BatchSolver with traits = Traits(exact=False)"
)


def with_penalties(rows: Tensor, forbidden: Tensor, problem: Problem | None) -> tuple[Tensor, list[int]]:
    """Return rows whose optima hold a forbidden entry only where each state does.

    Such an entry gets −(2 Σ |θ_i| max(1, upper_i − lower_i) + 1), over the row's other entries, which is more than two
    states that hold none can differ by.

    Args:
        rows: [N, *shape], whatever stands in forbidden places; not written to.
        forbidden: [N, *shape] bool.
        problem: What is solved; None counts as one of bounds 0 and 1.

    Returns:
        Rows of the same dtype and device, and the numbers of those that no finite θ makes right.
    """
    finite = rows.masked_fill(forbidden, 0.0).flatten(1)
    costs, unserved = finite.abs().double(), []
    spread = 0.0
    if problem is not None:
        ranges = _ranges(problem)
        costs *= torch.as_tensor(np.where(np.isfinite(ranges), np.maximum(ranges, 1), 1), device=rows.device)
        unserved = row_numbers(_is_unserved(finite, forbidden.flatten(1), problem, ranges))
        spread = _spread_of_others(problem)
    penalty = -(2 * (costs.sum(dim=1) + spread) + 1)
    penalty = penalty.clamp(min=torch.finfo(rows.dtype).min).to(rows.dtype)
    return torch.where(forbidden, penalty.reshape(-1, *[1] * (rows.ndim - 1)), rows), unserved


def _ranges(problem: Problem) -> NDArray[np.float64]:
    lower, upper = problem.box
    return (upper - lower).reshape(-1)


def _is_unserved(finite: Tensor, forbidden: Tensor, problem: Problem, ranges: NDArray[np.float64]) -> Tensor:
    """Tell in which rows [N, n] a forbidden variable may take fractions, or others have no limit to what they add."""
    if isinstance(problem, IntegerProgram):
        is_whole = problem.integrality[problem.decision]
    else:  # who has continuous coordinates has a test of their own
        is_whole = np.full(len(ranges), type(problem).in_box is Problem.in_box)
    continuous, unlimited = (torch.as_tensor(each, device=finite.device) for each in (~is_whole, ~np.isfinite(ranges)))
    wrong = (forbidden & continuous) | ((finite != 0) & unlimited)
    return wrong.any(dim=1) & forbidden.any(dim=1)


def _spread_of_others(problem: Problem) -> float:
    """Return by how much the variables that θ doesn't price may change what a state is worth."""
    if not isinstance(problem, IntegerProgram) or not problem.fixed.any():
        return 0.0
    ranges = (problem.upper - problem.lower)[problem.others]
    return float(np.abs(problem.fixed) @ np.where(np.isfinite(ranges), ranges, 1))


def fail_unserved(solutions: Solutions, _is_clean: bool, unserved: list[int]) -> tuple[Solutions, bool]:
    """Fail rows that the solver wasn't rightly asked for, in what `solve_batch` returns."""
    solutions.status, solutions.z = solutions.status.clone(), solutions.z.clone()
    solutions.status[unserved] = int(Status.ERROR)
    solutions.z[unserved] = torch.nan
    solutions.causes.update({row: UnsupportedProblemError(UNSERVED) for row in unserved})
    return solutions, False


def refuse_forbidden(solutions: Solutions, rows: Tensor, *, is_of_function: bool) -> bool:
    """Fail the rows whose answers hold a forbidden entry; elsewhere these are 0, and not only nearly.

    Where such an answer is optimal, each state holds a forbidden entry: the row is infeasible. Else it is an error, or
    no answer in time. A user's function counts as exact, as its contract says, but is told what else may be wrong.

    Args:
        solutions: z [N, *shape], status [N].
        rows: [N, *shape], with −inf where an entry is forbidden.
        is_of_function: Whether they come from a user's function.

    Returns:
        Whether there are no such rows.
    """
    forbidden = rows.isneginf()
    solutions.forbidden = forbidden
    held = (forbidden & (solutions.z.abs() > _TOLERANCE)).flatten(1).any(dim=1)
    solutions.z = solutions.z.masked_fill(forbidden & solutions.z.isfinite(), 0.0)
    failed = row_numbers(held)
    if not failed:
        return True
    status: Tensor = solutions.status
    for row in row_numbers(held & (status == Status.FEASIBLE)):
        solutions.causes[row] = ValueError(
            "the solver found only a state that holds an entry which θ = −inf forbids, and hasn't proved that each does"
        )
    if is_of_function:
        solutions.causes.update(
            {row: ValueError(_OF_FUNCTION) for row in row_numbers(held & (status == Status.OPTIMAL))}
        )
    settled = torch.where(status == Status.OPTIMAL, int(Status.INFEASIBLE), status)
    settled = torch.where(status == Status.FEASIBLE, int(Status.ERROR), settled)
    solutions.status = torch.where(held, settled, status)
    for name in ("z", "objective", "bound", "variables"):
        values = getattr(solutions, name)
        if values is not None:
            values = values.clone()
            values[failed] = torch.nan
            setattr(solutions, name, values)
    return False
