"""Points of programs: whether rows hold, and the vertex that a point is meant to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram, SparseRows

_TOLERANCE: Final = 1e-9
"""A row holds if it is missed by no more than that part of its largest term or of its side."""

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

_WIDE: Final = 1e6
"""So many times its smallest coefficient is the largest one of a wide row."""

_POLISHED: Final = 2_000
"""Columns and rows, up to which the vertex near a point is looked for."""


class Limits(NamedTuple):
    """Bounds of variables, [num_vars], and sides of rows, [m]."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]

    @classmethod
    def of(cls, program: IntegerProgram) -> Limits:
        """Return those of a program."""
        return cls(program.lower, program.upper, program.row_lower, program.row_upper)


class Rows:
    """The rows of a program, ready to be checked at one point after the other.

    Attributes:
        are_delicate: Engines were seen to be wrong about such programs: the coefficients of a row are far apart, or
            integers lack a bound.
    """

    def __init__(self, program: IntegerProgram) -> None:
        self._matrix = program.matrix
        self._integrality = program.integrality
        self._is_linear, self._is_integer = not program.integrality.any(), bool(program.integrality.all())
        height, width = program.matrix.shape
        self._dense = program.matrix.toarray() if height * width <= _DENSE else None
        self.are_delicate = bool(_is_wide(program.matrix) or program.unbounded_integers.any())

    def rounded(self, x: NDArray[np.float64], limits: Limits) -> NDArray[np.float64]:
        """Return x within the bounds, integer where it must be."""
        x = np.minimum(np.maximum(x, limits.lower), limits.upper)
        if self._is_integer:
            np.rint(x, out=x)
        elif not self._is_linear:
            x[self._integrality] = np.rint(x[self._integrality])
        x += 0.0  # no negative zeros
        return x

    def seen_from(self, x: NDArray[np.float64], limits: Limits) -> Limits:
        """Return the bounds and sides of x' - x, for the x' of these that are within `_REACH` of x."""
        activity = self._activity(x)
        lower, upper = np.maximum(limits.lower - x, -_REACH), np.minimum(limits.upper - x, _REACH)
        return Limits(lower, upper, limits.row_lower - activity, limits.row_upper - activity)

    @staticmethod
    def near_origin(x: NDArray[np.float64], limits: Limits) -> NDArray[np.float64]:
        """Return x, or the point of these bounds that is nearest to 0 where x is too far away to be checked."""
        return x if np.abs(x).max(initial=0) <= _LOST else np.clip(0.0, limits.lower, limits.upper)

    def hold(self, x: NDArray[np.float64], limits: Limits) -> bool:
        """Tell whether all rows hold at x, to `_TOLERANCE` of the largest term of each."""
        activity = self._activity(x)
        excess = np.maximum(limits.row_lower - activity, activity - limits.row_upper)
        if excess.max(initial=0) <= 0:
            return True
        missed = np.flatnonzero(~(excess <= 0)).tolist()
        return all(excess[row] <= _TOLERANCE * self._size(row, x, limits) for row in missed)

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
        step = cast("NDArray[np.float64]", np.linalg.lstsq(part, (sides - activity[attained]) / sizes, rcond=None)[0])
        moved = x[free] + step
        x[free] = np.where(np.abs(moved) <= _REMAINDER * np.abs(step), 0.0, moved)
        return np.clip(x, limits.lower, limits.upper)

    def _activity(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._matrix.activities(x[None])[0] if self._dense is None else self._dense @ x

    def _size(self, row: int, x: NDArray[np.float64], limits: Limits) -> float:
        columns, coefficients = self._matrix.row(row)
        sides = np.abs((limits.row_lower[row], limits.row_upper[row]))
        return max(np.abs(coefficients * x[columns]).max(initial=0), sides[np.isfinite(sides)].max(initial=0))


def _is_wide(matrix: SparseRows) -> bool:
    sizes = np.abs(matrix.data)
    least, most = np.full(matrix.shape[0], np.inf), np.zeros(matrix.shape[0])
    np.minimum.at(least, matrix.row_of_entry, sizes)
    np.maximum.at(most, matrix.row_of_entry, sizes)
    return bool((most > _WIDE * least).any())
