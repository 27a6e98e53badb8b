"""Bounds and sides of a program, which may differ from row to row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram


class Limits(NamedTuple):
    """Bounds of variables and sides of rows, as in `IntegerProgram`; one array each, or one row a batch row."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]

    @classmethod
    def of(cls, program: IntegerProgram) -> Limits:
        """Return those of a program."""
        return cls(program.lower, program.upper, program.row_lower, program.row_upper)

    def of_rows(self, numbers: range) -> Limits:
        """Return one row of each array for each number, that of its remainder modulo their length; not writable."""
        places = np.arange(numbers.start, numbers.stop) % len(self.lower)
        found = Limits(*(each[places] for each in self))
        for each in found:
            each.flags.writeable = False
        return found
