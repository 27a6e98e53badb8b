"""What the engines behind PuLP have in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

import mapgrad
from mapgrad import Status
from mapgrad_pulp._model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PulpSolver(mapgrad.InstanceSolver[mapgrad.IntegerProgram, Model]):
    """An integer or linear program through PuLP."""

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> Model:
        """Build PuLP's model."""
        return Model(self.problem)

    def solve(self, state: Model, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the best point, of θ's shape [num_vars]."""
        state.stopped.clear()
        if request.forbidden is None:
            return self._solve(state, theta, request)
        columns = np.flatnonzero(request.forbidden).tolist()
        state.set_upper(columns, np.zeros(len(theta)))
        solution = self._solve(state, theta, request)
        state.set_upper(columns, self.problem.upper)
        return solution

    def _solve(self, state: Model, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        status, x = self._run(state, -theta, deadline)
        if status in (Status.INFEASIBLE, Status.UNBOUNDED):
            # Engines and PuLP say one for the other, or that they can't tell. Without costs nothing is unbounded.
            status, _ = self._run(state, np.zeros(len(theta)), deadline)
            if status is Status.OPTIMAL and self._grows_without_limit(theta):
                return mapgrad.Solution(None, Status.UNBOUNDED)
            contradicted = status in (Status.OPTIMAL, Status.UNBOUNDED)
            return mapgrad.Solution(None, Status.ERROR if contradicted else status)
        if status is Status.TIME_LIMIT and x is not None and not self.is_state(x):
            x = None  # where a linear program was when its time was up
        if status is Status.TIME_LIMIT and deadline is None and not state.stopped.is_set():
            status = Status.ERROR if x is None else Status.FEASIBLE
        return mapgrad.Solution(x, status)

    def stop(self, state: Model) -> None:
        """End the row that runs."""
        state.stopped.set()

    def is_state(self, x: NDArray[np.float64]) -> bool:
        """Tell whether x [num_vars] is in the problem's set."""
        return bool(self.problem.contains_rows(x))

    def _grows_without_limit(self, theta: NDArray[np.float64]) -> bool:
        """Tell whether some variable lacks the bound that its utility drives it to."""
        ends = np.where(theta > 0, self.problem.upper, self.problem.lower)
        return bool(np.isinf(ends[theta != 0]).any())

    def _run(
        self, model: Model, costs: NDArray[np.float64], deadline: float | None
    ) -> tuple[Status, NDArray[np.float64] | None]:
        """Return what `minimize` does; a run that was stopped may call anything optimal, infeasible or an error."""
        seconds = None if deadline is None else deadline - time.monotonic()
        if model.stopped.is_set() or (seconds is not None and seconds <= 0):
            return Status.TIME_LIMIT, None
        status, x = self.minimize(model, costs, seconds)
        return (Status.TIME_LIMIT if model.stopped.is_set() else status), x

    @abstractmethod
    def minimize(
        self, model: Model, costs: NDArray[np.float64], seconds: float | None
    ) -> tuple[Status, NDArray[np.float64] | None]:
        """Return the status and argmin ⟨costs, x⟩, max |costs| about 1, within the given time or None for no limit.

        Once ``model.stopped`` is set, return soon, with a point or None.
        """
