"""A forward pass as one of some of its rows, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def merged(parts: Sequence[Forward], z: Tensor, state: tuple[Tensor, ...]) -> Forward:
    """Return the forward pass of all rows.

    Args:
        parts: What those of some rows found, in order.
        z: [S, B, *shape], the states of all.
        state: That of all.
    """
    rows = [part.rows for part in parts if part.rows is not None]
    status = torch.cat([part.status for part in parts], dim=1)
    return Forward(z, status, torch.cat(rows, dim=1) if rows else None, state)


def part_of(forward: Forward, start: int, stop: int, state: tuple[Tensor, ...]) -> Forward:
    """Return the forward pass of some rows, whose state this is."""
    return Forward(
        forward.z[:, start:stop],
        forward.status[:, start:stop],
        None if forward.rows is None else forward.rows[:, start:stop],
        state,
        forward.theta[start:stop],
        forward.sampler.part(start, stop),
    )
