"""From a user's θ to float64 rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.batching import require_finite, require_float
from mapgrad.problems import batch_shape

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem


def scaled_rows(problem: Problem, theta: Tensor, temperature: float) -> Tensor:
    """Return θ / τ, [*batch, *shape], as float64 rows [B, d].

    Raises:
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries.
        ValueError: the temperature isn't positive.
    """
    batch_shape(problem, require_float(theta), "θ")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    rows = theta.double().reshape(-1, *problem.shape).flatten(1)
    require_finite(rows.detach())
    return rows / temperature
