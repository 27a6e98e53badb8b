"""Rows worked on in chunks, so that what lies between θ and the result stays within a budget of bytes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import is_differentiated
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


def require_fit(what: str, row_bytes: int, max_bytes: int) -> int:
    """Return a budget as an int, and refuse one that a single row doesn't fit into.

    Args:
        what: Whose row, for the message.
        row_bytes: What one row takes.
        max_bytes: The budget.

    Raises:
        ProblemError: it is too small.
        TypeError: it isn't an integer.
        ValueError: it isn't positive.
    """
    max_bytes = whole_number("max_bytes", max_bytes, 1)
    if row_bytes > max_bytes:
        raise ProblemError(
            f"{what} takes {row_bytes:,} bytes for a single row, and the budget is {max_bytes:,}: allow as many by "
            "max_bytes=…, or make the problem smaller"
        )
    return max_bytes


def rows_together(rows: Tensor, row_bytes: int, max_bytes: int) -> int:
    """Return how many rows are worked on at a time."""
    together = _TOGETHER if rows.device.type == "cpu" else _TOGETHER_ON_DEVICE
    return max(1, min(together, max_bytes) // row_bytes)


def within_budget(function: _Function, rows: Tensor, size: int, max_bytes: int) -> _Function:
    """Return a function that keeps nothing for its derivative but its arguments, if the budget requires that.

    What lies between is then computed once more.

    Args:
        function: Differentiable in its arguments, which are tensors; what else it uses needs no gradient.
        rows: What it gets a part of, at each call.
        size: Bytes that all calls together would keep.
        max_bytes: The budget.

    Raises:
        RuntimeError: torch.func asks for the derivative of what doesn't fit.
    """
    if size <= max_bytes or not (rows.requires_grad and torch.is_grad_enabled()):
        return function
    if is_differentiated():
        raise RuntimeError(
            f"torch.func can't differentiate an exact oracle whose rows take more than its budget, {size:,} bytes of "
            f"{max_bytes:,}: split the batch, allow more by max_bytes=…, or take torch.autograd.grad"
        )
    return functools.partial(_apply, function)


def in_chunks(function: _Function, rows: Tensor, row_bytes: int, max_bytes: int, *shared: Tensor) -> Tensor:
    """Apply a function, as `within_budget` says, to some of the rows [B, …] and all that is shared at a time."""
    parts = torch.split(rows, rows_together(rows, row_bytes, max_bytes)) if len(rows) else (rows,)
    run = within_budget(function, rows, len(rows) * row_bytes, max_bytes)
    found = [run(part, *shared) for part in parts]
    return found[0] if len(found) == 1 else torch.cat(found)


class _Repeated(torch.autograd.Function):
    """A function whose backward pass repeats the forward one; unlike torch's checkpoint, it keeps no graph either."""

    @staticmethod
    def forward(ctx: Any, function: _Function, *arguments: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*arguments)
        return function(*arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        is_twice = torch.is_grad_enabled()
        arguments: list[Tensor] = [
            argument if is_twice or not is_needed else argument.detach().requires_grad_()
            for argument, is_needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        wanted = [each for each, is_needed in zip(arguments, ctx.needs_input_grad[1:], strict=True) if is_needed]
        with torch.enable_grad():
            result = ctx.function(*arguments)
            found = iter(torch.autograd.grad(result, wanted, *gradients, create_graph=is_twice))
        return None, *(next(found) if is_needed else None for is_needed in ctx.needs_input_grad[1:])


_apply = cast("_Function", _Repeated.apply)  # pyright: ignore[reportUnknownMemberType] (untyped)
