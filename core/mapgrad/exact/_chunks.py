"""Rows worked on in chunks, so that what lies between θ and the result stays within a budget of bytes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import torch

from mapgrad.errors import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    _Function: TypeAlias = Callable[..., Tensor]

MAX_BYTES: Final = 2**30
"""What an oracle may take beside θ and its result, unless told otherwise."""

_TOGETHER: Final = 2**26
"""Bytes of rows that are worked on together, if the budget allows: more would leave a processor's caches."""

_TOGETHER_ON_DEVICE: Final = 2**29
"""The same where each operation is a kernel, which costs less the more rows there are."""


def require_fit(what: str, row_bytes: int, max_bytes: int) -> None:
    """Refuse what one row doesn't fit into.

    Args:
        what: Whose row, for the message.
        row_bytes: What one row takes.
        max_bytes: The budget.

    Raises:
        ProblemError: it is too small.
    """
    if row_bytes > max_bytes:
        raise ProblemError(
            f"{what} takes {row_bytes:,} bytes for a single row, and the budget is {max_bytes:,}: allow as many by "
            "max_bytes=…, or make the problem smaller"
        )


def rows_together(rows: Tensor, row_bytes: int, max_bytes: int) -> int:
    """Return how many rows are worked on at a time."""
    together = _TOGETHER if rows.device.type == "cpu" else _TOGETHER_ON_DEVICE
    return max(1, min(together, max_bytes) // row_bytes)


def within_budget(function: _Function, rows: Tensor, size: int, max_bytes: int) -> _Function:
    """Return a function that keeps nothing for its derivative but what it was given, if the budget requires that.

    What lies between is then computed once more.

    Args:
        function: Differentiable.
        rows: What it gets a part of, at each call.
        size: Bytes that all calls together would keep.
        max_bytes: The budget.
    """
    if size <= max_bytes or not (rows.requires_grad and torch.is_grad_enabled()):
        return function
    from torch.utils import checkpoint

    checkpointed = cast("_Function", checkpoint.checkpoint)  # pyright: ignore[reportUnknownMemberType] (untyped)
    return functools.partial(checkpointed, function, use_reentrant=False, preserve_rng_state=False)


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, row_bytes: int, max_bytes: int) -> Tensor:
    """Apply a differentiable function of rows [B, …] to some rows at a time, within a budget of bytes."""
    parts = torch.split(rows, rows_together(rows, row_bytes, max_bytes)) if len(rows) else (rows,)
    run = within_budget(function, rows, len(rows) * row_bytes, max_bytes)
    found = [run(part) for part in parts]
    return found[0] if len(found) == 1 else torch.cat(found)
