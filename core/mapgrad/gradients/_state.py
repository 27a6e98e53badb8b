"""The state that an estimator keeps of a forward pass, of a whole batch and of its parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def joined(states: Sequence[tuple[Tensor, ...]], lead: tuple[int, ...], mapped: int) -> tuple[Tensor, ...]:
    """Return the state of all parts with all its dimensions; `taken` gives a part's again.

    Args:
        states: That of each part.
        lead: Mapped and batch dimensions.
        mapped: How many of them are mapped.

    Returns:
        [*mapped] of tensors without dimensions, of which each element of a map may have another; else
        [*mapped, *batch, …, 1], whose last dimension tells the two apart.
    """
    found: list[Tensor] = []
    for column in zip(*states, strict=True):
        if column[0].ndim > 0:
            found.append(torch.cat(column).reshape(*lead, *column[0].shape[1:], 1))
        elif len(column) == math.prod(lead[:mapped]):
            found.append(torch.stack(column).reshape(lead[:mapped]))
        else:
            found.append(column[0].expand(lead[:mapped]))
    return tuple(found)


def taken(
    state: Sequence[Tensor], lead: tuple[int, ...], mapped: int, *, element: int, start: int, stop: int
) -> tuple[Tensor, ...]:
    """Return the state of a part.

    Args:
        state: As from `joined`.
        lead: Mapped and batch dimensions.
        mapped: How many of them are mapped.
        element: Which element of a map has the part's tensors without dimensions.
        start: The part's first row.
        stop: The row after its last one.
    """
    count, split = math.prod(lead), len(lead)
    return tuple(
        tensor.reshape(-1)[element]
        if tensor.ndim == mapped
        else tensor.reshape(count, *tensor.shape[split:-1])[start:stop]
        for tensor in state
    )
