"""Points of programs: whether rows hold, and the vertex that a point is meant to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.solvers._limits import Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram, SparseRows

_TOLERANCE: Final = 1e-9
"""A row with continuous variables holds if it is missed by no more than that part of its largest term or side."""

DIGITS: Final = 1e-13
"""Where no nearby point is better, it may be missed by that part of its largest coefficient times the largest |x_j|."""

_NEAR: Final = (1e-9, 1e-8, 1e-7, 1e-6)
"""Bounds and rows that near, in units of the largest term, are meant to be attained: what is tried in turn."""

_REACH: Final = 1e6
"""So far a better point is looked for: engines lose themselves in boxes without end."""

_LOST: Final = 1e9
"""Where numbers are larger, rows and objectives of float64 say little; engines return them of boxes without end."""

_REMAINDER: Final = 1e-12
"""What is left of a number when it is taken away is its rounding, which breaks rows of the right side 0."""

_DENSE: Final = 50_000
"""Entries, up to which a product with a dense matrix is faster."""

_WIDE: Final = 1e4
"""So many times its smallest coefficient is the largest one of a wide row."""

_MINUTE: Final = 1e-8
"""A side that is nearer to 0, in units of its row's smallest coefficient, and isn't 0 is more than engines can tell."""

_POLISHED: Final = 2_000
"""Columns and rows, up to which the vertex near a point is looked for."""


class Rows:
    """The rows of a program, ready to be checked at one point after the other."""

    def __init__(self, program: IntegerProgram) -> None:
        self._matrix = program.matrix
        self._integrality = program.integrality
        self._is_linear, self._is_integer = not program.integrality.any(), bool(program.integrality.all())
        height, width = program.matrix.shape
        self._dense = program.matrix.toarray() if height * width <= _DENSE else None
        self._is_wide = len(wide_rows(program.matrix, _WIDE)) > 0
        self._own = Limits.of(program)
        self._is_open = bool(program.unbounded_integers.any())
        self._facts = program.row_facts

    def are_hard(self, limits: Limits) -> bool:
        """Tell whether engines were seen to be wrong about such rows: numbers are far apart, or a side is nearly 0."""
        if self._is_wide:
            return True
        facts, sizes = self._facts, np.abs((limits.row_lower, limits.row_upper))
        is_minute = (sizes > 0) & (sizes < _MINUTE * facts.smallest) & np.isfinite(facts.smallest)
        return bool((is_minute & facts.are_integer & (facts.units == 0)).any())

    def is_open(self, limits: Limits) -> bool:
        """Tell whether an integer variable lacks a bound: engines were seen to be wrong there, too."""
        if limits.lower is self._own.lower and limits.upper is self._own.upper:
            return self._is_open
        return bool(np.isinf((limits.lower, limits.upper))[:, self._integrality].any())

    def exclude_all(self, limits: Limits) -> bool:
        """Tell whether a row has no multiple of its unit between its sides: searches may go on for ever there."""
        least, most = self._facts.inner(limits.row_lower, limits.row_upper)
        return bool((least > most).any())

    def rounded(self, x: NDArray[np.float64], limits: Limits) -> NDArray[np.float64]:
        """Return x within the bounds, integer where it must be."""
        x = np.minimum(np.maximum(x, limits.lower), limits.upper)
        if self._is_integer:
            np.rint(x, out=x)
        elif not self._is_linear:
            x[self._integrality] = np.rint(x[self._integrality])
        x += 0.0  # no negative zeros
        return x

    def stated(self, limits: Limits) -> Limits:
        """Return these limits for engines, whose tolerances are absolute, with the sides of rows of integers moved.

        Those of rows with a unit are multiples of it; others let pass what such a row may be missed by.
        """
        facts = self._facts
        if not facts.are_integer.any():
            return limits
        inner, about = (find(limits.row_lower, limits.row_upper) for find in (facts.inner, facts.anywhere))
        low, high = (np.where(facts.units > 0, *ends) for ends in zip(inner, about, strict=True))
        is_moved = facts.are_integer & (low <= high)
        return limits._replace(
            row_lower=np.where(is_moved, low, limits.row_lower), row_upper=np.where(is_moved, high, limits.row_upper)
        )

    def seen_from(self, x: NDArray[np.float64], limits: Limits) -> Limits:
        """Return the bounds and sides of x' - x, for the x' of these that are within `_REACH` of x."""
        activity, limits = self._activity(x), self.stated(limits)
        lower, upper = np.maximum(limits.lower - x, -_REACH), np.minimum(limits.upper - x, _REACH)
        sides = (self._facts.in_units(side - activity) for side in (limits.row_lower, limits.row_upper))
        return Limits(lower, upper, *sides)

    @staticmethod
    def near_origin(x: NDArray[np.float64], limits: Limits) -> NDArray[np.float64]:
        """Return x, or the point of these bounds that is nearest to 0 where x is too far away to be checked."""
        return x if np.abs(x).max(initial=0) <= _LOST else np.clip(0.0, limits.lower, limits.upper)

    def hold(self, x: NDArray[np.float64], limits: Limits, digits: float = 0.0) -> bool:
        """Tell whether all rows hold at x, those of integers as `RowFacts` has it.

        One with continuous variables may be missed by 1e-9 of its largest term or side, or by `digits` of its largest
        coefficient times the largest |x_j|.
        """
        activity, lower, upper = self._activity(x), limits.row_lower, limits.row_upper
        excess = np.maximum(lower - activity, activity - upper)
        if excess.max(initial=0) <= 0:
            return True
        (least,), (most,) = self._facts.reach(x[None], lower, upper)
        holds = (least <= activity) & (activity <= most)
        if not holds[self._facts.are_integer].all():
            return False
        missed = np.flatnonzero(~(excess <= 0) & ~self._facts.are_integer)
        return all(excess[row] <= self._room(row, x, limits, digits) for row in missed.tolist())

    def vertex_near(self, x: NDArray[np.float64], limits: Limits) -> NDArray[np.float64] | None:
        """Return a point near x that attains all bounds and rows that x nearly attains; None if it breaks a row.

        Integer variables stay where they are. Engines meet rows to a tolerance of their own; what they mean is the
        vertex, which the rows attained there give to the last digit.
        """
        for near in _NEAR:
            vertex = self._attaining(x, limits, near)
            if vertex is not None and self.hold(vertex, limits):
                return vertex
        return None

    def _attaining(self, x: NDArray[np.float64], limits: Limits, near: float) -> NDArray[np.float64] | None:
        room = near * np.maximum(1, np.abs(x))
        at_lower, at_upper = x - limits.lower <= room, limits.upper - x <= room
        free = ~(self._integrality | at_lower | at_upper)
        bounded = np.where(at_lower, limits.lower, np.where(at_upper, limits.upper, x))
        x = np.where(self._integrality, x, bounded)
        if not free.any():
            return x
        activity = self._activity(x)
        sizes = np.maximum(self._matrix.magnitudes(x[None])[0], np.finfo(np.float64).tiny)
        is_lower = np.abs(limits.row_lower - activity) < np.abs(limits.row_upper - activity)
        sides = np.where(is_lower, limits.row_lower, limits.row_upper)
        attained = (np.abs(sides - activity) <= near * sizes) & self._matrix.touches(free)
        if max(attained.sum(), free.sum()) > _POLISHED:
            return None
        sides, sizes = sides[attained], sizes[attained]
        part = self._matrix.select(attained).toarray()[:, free] / sizes[:, None]
        held = np.abs(x)
        x[free] += np.linalg.lstsq(part, (sides - activity[attained]) / sizes, rcond=None)[0]
        x = np.where(free & (np.abs(x) <= _REMAINDER * held), 0.0, x)
        return np.clip(x, limits.lower, limits.upper)

    def _activity(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._matrix.activities(x[None])[0] if self._dense is None else self._dense @ x

    def _room(self, row: int, x: NDArray[np.float64], limits: Limits, digits: float) -> float:
        """Return by how much a row with continuous variables may miss its sides."""
        columns, coefficients = self._matrix.row(row)
        sides = np.array((limits.row_lower[row], limits.row_upper[row]))
        sides = sides[np.isfinite(sides)]
        largest = max(np.abs(coefficients * x[columns]).max(initial=0), np.abs(sides).max(initial=0))
        return max(_TOLERANCE * largest, digits * np.abs(coefficients).max(initial=0) * np.abs(x).max())


def wide_rows(matrix: SparseRows, ratio: float) -> NDArray[np.int64]:
    """Return the rows whose largest coefficient is more than so many times their smallest one."""
    least = matrix.largest.copy()
    np.minimum.at(least, matrix.row_of_entry, np.abs(matrix.data))
    return np.flatnonzero(matrix.largest > ratio * least)
