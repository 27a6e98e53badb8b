"""What a problem's constant sums hide of θ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem

_SWEEPS: Final = 64
"""Where entries are forbidden, means over rows and columns are taken in turn until they no longer matter."""


def allowed_in(theta: Tensor) -> Tensor | None:
    """Return 0 for the forbidden entries of utilities and 1 for the others, like them; None where none is."""
    forbidden = theta.isneginf()
    return (~forbidden).to(theta.dtype) if bool(forbidden.any()) else None


def without_sums(rows: Tensor, allowed: Tensor | None, problem: Problem | None) -> Tensor:
    """Return the part of rows [S or 1, B, *shape] that is orthogonal to a problem's constant sums.

    Args:
        rows: Written to nowhere.
        allowed: [B, *shape], 0 for forbidden entries, which come out as 0, and 1 else; None for no forbidden ones.
        problem: Whose sums they are.
    """
    sums = () if problem is None else problem.constant_sums
    dims = [tuple(axis + 2 - rows.ndim for axis in axes) for axes in sums]
    if allowed is None:
        for each in dims:
            rows = rows - rows.mean(dim=each, keepdim=True)
        return rows
    rows = rows * allowed
    for _ in range(_SWEEPS if len(dims) > 1 else 1):
        for each in dims:
            count = allowed.sum(dim=each, keepdim=True).clamp(min=1)
            rows = rows - rows.sum(dim=each, keepdim=True) / count * allowed
    return rows
