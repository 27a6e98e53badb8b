"""Sum-of-Gamma noise as one loop of machine code: the same bits as NumPy's passes, several times as fast."""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.solvers import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_logger = logging.getLogger("mapgrad")

_SHARE: Final = 1024
"""Numbers that go through the kernel's steps together, in the nearest cache."""

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR: Final = np.uint64(0x94D049BB133111EB)
_STEP: Final = 2.0**-52


def noise_kernel(dtype: np.dtype[Any]) -> Callable[..., None] | None:
    """Return `_fill` for float32 or float64 results; None where numba isn't at work in this process.

    That is where a compiled solver is: numba takes half a second to import, which a loop in NumPy never costs.
    """
    return _compiled(dtype.name) if "numba" in sys.modules else None


@cache
def _compiled(dtype: str) -> Callable[..., None] | None:
    try:
        from numba import types

        rows = types.Array(types.uint64, 1, "C", readonly=True)
        cubics = types.Array(types.float64, 2, "C", readonly=True)
        return kernel(types.uint64, rows, cubics, types.Array(getattr(types, dtype), 2, "C"))(_fill).ready()
    except Exception:
        _logger.info("noise is made by NumPy, as numba can't compile it", exc_info=True)
        return None


def _fill(key: np.uint64, rows: NDArray[np.uint64], cubics: NDArray[np.float64], result: NDArray[Any]) -> None:
    """Write noise, by the steps of `counter_noise` and `Table.icdf_`.

    Args:
        key: That of the sample.
        rows: [m], what stands for each row.
        cubics: [65536, 4], `Table.quantiles`.
        result: [m, n], written to.
    """
    count = result.shape[1]
    places, narrow = np.empty(_SHARE), np.empty(_SHARE, np.float32)
    cells = narrow.view(np.uint32)
    for row in range(len(rows)):
        base = key + (rows[row] + np.uint64(1)) * _GOLDEN
        base = (base ^ (base >> np.uint64(30))) * _FIRST_FACTOR
        base = (base ^ (base >> np.uint64(27))) * _SECOND_FACTOR
        base ^= base >> np.uint64(31)
        for start in range(0, count, _SHARE):
            size = min(_SHARE, count - start)
            for k in range(size):
                bits = base + np.uint64(start + k + 1) * _GOLDEN
                bits = (bits ^ (bits >> np.uint64(30))) * _FIRST_FACTOR
                bits = (bits ^ (bits >> np.uint64(27))) * _SECOND_FACTOR
                bits ^= bits >> np.uint64(31)
                u = np.float64(bits >> np.uint64(12)) * _STEP + 0.5 * _STEP
                z = u - np.float64(u > 0.5)
                places[k], narrow[k] = z, z
            for k in range(size):
                z, cell = places[k], cells[k] >> np.uint32(16)
                value = cubics[cell, 3] * z
                value = (value + cubics[cell, 2]) * z
                value = (value + cubics[cell, 1]) * z
                result[row, start + k] = value + cubics[cell, 0]
