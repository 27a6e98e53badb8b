"""What a file of a modelling format holds: columns, rows with two sides, and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
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
    """

    matrix: SparseRows
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]
    costs: NDArray[np.float64]
    offset: float

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of an `IntegerProgram`: a row of two sides becomes two."""
        equal = self.row_lower == self.row_upper
        below, above = ~equal & np.isfinite(self.row_upper), ~equal & np.isfinite(self.row_lower)
        return {
            "A_ub": self.matrix.select(above).negative().below(self.matrix.select(below)),
            "b_ub": np.concatenate((self.row_upper[below], -self.row_lower[above])),
            "A_eq": self.matrix.select(equal),
            "b_eq": self.row_upper[equal],
            "lower": self.lower,
            "upper": self.upper,
            "integrality": self.integrality,
        }
