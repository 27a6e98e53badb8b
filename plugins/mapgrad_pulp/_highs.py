"""HiGHS, in this process, by PuLP's interface to highspy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import highspy
import numpy as np
import pulp
from highspy import HighsModelStatus

import mapgrad
from mapgrad import Status
from mapgrad_pulp._solver import PulpSolver

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from mapgrad_pulp._model import Model

_COST_BITS: Final = 12
"""Costs are multiplied by 2¹²: HiGHS takes a solution for optimal that is worse than the best by its tolerance."""

_OPTIONS: Final = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 0.0,
    "small_matrix_value": 1e-12,  # smaller coefficients are dropped; no lower limit is accepted
}

_SMALL: Final = 200
"""Up to as many variables, programs are solved up to three times as fast without HiGHS's heuristics."""

_NARROW: Final = 100
"""Where integers may be larger, HiGHS 1.16 searches for ever in some programs of five variables, to a tolerance of
1e-9 or without its heuristics."""

_SMALL_OPTIONS: Final = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_allow_restart": False,
}


def _tolerances(value: float) -> dict[str, float]:
    names = ("mip_feasibility_tolerance", "primal_feasibility_tolerance")
    return dict.fromkeys(names, value) | {"dual_feasibility_tolerance": 1e-10}


_WAYS: Final[tuple[dict[str, Any], ...]] = (
    _tolerances(1e-9),
    {"presolve": "off", **_tolerances(1e-7)},
    {"presolve": "off", "simplex_strategy": 4, **_tolerances(1e-9)},  # the primal one
    {"simplex_strategy": 1, **_tolerances(1e-6)},
)

_COARSE_WAYS: Final = (  # HiGHS 1.16 cuts optima off by rows of large integers that are nearly equal, to 1e-9
    _tolerances(1e-7),
    {"presolve": "off", **_tolerances(1e-9)},
    *_WAYS[2:],
)

_WIDE_WAYS: Final = (_WAYS[3], *_WAYS[1:3], _WAYS[0])

_STATUSES: Final = {
    HighsModelStatus.kOptimal: Status.OPTIMAL,
    HighsModelStatus.kInfeasible: Status.INFEASIBLE,
    HighsModelStatus.kUnbounded: Status.UNBOUNDED,
    HighsModelStatus.kUnboundedOrInfeasible: Status.UNBOUNDED,
    HighsModelStatus.kTimeLimit: Status.TIME_LIMIT,
}


class HiGHS(PulpSolver):
    """HiGHS's branch and cut, or its simplex method where no variable is integer.

    PuLP passes the model anew for each row. Plugin ``highs`` keeps it, and is faster by as much.
    """

    traits = mapgrad.Traits(releases_gil=True, stoppable=True)
    ways = len(_WAYS)
    integer_row_bits = 10
    grid_bits = 39  # where costs are smaller than the dual tolerance and not zero, presolving cuts optima off

    def maximize(self, model: Model, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run HiGHS."""
        is_small, is_narrow = len(call.theta) <= _SMALL, model.largest_integer() <= _NARROW
        is_coarse = not model.is_linear and call.is_coarse
        options = (_WIDE_WAYS if is_small and not is_narrow else _COARSE_WAYS if is_coarse else _WAYS)[call.way]
        if is_small and is_narrow and call.way == 0:
            options = options | _SMALL_OPTIONS
        limit = {} if call.seconds is None else {"time_limit": call.seconds}
        engine = _Engine(_OPTIONS | options | limit, call.stopped)
        return engine.answer(model.minimize(-np.ldexp(call.theta, _COST_BITS), engine).x)


class _Engine(pulp.HiGHS):
    def __init__(self, options: dict[str, Any], stopped: Event) -> None:
        super().__init__()
        self._options = options
        self._stopped = stopped

    def createAndConfigureSolver(self, lp: Any) -> None:  # noqa: N802 (PuLP's name)
        """Make a model that prints nothing and looks for stops."""
        lp.solverModel = _SilentHighs()
        for name, value in self._options.items():
            lp.solverModel.setOptionValue(name, value)
        stopped = self._stopped

        def look(_kind: object, _message: str, _out: object, data: Any, _user: object) -> None:
            data.user_interrupt = stopped.is_set()

        lp.solverModel.setCallback(look, None)
        lp.solverModel.startCallback(highspy.cb.HighsCallbackType.kCallbackMipInterrupt)
        lp.solverModel.startCallback(highspy.cb.HighsCallbackType.kCallbackSimplexInterrupt)

    def callSolver(self, lp: Any) -> None:  # noqa: N802 (PuLP's name)
        """Solve the model."""
        # HiGHS keeps one pool of threads for each thread that calls it, and refuses to run with another number of
        # threads than the pool has, be the pool ours or the user's. A new pool is made where there is none.
        lp.solverModel.resetGlobalScheduler(True)
        lp.solverModel.run()
        lp.solverModel.resetGlobalScheduler(True)
        self._native = lp.solverModel

    def answer(self, x: NDArray[np.float64] | None) -> mapgrad.EngineAnswer:
        """Return what HiGHS says, with a point from PuLP, which takes errors for TIME_LIMIT."""
        code, info = self._native.getModelStatus(), self._native.getInfo()
        status = Status.TIME_LIMIT if self._stopped.is_set() else _STATUSES.get(code, Status.ERROR)
        text = self._native.modelStatusToString(code)
        if status not in (Status.OPTIMAL, Status.TIME_LIMIT) or x is None:
            return mapgrad.EngineAnswer(status, text=text)
        objective, bound = (
            -math.ldexp(value, -_COST_BITS) for value in (info.objective_function_value, info.mip_dual_bound)
        )
        is_mixed = info.mip_node_count >= 0
        return mapgrad.EngineAnswer(status, x, objective, bound if is_mixed else None, text)


class _SilentHighs(highspy.Highs):
    def enableCallbacks(self) -> None:  # noqa: N802 (highspy's name)
        """Enable none: the constructor would, and HiGHS then prints its banner."""
