"""CBC, in a process of its own for each row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import cbcbox
import numpy as np
import pulp

import mapgrad
from mapgrad_pulp._model import Model
from mapgrad_pulp._process import CbcProcess
from mapgrad_pulp._solver import PulpSolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COST_BITS: Final = 17
"""Costs are multiplied by 2¹⁷: a solution is optimal to CBC if none is better by the increment and its tolerances."""

_ROW_BITS: Final = 10
"""CBC lets in integer points that break a row by 1e-6, whatever tolerance it is given."""

_OPTIONS: Final = (
    "ratio 0",
    "allow 0",
    "increment 1e-6",
    "integerTolerance 1e-9",
    "primalTolerance 1e-9",
    "preprocess off",
    "boundPropLevel off",
)
"""CBC 2.935's preprocessing drops rows, and takes a second best for the best that is 3e-8 away. Its bound propagation
moves continuous variables by 2e-6, and calls programs infeasible where bounds converge slowly."""


class Cbc(PulpSolver):
    """CBC's branch and cut, or the simplex method of its CLP where no variable is integer.

    PuLP hands the model over in a file of 13 significant digits, so costs are off by 5e-13 at most: an answer is within
    1e-9 of the optimum as long as it lies at a distance of less than 1000 from it, summed over the variables.
    """

    def __init__(self, problem: mapgrad.IntegerProgram) -> None:
        super().__init__(problem)
        self._path = cbcbox.cbc_bin_path()

    def init(self) -> Model:
        """Build PuLP's model; of infeasible linear programs CBC would say nothing that PuLP understands."""
        return Model(self.problem, row_bits=_ROW_BITS, mixed=True)

    def minimize(
        self, model: Model, costs: NDArray[np.float64], seconds: float | None
    ) -> tuple[mapgrad.Status, NDArray[np.float64] | None]:
        """Run CBC, and again on rows as they are scaled here where it finds no answer, or one that breaks a row."""
        status, started = mapgrad.Status.ERROR, time.monotonic()
        for options in (_OPTIONS, (*_OPTIONS, "scaling off")):
            left = None if seconds is None else seconds - (time.monotonic() - started)
            if left is not None and left <= 0:
                return mapgrad.Status.TIME_LIMIT, None
            status, x = self._run_cbc(model, np.ldexp(costs, _COST_BITS), left, options)
            if status is mapgrad.Status.OPTIMAL and (x is None or not self.is_state(x)):
                status = mapgrad.Status.ERROR
            if status not in (mapgrad.Status.ERROR, mapgrad.Status.INFEASIBLE):
                return status, x
        return status, None

    def stop(self, state: Model) -> None:
        """Kill the process that runs; what it has found so far goes with it."""
        super().stop(state)
        if isinstance(engine := state.engine, _Engine):
            engine.process.kill()

    def _run_cbc(
        self, model: Model, costs: NDArray[np.float64], seconds: float | None, options: Sequence[str]
    ) -> tuple[mapgrad.Status, NDArray[np.float64] | None]:
        """Run CBC; stopped by its limit, it may call anything optimal."""
        deadline = None if seconds is None else time.monotonic() + seconds
        engine = _Engine(CbcProcess(self._path, model.stopped), options, deadline)
        status, x = model.minimize(costs, engine)
        if status is mapgrad.Status.OPTIMAL and deadline is not None and time.monotonic() >= deadline:
            status = mapgrad.Status.TIME_LIMIT
        return status, x


class _Engine(pulp.COIN_CMD):
    """PuLP's CBC, in a process of ours: PuLP writes the model and knows what the solution's first line means.

    Args:
        process: What runs CBC.
        options: CBC's own.
        deadline: When it is to end, in terms of `time.monotonic`; None for no limit.
    """

    def __init__(self, process: CbcProcess, options: Sequence[str], deadline: float | None) -> None:
        super().__init__(path="")
        self.process = process
        self._options = options
        self._deadline = deadline

    def actualSolve(self, lp: Any, **_: Any) -> int:  # noqa: N802 (PuLP's name)
        """Solve a model and write its status and values to it."""
        written: list[Any] = []
        answer: Any = self.process.run(
            write=lambda path: written.extend(lp.writeMPS(path, rename=True)),
            read=lambda path: self.readsol_MPS(path, lp, *written),
            options=self._options,
            deadline=self._deadline,
        )
        if answer is None:
            status, outcome = pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound
        else:
            status, values, outcome = answer[0], answer[1], answer[-1]
            lp.assignVarsVals(values)
        lp.assignStatus(status, outcome)
        return status
