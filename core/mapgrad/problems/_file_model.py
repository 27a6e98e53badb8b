"""What a file of a modelling format holds: columns, rows with two sides, and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapgrad.problems._sparse import SparseRows

INFINITE: Final = 1e20  # the formats have no infinity: bounds and sides from here on stand for it


@dataclass(frozen=True)
class FileModel:
    """A mixed-integer linear program whose objective is to be minimised.

    Attributes:
        matrix: [m, n].
        row_lower: [m] float64, -inf where a row has no lower side.
        row_upper: [m] float64, +inf where a row has no upper side.
        lower: [n] float64.
        upper: [n] float64.
        integrality: [n] bool.
        costs: [n] float64.
        offset: The objective's constant.
        semicontinuous: [n] bool.
        sos: Special ordered sets, as `IntegerProgram` takes them.
        indicators: Rows that hold where a variable has a value, as `IntegerProgram` takes them.
    """

    matrix: SparseRows
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]
    costs: NDArray[np.float64]
    offset: float
    semicontinuous: NDArray[np.bool_]
    sos: tuple[tuple[int, list[int], list[float]], ...] = ()
    indicators: tuple[tuple[int, int, SparseRows, float, float], ...] = ()
