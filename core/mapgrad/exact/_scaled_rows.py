"""From a user's θ to float64 rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mapgrad.batching import has_forbidden, name_rows, require_float, row_numbers, without_transforms
from mapgrad.errors import InfeasibleError
from mapgrad.problems import batch_shape

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem

NEVER: Final = -1e300
"""log 0 among values that are differentiated: with −∞, differences and derivatives would be NaN."""

NO_STATE: Final = -1e288
"""Below which a log-partition is that of no state at all: far above `NEVER`, of which a state may hold a part only."""

LARGEST: Final = 1e280
"""Up to which |θ| / τ is told apart from `NEVER`, whatever the number of entries."""


def scaled_rows(problem: Problem, theta: Tensor, temperature: float) -> Tensor:
    """Return θ / τ, [*batch, *shape], as float64 rows [B, d].

    Raises:
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries, other than −inf where the lower bound is 0.
        ValueError: the temperature isn't positive and finite.
    """
    batch_shape(problem, require_float(theta), "θ")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    rows = theta.double().reshape(-1, *problem.shape)
    has_forbidden(without_transforms(rows).detach().reshape(-1, *problem.shape), problem)
    return rows.flatten(1) / temperature


def floored_rows(problem: Problem, theta: Tensor, temperature: float) -> Tensor:
    """Return `scaled_rows` with `NEVER` where θ = −inf, which gets no gradient.

    Raises:
        ShapeError: as `scaled_rows`.
        NonFiniteError: as `scaled_rows`.
        ValueError: as `scaled_rows`, or θ / τ exceeds 1e280.
    """
    rows = scaled_rows(problem, theta, temperature)
    forbidden = theta.detach().reshape(rows.shape).isneginf()  # θ / τ may be −inf by overflow
    rows = rows.masked_fill(forbidden, 0.0)
    require_below_largest(float(without_transforms(rows.detach()).abs().amax()) if rows.numel() else 0.0)
    return rows.masked_fill(forbidden, NEVER)


def require_below_largest(size: float) -> None:
    """Refuse utilities whose size, divided by the temperature, exceeds `LARGEST`.

    Raises:
        ValueError: it does.
    """
    if size > LARGEST:
        raise ValueError(f"utilities divided by the temperature must be at most 1e280, got {size:g}: raise it")


def require_states_left(problem: Problem, is_left: Tensor) -> None:
    """Check that every row has a state that holds no forbidden entry.

    Args:
        problem: The feasible set.
        is_left: [B] bool, whether a row has one.

    Raises:
        InfeasibleError: with the numbers of the rows that have none.
    """
    is_left = without_transforms(is_left).reshape(-1)
    rows = row_numbers(~is_left)
    if rows:
        raise InfeasibleError(
            f"{problem!r} has no state without entries that θ = −inf forbids in {name_rows(rows, (len(is_left),))}: "
            "forbid fewer",
            rows=rows,
        )
