"""Integer programs and linear programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mapgrad
from mapgrad_highs._model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HiGHS(mapgrad.InstanceSolver[mapgrad.IntegerProgram, Model]):
    """HiGHS's branch and cut, or its simplex method where no variable is integer, on a model that is kept.

    Under ``reuse=True``, a linear program begins with the basis of the row before, an integer program with the given
    state.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> Model:
        """Pass the program to HiGHS."""
        return Model(self.problem)

    def solve(self, state: Model, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the best point, of θ's shape [num_vars]."""
        state.stopped.clear()
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        start = request.start if request.reuse else None
        forbidden = request.forbidden
        status, x, bound = state.maximize(theta, deadline, reuse=request.reuse, start=start, forbidden=forbidden)
        return mapgrad.Solution(x, status, bound=bound)

    def stop(self, state: Model) -> None:
        """End the row that runs, with the best point found so far."""
        state.stopped.set()

    def close(self, state: Model) -> None:
        """Free the model."""
        state.close()
