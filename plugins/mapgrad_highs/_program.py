"""Integer programs and linear programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mapgrad
from mapgrad_highs._model import GRID_BITS, WAYS, Model, is_narrow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HiGHS(mapgrad.ProgramSolver[Model]):
    """HiGHS's branch and cut, or its simplex method where no variable is integer, on a model that is kept.

    Under ``reuse=True``, a linear program begins with the basis of the row before, an integer program with the given
    state.
    """

    traits = mapgrad.Traits(releases_gil=True, stoppable=True)
    ways = WAYS
    fits = False
    integer_row_bits = 10
    grid_bits = GRID_BITS

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        """Tell whether another program is searched in the same way, its rows in the same scale."""
        return super().serves(other) and is_narrow(other) == is_narrow(self.problem)

    def build(self, program: mapgrad.IntegerProgram) -> Model:
        """Pass a program to HiGHS."""
        return Model(program)

    def set_bounds(
        self, model: Model, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Change some variables' bounds."""
        model.set_bounds(columns, lower, upper)

    def set_sides(
        self, model: Model, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Change some rows' sides."""
        model.set_sides(rows, lower, upper)

    def maximize(self, model: Model, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run HiGHS."""
        return model.maximize(call)

    def free(self, model: Model) -> None:
        """Free a model."""
        model.close()
