"""CBC, in a process of its own for each row."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cbcbox
import numpy as np
import pulp

import mapgrad
from mapgrad import Status
from mapgrad_pulp._process import CbcProcess
from mapgrad_pulp._solver import PulpSolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad_pulp._model import Model

_COST_BITS: Final = 17
"""Costs are multiplied by 2¹⁷: a solution is optimal to CBC if none is better by the increment and its tolerances."""

_ROW_BITS: Final = 10
"""CBC lets in integer points that break a row by 1e-6, whatever tolerance it is given."""

_TERM_BITS: Final = 16
"""Where terms of rows are larger, CBC calls programs infeasible: float64 can't meet the rows to its tolerances."""

_OPTIONS: Final = (
    "ratio 0",
    "allow 0",
    "increment 1e-6",
    "integerTolerance 1e-9",
    "primalTolerance 1e-9",
    "preprocess off",
)
"""CBC 2.935's preprocessing drops rows, and takes a second best for the best that is 3e-8 away."""

_STEADY: Final = ("boundPropLevel off",)
"""CBC's bound propagation moves continuous variables by 2e-6, and calls programs infeasible where bounds converge
slowly; without it, other programs are called so where bounds are missing. Of linear ones it finds infeasible it says
that their status is unknown."""

_WAYS: Final = (
    (*_STEADY, "scaling off"),
    ("scaling off", "presolve off"),
    (*_STEADY, "presolve off", "cuts off", "primalTolerance 1e-7"),
)

_NODES: Final = "maxNodes 2000"
"""In boxes without end, or as large as `_WIDE`, a search may have none: each way but the last one then gives up."""

_WIDE: Final = 1e4


class Cbc(PulpSolver):
    """CBC's branch and cut, or the simplex method of its CLP where no variable is integer.

    PuLP hands the model over in a file of 13 significant digits, so costs are off by 5e-13 at most: an answer is within
    1e-9 of the optimum as long as it lies at a distance of less than 1000 from it, summed over the variables. Rows of
    integers and decimals lose nothing: their coefficients are split before they have as many digits.
    """

    traits = mapgrad.Traits(releases_gil=True, stoppable=True)
    ways = len(_WAYS)

    def __init__(self, problem: mapgrad.IntegerProgram) -> None:
        super().__init__(problem)
        self._path = cbcbox.cbc_bin_path()
        self.row_bits, self._is_open = self._reach = _reach(problem)

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        """Tell whether another program's bounds call for the same scale and limits."""
        return _reach(other) == self._reach

    def maximize(self, model: Model, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run CBC."""
        deadline = None if call.seconds is None else time.monotonic() + call.seconds
        process = CbcProcess(self._path, call.stopped)
        nodes = (_NODES,) if self._is_open and call.way < len(_WAYS) - 1 else ()
        steady = _STEADY if model.is_linear else ()
        engine = _Engine(process, (*_OPTIONS, *_WAYS[call.way], *steady, *nodes), deadline)
        answer = model.minimize(-np.ldexp(call.theta, _COST_BITS), engine)
        if engine.text.startswith(("Stopped on nodes", "Stopped on iterations")):
            return mapgrad.EngineAnswer(Status.ERROR, text=engine.text)
        if answer.x is None:
            return replace(answer, text=engine.text)
        objective = -np.ldexp(float(engine.text.rpartition(" ")[2]), -_COST_BITS)
        return replace(answer, objective=float(objective), text=engine.text)

    def interrupt(self, model: Model) -> None:
        """Kill the process that runs; what it has found so far goes with it."""
        if isinstance(model.engine, _Engine):
            model.engine.process.kill()


def _reach(program: mapgrad.IntegerProgram) -> tuple[int, bool]:
    """Return by how many bits rows are scaled, and whether an integer variable has no bound, or one beyond `_WIDE`."""
    bounds = np.abs((program.lower, program.upper))
    largest = float(bounds[np.isfinite(bounds)].max(initial=1))
    row_bits = int(np.clip(_TERM_BITS - math.ceil(math.log2(largest)), -_ROW_BITS, _ROW_BITS))
    return row_bits, bool((bounds[:, program.integrality] > _WIDE).any())


class _Engine(pulp.COIN_CMD):
    """PuLP's CBC, in a process of ours: PuLP writes the model and knows what the solution's first line means.

    Args:
        process: What runs CBC.
        options: CBC's own.
        deadline: When it is to end, in terms of `time.monotonic`; None for no limit.

    Attributes:
        text: How CBC puts its answer: «Optimal - objective value 12.34000000».
    """

    def __init__(self, process: CbcProcess, options: Sequence[str], deadline: float | None) -> None:
        super().__init__(path="")
        self.process = process
        self._options = options
        self._deadline = deadline
        self.text = ""

    def actualSolve(self, lp: Any, **_: Any) -> int:  # noqa: N802 (PuLP's name)
        """Solve a model and write its status and values to it."""
        written: list[Any] = []

        def read(path: str) -> tuple[Any, ...]:
            with Path(path).open() as file:
                self.text = file.readline().strip()
            return self.readsol_MPS(path, lp, *written)

        answer = self.process.run(
            write=lambda path: written.extend(lp.writeMPS(path, rename=True)),
            read=read,
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
