"""From a user's θ to float64 rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.batching import has_forbidden, name_rows, require_float, row_numbers
from mapgrad.errors import InfeasibleError
from mapgrad.problems import batch_shape

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem


def scaled_rows(problem: Problem, theta: Tensor, temperature: float) -> Tensor:
    """Return θ / τ, [*batch, *shape], as float64 rows [B, d].

    Raises:
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries, other than −inf where the lower bound is 0.
        ValueError: the temperature isn't positive.
    """
    batch_shape(problem, require_float(theta), "θ")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    rows = theta.double().reshape(-1, *problem.shape)
    has_forbidden(rows.detach(), problem)
    return rows.flatten(1) / temperature


def require_states_left(problem: Problem, is_left: Tensor) -> None:
    """Check that every row has a state that holds no forbidden entry.

    Args:
        problem: The feasible set.
        is_left: [B] bool, whether a row has one.

    Raises:
        InfeasibleError: with the numbers of the rows that have none.
    """
    rows = row_numbers(~is_left)
    if rows:
        raise InfeasibleError(
            f"{problem!r} has no state without entries that θ = −inf forbids in {name_rows(rows, (len(is_left),))}: "
            "forbid fewer",
            rows=rows,
        )
