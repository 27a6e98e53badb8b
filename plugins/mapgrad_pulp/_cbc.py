"""CBC, in a process of its own for each row."""

from __future__ import annotations

import inspect
import subprocess
import time
import traceback
from io import IOBase
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import cbcbox
import numpy as np
import pulp

import mapgrad
from mapgrad_pulp._model import Model
from mapgrad_pulp._solver import PulpSolver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event
    from types import FrameType

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
            engine.kill()

    def _run_cbc(
        self, model: Model, costs: NDArray[np.float64], seconds: float | None, options: Sequence[str]
    ) -> tuple[mapgrad.Status, NDArray[np.float64] | None]:
        """Run CBC; whatever happens, no file and no process is left.

        Stopped by its limit, CBC may call anything optimal.
        """
        started = time.monotonic()
        with TemporaryDirectory(prefix="mapgrad-") as folder:
            engine = _Engine(
                model.stopped, path=self._path, msg=False, gapRel=0, gapAbs=0, timeLimit=seconds, options=list(options)
            )
            engine.tmpDir = folder
            try:
                status, x = model.minimize(costs, engine)
            except pulp.PulpSolverError:
                if not model.stopped.is_set():
                    raise
                return mapgrad.Status.TIME_LIMIT, None
            except BaseException as error:
                _clean_up(error)
                raise
            finally:
                engine.caller = None
        if status is mapgrad.Status.OPTIMAL and seconds is not None and time.monotonic() - started >= seconds:
            status = mapgrad.Status.TIME_LIMIT
        return status, x


class _Engine(pulp.COIN_CMD):
    """PuLP's CBC, whose process can be found: it is a local variable of PuLP's that nothing else holds.

    Args:
        stopped: While it is set, no process is started.
        options: PuLP's own.
    """

    def __init__(self, stopped: Event, **options: Any) -> None:
        super().__init__(**options)
        self._stopped = stopped
        self.caller: FrameType | None = None

    def get_pipe(self) -> Any:
        """Open what CBC prints to, just before PuLP starts it."""
        frame = inspect.currentframe()
        self.caller = frame and frame.f_back
        if self._stopped.is_set():
            raise pulp.PulpSolverError("stopped before CBC was started")
        return super().get_pipe()

    def kill(self) -> None:
        """Kill the process, if there is one already."""
        caller = self.caller
        for value in () if caller is None else caller.f_locals.values():
            if isinstance(value, subprocess.Popen):
                value.kill()


def _clean_up(error: BaseException) -> None:
    """End the processes and close the files that PuLP left where it was interrupted: they are its local variables."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, subprocess.Popen):
                value.kill()
                value.wait()
            elif isinstance(value, IOBase):
                value.close()
