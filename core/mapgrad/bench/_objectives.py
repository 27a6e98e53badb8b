"""How far the objectives of solvers that are exact may be apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import row_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_TOLERANCE: Final = 2e-9
"""Of max |θ|: rows are solved to 1e-9 once they are scaled to max |θ| in [½, 1)."""
_ROUNDING: Final = 1e-12


def room_of(theta: Tensor, objectives: Tensor) -> Tensor:
    """Return by how much objectives [N] of rows θ [N, *shape] may differ: float64 [N], on the CPU."""
    size = theta.detach().cpu().double()
    size = size.masked_fill(size.isneginf(), 0.0).flatten(1).abs().amax(1)
    return _TOLERANCE * size + _ROUNDING * objectives.cpu().abs().nan_to_num(posinf=0.0)


def worse_rows(theta: Tensor, objectives: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the rows on which each solver found less than another one did.

    Args:
        theta: [N, *shape], utilities.
        objectives: By solver, [M] float64 with M ≤ N: what its states of the first M rows are worth.
    """
    best = torch.full((len(theta),), -torch.inf, dtype=torch.float64)
    for values in objectives.values():
        best[: len(values)] = torch.maximum(best[: len(values)], values.cpu().nan_to_num(nan=-torch.inf))
    least = best - room_of(theta, best)
    return {name: row_numbers(~(values.cpu() >= least[: len(values)])) for name, values in objectives.items()}
