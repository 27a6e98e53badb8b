"""A HiGHS model that is kept: costs, bounds and sides change from row to row, and constraints may be added."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import highspy
import numpy as np
from highspy import HighsModelStatus, HighsStatus, HighsVarType

import mapgrad
from mapgrad import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_COST_BITS: Final = 12
"""Costs are multiplied by 2¹²: HiGHS takes a solution for optimal that is worse than the best by its tolerance."""

GRID_BITS: Final = 39
"""HiGHS 1.16 presolves optima away where costs, or differences of them, are smaller than its dual tolerance and not
zero. No difference of costs that are multiples of 2⁻³⁹ times 2¹² is smaller than 75 times that tolerance."""

TOLERANCE: Final = 1e-9
"""How far a row, a bound or integrality may be missed; HiGHS's own 1e-6 lets in integer points that break a row."""

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

_HEURISTICS: Final = {
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


_INTEGER_WAYS: Final[tuple[Mapping[str, Any], ...]] = (
    {"presolve": "choose", **_tolerances(TOLERANCE)},
    {"presolve": "off", **_tolerances(1e-7)},
    {"presolve": "off", "simplex_strategy": 4, **_tolerances(TOLERANCE)},
    {"presolve": "choose", "simplex_strategy": 1, **_tolerances(1e-6)},
)
_COARSE_WAYS: Final = (  # HiGHS 1.16 cuts optima off by rows of large integers that are nearly equal, to 1e-9
    {"presolve": "choose", **_tolerances(1e-7)},
    {"presolve": "off", **_tolerances(TOLERANCE)},
    *_INTEGER_WAYS[2:],
)
_WIDE_WAYS: Final = (_INTEGER_WAYS[3], *_INTEGER_WAYS[1:3], _INTEGER_WAYS[0])  # where integers aren't `_NARROW`
_LINEAR_WAYS: Final[tuple[Mapping[str, Any], ...]] = (
    # two to six times as fast as with presolving
    {"solver": "simplex", "presolve": "off", "simplex_strategy": 1, **_tolerances(TOLERANCE)},
    {"presolve": "on", **_tolerances(1e-7)},
    {"presolve": "off", "simplex_strategy": 4, **_tolerances(TOLERANCE)},  # the primal one
    {"presolve": "on", "simplex_strategy": 1, **_tolerances(1e-6)},
)
"""What is set for each way of running, one after the other; all end at a vertex."""

WAYS: Final = len(_LINEAR_WAYS)

_STATUSES: Final = {
    HighsModelStatus.kOptimal: Status.OPTIMAL,
    HighsModelStatus.kInfeasible: Status.INFEASIBLE,
    HighsModelStatus.kUnbounded: Status.UNBOUNDED,
    HighsModelStatus.kUnboundedOrInfeasible: Status.UNBOUNDED,
    HighsModelStatus.kTimeLimit: Status.TIME_LIMIT,
}

_QUICK: Final = 20_000
"""Entries of a linear program that takes some milliseconds at most; to look for a stop would add up to a fifth."""


def is_narrow(program: mapgrad.IntegerProgram) -> bool:
    """Tell whether no integer variable may be larger than `_NARROW`, which decides how a program is searched."""
    return bool((np.abs((program.lower, program.upper))[:, program.integrality] <= _NARROW).all())


class _SilentHighs(highspy.Highs):
    def enableCallbacks(self) -> None:  # noqa: N802 (highspy's name)
        """Enable none: the constructor would, and HiGHS then prints its banner."""


class Model:
    """max ⟨θ, x⟩ over the set of a program.

    Args:
        program: The set, every variable priced.

    Raises:
        ValueError: HiGHS refuses the program.
    """

    def __init__(self, program: mapgrad.IntegerProgram) -> None:
        self._integrality = program.integrality
        self._is_linear = not program.integrality.any()
        is_small, narrow = program.num_vars <= _SMALL, is_narrow(program)
        self._needs_no_heuristics = is_small and narrow and not self._is_linear
        self._ways = _WIDE_WAYS if is_small and not narrow else _LINEAR_WAYS if self._is_linear else _INTEGER_WAYS
        self._columns = np.arange(program.num_vars, dtype=np.int32)
        self._heeded = SimpleNamespace(stopped=Event())
        self._way: int | None = None
        self._highs = _SilentHighs()
        self._defaults = {name: self._highs.getOptionValue(name)[1] for name in _HEURISTICS}
        self._set(_OPTIONS)
        if self._highs.passModel(_native(program)) == HighsStatus.kError:
            raise ValueError(f"HiGHS refuses {program!r}: its numbers may be too large (1e15) or too many (2³¹)")
        if not self._is_linear:
            self._heed_stops(highspy.cb.HighsCallbackType.kCallbackMipInterrupt)
        elif len(program.matrix.data) > _QUICK:
            self._heed_stops(highspy.cb.HighsCallbackType.kCallbackSimplexInterrupt)

    def set_bounds(self, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        """Give some variables other bounds."""
        self._highs.changeColsBounds(len(columns), columns.astype(np.int32), lower, upper)

    def set_sides(self, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        """Give some rows other sides."""
        self._highs.changeRowsBounds(len(rows), rows.astype(np.int32), lower, upper)  # pyright: ignore[reportAttributeAccessIssue] (missing in the stubs)

    def add_rows(self, rows: Sequence[tuple[NDArray[np.int64], float]]) -> None:
        """Add constraints, each given by some columns and what the variables there sum to at most."""
        if not rows:
            return
        lengths = [len(columns) for columns, _ in rows]
        self._highs.addRows(
            len(rows),
            np.full(len(rows), -np.inf),
            np.array([upper for _, upper in rows], dtype=np.float64),
            sum(lengths),
            np.cumsum([0, *lengths[:-1]], dtype=np.int32),
            np.concatenate([columns for columns, _ in rows]).astype(np.int32),
            np.ones(sum(lengths)),
        )

    def keep_rows(self, count: int) -> None:
        """Take all constraints out but the first ones."""
        dropped = np.arange(count, self._highs.getNumRow(), dtype=np.int32)
        self._highs.deleteRows(len(dropped), dropped)

    def maximize(self, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run HiGHS; `EngineCall.reuse` begins with the basis that the last run left, where no variable is integer."""
        highs = self._highs
        if call.stopped.is_set():
            return mapgrad.EngineAnswer(Status.TIME_LIMIT)
        self._choose(call)
        if not call.reuse:
            highs.clearSolver()
        highs.changeColsCost(len(call.theta), self._columns, np.ldexp(call.theta, _COST_BITS))
        if call.start is not None and not self._is_linear:
            known = np.flatnonzero(~np.isnan(call.start)).astype(np.int32)
            highs.setSolution(len(known), known, call.start[known])
        highs.setOptionValue("time_limit", np.inf if call.seconds is None else call.seconds)
        self._heeded.stopped = call.stopped
        # HiGHS keeps one pool of threads for each thread that calls it, and refuses to run with another number of
        # threads than the pool has, be the pool ours or the user's. A new pool is made where there is none.
        highs.resetGlobalScheduler(True)
        highs.run()
        highs.resetGlobalScheduler(True)
        return self._answer(was_stopped=call.stopped.is_set())

    def close(self) -> None:
        """Free the model."""
        self._highs.clear()

    def _choose(self, call: mapgrad.EngineCall) -> None:
        if call.way == self._way:
            return
        self._way = call.way
        ways = _COARSE_WAYS if call.is_coarse and self._ways is _INTEGER_WAYS else self._ways
        self._set(ways[call.way])
        if self._needs_no_heuristics:
            self._set(_HEURISTICS if call.way == 0 else self._defaults)

    def _answer(self, *, was_stopped: bool) -> mapgrad.EngineAnswer:
        highs = self._highs
        code = highs.getModelStatus()
        # a run that was interrupted may say anything, an error too where Ctrl-C came in the midst of a callback
        status = Status.TIME_LIMIT if was_stopped else _STATUSES.get(code, Status.ERROR)
        text = highs.modelStatusToString(code)
        if status not in (Status.OPTIMAL, Status.TIME_LIMIT):
            return mapgrad.EngineAnswer(status, text=text)
        info = highs.getInfo()
        is_feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        x = np.array(highs.getSolution().col_value) if status is Status.OPTIMAL or is_feasible else None
        objective = float(np.ldexp(info.objective_function_value, -_COST_BITS))
        bound = None if self._is_linear else float(np.ldexp(info.mip_dual_bound, -_COST_BITS))
        return mapgrad.EngineAnswer(status, x, objective, bound, text)

    def _set(self, options: Mapping[str, bool | float | str]) -> None:
        for name, value in options.items():
            self._highs.setOptionValue(name, value)

    def _heed_stops(self, kind: highspy.cb.HighsCallbackType) -> None:
        heeded = self._heeded  # and not self, which HiGHS would keep alive

        def look(_kind: object, _message: str, _out: object, data: Any, _user: object) -> None:
            data.user_interrupt = heeded.stopped.is_set()  # HiGHS keeps what is written from run to run

        self._highs.setCallback(look, None)
        self._highs.startCallback(kind)


def _native(program: mapgrad.IntegerProgram) -> highspy.HighsLp:
    matrix = program.matrix
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = np.zeros(program.num_vars)
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
    lp.a_matrix_.value_ = matrix.data
    if program.integrality.any():
        kinds = HighsVarType.kContinuous, HighsVarType.kInteger
        lp.integrality_ = [kinds[integer] for integer in program.integrality.tolist()]
    return lp
