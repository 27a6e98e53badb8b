"""What all kernels share: the types of what they are given, and how what they call is compiled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit, types

if TYPE_CHECKING:
    from numpy.typing import NDArray

GIVEN: Final = types.Array(types.float64, 2, "C", readonly=True)
"""A table that a kernel only reads."""

TODO: Final = types.Array(types.int64, 1, "C", readonly=True)
"""Numbers of rows."""

TABLE: Final = types.float64[:, ::1]
NUMBERS: Final = types.float64[::1]
INDICES: Final = types.int64[::1]

_HELPER: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
_FAST: Any = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}}

inner: Final = njit(**_HELPER)
"""For functions that kernels call. They make no arrays and return none, so numba needs to count no references, which
are else a good part of what is compiled."""

sums: Final = njit(**_HELPER, **_FAST)
"""For those whose sums may be added up in any order."""

short: Final = njit(**_HELPER, **_FAST, forceinline=True)
"""For those that are called so often that handing over arrays would count."""

once: Final = njit(**_HELPER, inline="always")
"""For those that are called in one place: they become part of the caller. Else what they call is compiled twice."""

_APART: Final = 32


def room(*shape: int, dtype: Any = np.float64) -> NDArray[Any]:
    """Return zeros of eight bytes each, which share no cache line with anything else.

    With a neighbour that another thread writes to, a search takes twice as long.
    """
    count = math.prod(shape)
    return np.zeros(count + 2 * _APART, dtype)[_APART : _APART + count].reshape(shape)
