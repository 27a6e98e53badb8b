"""What the box of a program's variables tells of its rows and utilities, for engines of absolute tolerances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.problems import SparseRows
from mapgrad.solvers._points import wide_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram
    from mapgrad.solvers._limits import Limits
    from mapgrad.solvers._points import Rows

_DISTANT: Final = 1e6
"""Times the smallest coefficient of its row: beside a larger one the smallest is near the engines' tolerances."""

_SMALL: Final = 1e4
"""Beside larger integers, what is left of a scaled row is rounding."""

_ROUNDED_BITS: Final = 31
"""Rounding to multiples of 2^-31 divided by the widths of all variables makes no point worse by 1e-9 of max |θ|."""


def on_grid(theta: NDArray[np.float64], limits: Limits, bits: int) -> NDArray[np.float64]:
    """Return utilities as multiples of 2^-bits, or of so much less that no optimum is lost by 1e-9 of max |θ| ≥ ½."""
    reach = float((limits.upper - limits.lower).sum())
    if not math.isfinite(reach):
        return theta
    bits = max(bits, _ROUNDED_BITS + math.frexp(reach)[1])
    return np.ldexp(np.rint(np.ldexp(theta, bits)), -bits)


def break_a_row(rows: Rows, matrix: SparseRows, limits: Limits) -> bool:
    """Tell whether no point of the bounds meets some row: where it is nearest to doing so, that row doesn't hold."""
    is_positive, places = matrix.data > 0, matrix.row_of_entry
    lower, upper = limits.lower[matrix.indices], limits.upper[matrix.indices]
    ends = np.where(is_positive, lower, upper), np.where(is_positive, upper, lower)
    least, most = (np.bincount(places, matrix.data * end, minlength=matrix.shape[0]) for end in ends)
    for row in np.flatnonzero((least > limits.row_upper) | (most < limits.row_lower)).tolist():
        x = np.clip(0.0, limits.lower, limits.upper)
        x[matrix.row(row)[0]] = ends[0 if least[row] > limits.row_upper[row] else 1][places == row]
        others = np.arange(matrix.shape[0]) != row
        sides = np.where(others, -np.inf, limits.row_lower), np.where(others, np.inf, limits.row_upper)
        if not rows.hold(x, limits._replace(row_lower=sides[0], row_upper=sides[1])):
            return True
    return False


def are_small_integers(program: IntegerProgram) -> bool:
    """Tell whether all variables are integers of at most 1e4."""
    return bool(program.integrality.all() and (np.abs((program.lower, program.upper)) <= _SMALL).all())


def is_distant(program: IntegerProgram) -> bool:
    """Tell whether the coefficients of a row with integer variables are far apart, which may be `tightened`."""
    return bool(program.integrality.any()) and len(wide_rows(program.matrix, _DISTANT)) > 0


def tightened(program: IntegerProgram, limits: Limits) -> IntegerProgram:
    """Return a program of these limits and the same points, with smaller coefficients of integers where rows allow it.

    A coefficient may be smaller where its variable's first step away from 0 breaks the row anyway, whatever the others
    are, and where that step frees the row of them all (M. W. P. Savelsbergh: Preprocessing and probing techniques for
    mixed integer programming problems, 1994).
    """
    matrix = program.matrix
    data = matrix.data.copy()
    for row in wide_rows(matrix, _DISTANT).tolist():
        columns, _ = matrix.row(row)
        part = slice(*matrix.indptr[row : row + 2].tolist())
        sides = float(limits.row_lower[row]), float(limits.row_upper[row])
        _shrink(data[part], program.integrality[columns], limits.lower[columns], limits.upper[columns], sides)
    changes: dict[str, Any] = limits._asdict()
    rows = SparseRows(data, matrix.indices, matrix.indptr, matrix.shape)
    return type(program).from_rows(
        rows, **changes, integrality=program.integrality, decision=program.decision, fixed=program.fixed
    )


def _shrink(
    coefficients: NDArray[np.float64],
    integrality: NDArray[np.bool_],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    sides: tuple[float, float],
) -> None:
    """Shrink a row's large coefficients in place."""
    smallest = float(np.abs(coefficients).min())
    for entry in np.argsort(-np.abs(coefficients), kind="stable").tolist():
        size = abs(float(coefficients[entry]))
        if size <= _DISTANT * smallest:
            return
        if not integrality[entry]:
            continue
        for sign, side, is_only in ((1, sides[1], np.isinf(sides[0])), (-1, -sides[0], np.isinf(sides[1]))):
            terms = sign * coefficients * np.stack((lower, upper))
            terms[:, entry] = 0
            least, most = float(terms.min(axis=0).sum()), float(terms.max(axis=0).sum())
            is_rising = sign * coefficients[entry] > 0
            enough = math.inf
            if (lower if is_rising else upper)[entry] == 0 and side >= least:
                enough = 2 * max(side - least, smallest)  # the first step breaks the row
            elif (upper if is_rising else lower)[entry] == 0 and is_only:
                enough = max(most - side, smallest)  # the first step frees the row
            if 2 * enough < size:
                size = enough
                coefficients[entry] = math.copysign(size, coefficients[entry])
