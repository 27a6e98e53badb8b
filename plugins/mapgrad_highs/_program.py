"""Integer programs and linear programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import mapgrad
from mapgrad_highs._model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HiGHS(mapgrad.InstanceSolver):
    """HiGHS's branch and cut, or its simplex method where no variable is integer, on a model that is kept.

    Under ``reuse=True``, a linear program begins with the basis of the row before, an integer program with the given
    state.
    """

    traits = mapgrad.Traits(releases_gil=True)

    def init(self) -> Model:
        """Pass the program to HiGHS."""
        return Model(cast("mapgrad.IntegerProgram", self.problem))

    def solve(
        self,
        state: Model,
        theta: NDArray[np.float64],
        start: NDArray[np.float64] | None = None,
    ) -> mapgrad.Solution:
        """Return the best point, of θ's shape [num_vars]."""
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        status, x, bound = state.maximize(theta, deadline, reuse=self.reuse, start=start if self.reuse else None)
        return mapgrad.Solution(x, status, bound=bound)

    def close(self, state: Model) -> None:
        """Free the model."""
        state.close()
