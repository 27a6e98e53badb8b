"""What a search reads, and what it keeps between two calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import types

from mapgrad_search._kernels import INDICES, NUMBERS, TABLE, room

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSITION, HAS_BEGUN, DEPTH, LENGTH, AGE, NUM_COUNTS = range(6)
WORK, BEST, SAVED, NUM_VALUES = range(4)


class Rows(NamedTuple):
    """Rows, dense and sparse by rows and by columns, and how many sides keep each variable from going up or down."""

    matrix: NDArray[np.float64]
    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    data: NDArray[np.float64]
    column_starts: NDArray[np.int64]
    column_rows: NDArray[np.int64]
    column_data: NDArray[np.float64]
    up_locks: NDArray[np.int64]
    down_locks: NDArray[np.int64]


ROWS: Final = types.NamedTuple((TABLE, INDICES, INDICES, NUMBERS, INDICES, INDICES, NUMBERS, INDICES, INDICES), Rows)


class Memory(NamedTuple):
    """What a search keeps between two calls.

    Attributes:
        counts: Its position among the rows to be solved, how deep it is, and more, int64.
        work: Entries touched for this row, the best value found, and the entries that may be touched: [3].
        trail: Variables whose bounds were changed, [steps], with the bounds before.
        branches: By depth, the variable that was branched on, the length of the trail before, and whether its second
            side is being looked at: [steps, 3].
        sides: Bounds of the second side, [steps, 2].
    """

    counts: NDArray[np.int64]
    work: NDArray[np.float64]
    trail: NDArray[np.int64]
    trail_lower: NDArray[np.float64]
    trail_upper: NDArray[np.float64]
    branches: NDArray[np.int64]
    sides: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    reduced: NDArray[np.float64]
    activity: NDArray[np.float64]

    @classmethod
    def of_size(cls, height: int, width: int, steps: int) -> Memory:
        """Return an empty one for trees that are no deeper than some steps."""
        return cls(
            room(NUM_COUNTS, dtype=np.int64),
            room(NUM_VALUES),
            room(steps, dtype=np.int64),
            room(steps),
            room(steps),
            room(steps, 3, dtype=np.int64),
            room(steps, 2),
            room(width),
            room(height),
            room(width),
            room(height),
        )

    def restart(self) -> None:
        """Have the next call of `search` begin with the first of its rows."""
        self.counts[POSITION] = self.counts[HAS_BEGUN] = 0


MEMORY: Final = types.NamedTuple(
    (*(INDICES, NUMBERS, INDICES, NUMBERS, NUMBERS), types.int64[:, ::1], TABLE, *[NUMBERS] * 4), Memory
)
