"""What stands for a row in the noise: an integer of the user's, or its rank and its place in the batch."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, distributed

from mapgrad.errors import ShapeError

_RANK: Final = 1 << 32
"""Lies between the ids of the first rows of two ranks."""


def first_id() -> int:
    """Return the id of a batch's first row where the user gives none: 2³² times the rank in torch.distributed, or 0."""
    if distributed.is_available() and distributed.is_initialized():
        return _RANK * distributed.get_rank()
    return 0


def require_row_ids(rows: object, batch: tuple[int, ...], device: torch.device) -> Tensor:
    """Return ids that a user gave, int64 of the batch's shape on a device.

    Raises:
        TypeError: they aren't integers; or torch.compile would take them for constants.
        ShapeError: there isn't one for each row.
    """
    if isinstance(rows, Tensor):
        ids = rows
    elif torch.compiler.is_compiling():
        raise TypeError(
            f"rows must be a tensor under torch.compile, which would compile the numbers of a {type(rows).__name__} "
            f"into its code, once for each batch: pass torch.tensor(rows)"
        )
    else:
        ids = _as_tensor(rows)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"rows must be integers, one for each row, got {ids.dtype}: pass the rows' numbers in the data")
    if ids.shape != batch:
        raise ShapeError(
            f"rows must have one id for each row of the batch, {tuple(batch)}, got shape {tuple(ids.shape)}"
        )
    return ids.to(device, torch.int64)


def _as_tensor(rows: Any) -> Tensor:
    try:
        ids = torch.as_tensor(rows, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"rows must be a tensor or a sequence of integers, one for each row, got {type(rows).__name__}: {error}"
        ) from error
    return ids if ids.numel() else ids.to(torch.int64)
