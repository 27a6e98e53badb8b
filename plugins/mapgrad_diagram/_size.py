"""What can be said of a diagram's size by arithmetic alone, before it is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VARIABLES: Final = 10_000
"""More layers than this aren't tried."""

_ENTRIES: Final = 1_000_000
"""Of a program's dense matrix, up to which the arithmetic is done."""

_CERTAIN: Final = 2**16
"""States that compile in a fraction of a second."""

_FEW: Final = 12
"""Variables of a row whose sums are few enough to tell apart by them what was decided before."""

_UNKNOWN: Final = 1e3
"""Seconds a row where it isn't known whether the program fits: after every other solver."""


def refusal(program: mapgrad.IntegerProgram) -> str | None:
    """Return why a program can't be compiled at all; None where it may fit."""
    if program.num_vars > _VARIABLES:
        return f"it has {program.num_vars:,} variables, and diagrams are made of at most {_VARIABLES:,}"
    return mapgrad.exact.Diagram.refusal(program)


def cost(program: mapgrad.IntegerProgram) -> float:
    """Return seconds a row, fitted to medians on one core of an AMD EPYC server, where a program is sure to fit."""
    most = states_at_most(program)
    return 2e-7 + 1.5e-8 * program.num_vars + 3e-10 * most if most <= _CERTAIN else _UNKNOWN


def setup(program: mapgrad.IntegerProgram) -> float:
    """Return seconds to compile a program, fitted likewise, from what is certain of its size."""
    return 1e-3 + 2.5e-4 * program.num_vars + 2e-6 * min(states_at_most(program), _CERTAIN)


def states_at_most(program: mapgrad.IntegerProgram) -> float:
    """Return a bound on the number of states, in the program's own order of variables; infinity where it isn't known.

    A layer has at most 2 to the power of the variables decided before it, and at most the product, over the rows, of
    the numbers of activities that can be told apart.
    """
    rows, count = program.matrix.shape
    if rows * (count + 1) > _ENTRIES:
        return np.inf
    matrix = program.matrix.toarray()
    entries, rise, fall = (
        np.pad(part.cumsum(axis=1), ((0, 0), (1, 0)))
        for part in ((matrix != 0).astype(np.float64), matrix.clip(min=0), matrix.clip(max=0))
    )
    low, high = program.row_lower[:, None], program.row_upper[:, None]
    activities = _activities(rise, fall, low, high)
    fraction = np.any(matrix % 1 != 0, axis=1, keepdims=True)
    rest = entries[:, -1:] - entries
    sums = np.where(rest <= _FEW, 1 + rest + (np.isfinite(low) & np.isfinite(high) & (low != high)), np.inf)
    logarithms = np.minimum(np.where(fraction, np.inf, np.log2(activities)), np.minimum(entries, sums))
    return float(np.exp2(np.minimum(logarithms.sum(axis=0), np.arange(count + 1))).sum())


def _activities(
    rise: NDArray[np.float64], fall: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how many integers a row's activity may be before each layer, [m, n + 1], as far as they differ.

    Args:
        rise: [m, n + 1], the sum of the positive coefficients before each layer.
        fall: [m, n + 1], of the negative ones.
        low: [m, 1], the rows' lower sides.
        high: [m, 1], their upper sides.
    """
    rest_rise, rest_fall = rise[:, -1:] - rise, fall[:, -1:] - fall
    least, most = np.maximum(fall, low - rest_rise), np.minimum(rise, high - rest_fall)
    # activities from which a one-sided row can't be violated any more are one
    least = np.where(np.isinf(low), np.maximum(least, high - rest_rise), least)
    most = np.where(np.isinf(high), np.minimum(most, low - rest_fall), most)
    return np.maximum(most - least, 0.0) + 1
