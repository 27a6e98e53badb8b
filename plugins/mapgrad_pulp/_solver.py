"""What the engines behind PuLP have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mapgrad
from mapgrad_pulp._model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PulpSolver(mapgrad.ProgramSolver[Model]):
    """An integer or linear program through PuLP."""

    fits = False

    def build(self, program: mapgrad.IntegerProgram) -> Model:
        """Build PuLP's model."""
        return Model(program)

    def set_bounds(
        self, model: Model, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Change some variables' bounds."""
        model.set_bounds(columns, lower, upper)

    def set_sides(
        self, model: Model, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Build the model anew with other sides of some rows."""
        model.set_sides(rows, lower, upper)
