"""A batch in parts, which an estimator sees one by one: where it is cut, and a forward pass of some of its rows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_SMALL: Final = 1 << 16
"""Entries of a batch that is never cut."""

_PART_BYTES: Final = 1 << 22
_PART_BYTES_ELSEWHERE: Final = 1 << 27
"""How much of a batch an estimator sees at a time, where it may: what it holds beside the answers is in proportion."""


def is_small(theta: Tensor, states: int) -> bool:
    """Tell whether rows θ, with so many states each, are never cut, unless somebody maps."""
    return states * theta.numel() <= _SMALL


def pieces_of(theta: Tensor, states: int) -> int:
    """Return into how many parts rows θ, with so many states each, are cut where any row may begin one."""
    budget = _PART_BYTES if theta.is_cpu else _PART_BYTES_ELSEWHERE
    return min(-(-states * theta.nbytes // budget), theta.shape[0])


def cut(count: int, pieces: int) -> list[tuple[int, int]]:
    """Return the first row of each part, and the row after its last one; pieces below 1 count as 1."""
    pieces = max(pieces, 1)
    return list(pairwise(count * piece // pieces for piece in range(pieces + 1)))


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
