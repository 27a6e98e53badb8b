"""CBC, in a process of its own for each row."""

from __future__ import annotations

import subprocess
import time
import traceback
from io import IOBase
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, cast

import cbcbox
import numpy as np
import pulp

import mapgrad
from mapgrad_pulp._model import Model
from mapgrad_pulp._solver import PulpSolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COST_BITS: Final = 17
"""Costs are multiplied by 2¹⁷: a solution is optimal to CBC if none is better by the increment and its tolerances."""

_ROW_BITS: Final = 10
"""CBC lets in integer points that break a row by 1e-6, whatever tolerance it is given."""

_OPTIONS: Final = (
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

    traits = mapgrad.Traits(releases_gil=True)

    def __init__(self, problem: mapgrad.Problem, **options: Any) -> None:
        super().__init__(problem, **options)
        self._path = cbcbox.cbc_bin_path()

    def init(self) -> Model:
        """Build PuLP's model; of infeasible linear programs CBC would say nothing that PuLP understands."""
        return Model(cast("mapgrad.IntegerProgram", self.problem), row_bits=_ROW_BITS, mixed=True)

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

    def _run_cbc(
        self, model: Model, costs: NDArray[np.float64], seconds: float | None, options: Sequence[str]
    ) -> tuple[mapgrad.Status, NDArray[np.float64] | None]:
        """Run CBC; whatever happens, no file and no process is left.

        Stopped by its limit, CBC may call anything optimal.
        """
        started = time.monotonic()
        with TemporaryDirectory(prefix="mapgrad-") as folder:
            engine = pulp.COIN_CMD(
                path=self._path, msg=False, gapRel=0, gapAbs=0, timeLimit=seconds, options=list(options)
            )
            engine.tmpDir = folder
            try:
                status, x = model.minimize(costs, engine)
            except BaseException as error:
                _clean_up(error)
                raise
        if status is mapgrad.Status.OPTIMAL and seconds is not None and time.monotonic() - started >= seconds:
            status = mapgrad.Status.TIME_LIMIT
        return status, x


def _clean_up(error: BaseException) -> None:
    """End the processes and close the files that PuLP left where it was interrupted: they are its local variables."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, subprocess.Popen):
                value.kill()
                value.wait()
            elif isinstance(value, IOBase):
                value.close()
