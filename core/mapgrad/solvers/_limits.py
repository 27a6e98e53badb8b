"""Bounds and sides of a program, which may differ from row to row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
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
