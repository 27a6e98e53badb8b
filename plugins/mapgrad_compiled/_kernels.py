"""What all kernels share: the types of what they are given, and how what they call is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit, types

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS: Final = types.Array(types.float64, 2, "C", readonly=True)
"""θ, [m, n]."""

INDICES: Final = types.Array(types.int64, 1, "C", readonly=True)
INTEGER: Final = types.int64
STATES: Final = types.float64[:, ::1]
"""z, [m, n], which a kernel writes."""

VALUES: Final = types.float64[::1]
"""Objectives or bounds, [m], which a kernel writes."""

STATUSES: Final = types.int64[::1]
"""`mapgrad.Status` of each row, [m], which a kernel writes."""

INFEASIBLE: Final = int(mapgrad.Status.INFEASIBLE)

subroutine: Final = njit(error_model="numpy")
"""Marks a function that kernels call."""


def utilities(block: mapgrad.Block) -> NDArray[np.float64]:
    """Return θ of a block's rows, [m, n], with −inf where an entry is forbidden."""
    return block.theta if block.forbidden is None else np.where(block.forbidden, -np.inf, block.theta)


def indices(*arrays: Any) -> tuple[NDArray[np.int64], ...]:
    """Return arrays of integers as kernels take them, of the type `INDICES`."""
    return tuple(np.ascontiguousarray(array, dtype=np.int64) for array in arrays)
