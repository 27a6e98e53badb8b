"""The kernel: a best path through a diagram for eight rows side by side, which compilers turn into vector code."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types

import mapgrad

_LANES: Final = 8
_LARGE: Final = 1e280
_SMALLER: Final = 2.0**-64


def _read_only(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C", readonly=True)


_NUMBERS, _INDICES, _CHILDREN = (_read_only(each, 1) for each in (types.float64, types.int64, types.int32))


@mapgrad.kernel(
    *(_read_only(types.float64, 2), _INDICES, _INDICES, _CHILDREN, _CHILDREN, _NUMBERS),
    *(types.float64[:, ::1], types.boolean[::1]),
)
def sweep(theta, order, ends, low, high, leaf_values, z, is_left):
    """Write the best state of each row, and whether it has one.

    An entry costs its row max(θ, 0) if it is 0 and max(−θ, 0) if it is 1, so that large θ cost no digits. Among equals
    1 is taken.

    Args:
        theta: [m, d], −inf where an entry must be 0.
        order: The diagram's arrays, as this and the next ones are called there.
        ends: See there.
        low: See there.
        high: See there.
        leaf_values: See there.
        z: [m, d], written to.
        is_left: [m], written to.
    """
    rows, count = theta.shape
    values = np.empty((len(low), _LANES))
    low_gain, high_gain = np.empty((count, _LANES)), np.empty((count, _LANES))
    factor = np.empty(_LANES)
    for first in range(0, rows, _LANES):
        lanes = min(_LANES, rows - first)
        for lane in range(_LANES):
            row = theta[first + min(lane, lanes - 1)]
            largest = 0.0
            for entry in range(count):
                if row[entry] != -np.inf:
                    largest = max(largest, abs(row[entry]))
            factor[lane] = _SMALLER if largest > _LARGE else 1.0
            for layer in range(count):
                utility = row[order[layer]] * factor[lane]
                taken = max(utility, 0.0)
                low_gain[layer, lane], high_gain[layer, lane] = -taken, utility - taken
        for leaf in range(ends[count]):
            for lane in range(_LANES):
                values[leaf, lane] = leaf_values[leaf] * factor[lane]
        for layer in range(count - 1, -1, -1):
            zero, one = low_gain[layer], high_gain[layer]
            for node in range(ends[layer + 1], ends[layer]):
                below, above, value = values[low[node]], values[high[node]], values[node]
                for lane in range(_LANES):
                    left, right = below[lane] + zero[lane], above[lane] + one[lane]
                    value[lane] = max(left, right)
        for lane in range(lanes):
            node = len(low) - 1
            is_left[first + lane] = values[node, lane] > -np.inf
            for layer in range(count):
                left = values[low[node], lane] + low_gain[layer, lane]
                right = values[high[node], lane] + high_gain[layer, lane]
                z[first + lane, order[layer]] = 1.0 if right >= left else 0.0
                node = high[node] if right >= left else low[node]
