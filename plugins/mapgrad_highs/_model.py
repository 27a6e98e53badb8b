"""A HiGHS model that is kept: costs change from row to row, and constraints may be added."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import highspy
import numpy as np
from highspy import HighsModelStatus, HighsStatus, HighsVarType

from mapgrad import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    import mapgrad

_COST_BITS: Final = 7
"""Costs are multiplied by 2⁷: HiGHS takes a solution for optimal that is worse than the best by its tolerance."""

_TOLERANCE: Final = 1e-9
"""How far a row, a bound or integrality may be missed; HiGHS's own 1e-6 lets in integer points that break a row."""

_OPTIONS: Final = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 0.0,
    "mip_feasibility_tolerance": _TOLERANCE,
    "primal_feasibility_tolerance": _TOLERANCE,
    "dual_feasibility_tolerance": _TOLERANCE,
    "small_matrix_value": 1e-12,  # smaller coefficients are dropped; no lower limit is accepted
}

_SMALL: Final = 200
"""Up to as many variables, programs are solved up to three times as fast without HiGHS's heuristics."""

_SMALL_OPTIONS: Final = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_allow_restart": False,
}

_LINEAR_OPTIONS: Final = {
    "solver": "simplex",  # which ends at a vertex
    "presolve": "off",  # two to six times as fast, up to some thousand variables
}

_STATUSES: Final = {
    HighsModelStatus.kOptimal: Status.OPTIMAL,
    HighsModelStatus.kInfeasible: Status.INFEASIBLE,
    HighsModelStatus.kUnbounded: Status.UNBOUNDED,
    HighsModelStatus.kUnboundedOrInfeasible: Status.UNBOUNDED,  # `Model.maximize` finds out which
    HighsModelStatus.kTimeLimit: Status.TIME_LIMIT,
}

_QUICK: Final = 20_000
"""Entries of a linear program that takes some milliseconds at most; to look for a stop would add up to a fifth."""


class _SilentHighs(highspy.Highs):
    def enableCallbacks(self) -> None:  # noqa: N802 (highspy's name)
        """Enable none: the constructor would, and HiGHS then prints its banner."""


class Answer(NamedTuple):
    """How a maximisation ended.

    Attributes:
        status: Never an incumbent's optimality: that is `Status.TIME_LIMIT`, as is the end by `Model.stopped`.
        x: [num_vars] float64, integer where it must be; None without a feasible point.
        bound: Proved upper bound on ⟨θ, x⟩; None where there is none, or x attains it.
    """

    status: Status
    x: NDArray[np.float64] | None = None
    bound: float | None = None


class Model:
    """max ⟨θ, x⟩ over the set of a program.

    Args:
        program: The set, every variable priced.

    Attributes:
        stopped: While it is set, what runs ends early, and nothing else is run.

    Raises:
        ValueError: HiGHS refuses the program.
    """

    def __init__(self, program: mapgrad.IntegerProgram) -> None:
        self._bounds = program.lower, program.upper
        self._integrality = program.integrality
        self._columns = np.arange(program.num_vars, dtype=np.int32)
        self.stopped = Event()
        self._highs = _SilentHighs()
        self._set(_OPTIONS)
        if not self._integrality.any():
            self._set(_LINEAR_OPTIONS)
        elif program.num_vars <= _SMALL:
            self._set(_SMALL_OPTIONS)
        if self._highs.passModel(_linear_program(program)) == HighsStatus.kError:
            raise ValueError(f"HiGHS refuses {program!r}: its numbers may be too large (1e15) or too many (2³¹)")
        if self._integrality.any():
            self._heed_stops(highspy.cb.HighsCallbackType.kCallbackMipInterrupt)
        elif len(program.matrix.data) > _QUICK:
            self._heed_stops(highspy.cb.HighsCallbackType.kCallbackSimplexInterrupt)

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

    def maximize(
        self,
        theta: NDArray[np.float64],
        deadline: float | None,
        *,
        reuse: bool = False,
        start: NDArray[np.float64] | None = None,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Answer:
        """Return argmax ⟨θ, x⟩.

        Args:
            theta: [num_vars] float64 utilities, max |θ| about 1.
            deadline: When to stop, by `time.monotonic`; None for no limit.
            reuse: Whether to begin with the basis that the last run left, where no variable is integer.
            start: A point to begin with where some variable is integer, [num_vars], NaN where it says nothing.
            forbidden: [num_vars] bool, which variables must be 0 this time, none of them bound to be more.
        """
        if forbidden is None:
            return self._maximize(theta, deadline, reuse=reuse, start=start)
        columns = np.flatnonzero(forbidden)
        lower, upper = (bound[columns] for bound in self._bounds)
        self._bound(columns, lower, np.zeros(len(columns)))
        answer = self._maximize(theta, deadline, reuse=reuse, start=start)
        self._bound(columns, lower, upper)
        return answer

    def _maximize(
        self, theta: NDArray[np.float64], deadline: float | None, *, reuse: bool, start: NDArray[np.float64] | None
    ) -> Answer:
        if not reuse:
            self._highs.clearSolver()
        costs = np.ldexp(theta, _COST_BITS)
        self._price(costs)
        if start is not None and self._integrality.any():
            known = np.flatnonzero(~np.isnan(start)).astype(np.int32)
            self._highs.setSolution(len(known), known, start[known])
        status = self._run(deadline)
        if start is not None and status is Status.OPTIMAL and not self._is_worth_what_it_says(costs):
            self._highs.clearSolver()
            status = self._run(deadline)
        if status is Status.UNBOUNDED:
            self._price(np.zeros(len(theta)))
            feasible = self._run(deadline)
            return Answer(Status.UNBOUNDED if feasible is Status.OPTIMAL else feasible)
        if status is Status.OPTIMAL:
            return Answer(status, self._point())
        if status is not Status.TIME_LIMIT:
            return Answer(status)
        info = self._highs.getInfo()
        is_feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        bound = float(np.ldexp(info.mip_dual_bound, -_COST_BITS)) if self._integrality.any() else None
        return Answer(status, self._point() if is_feasible else None, bound)

    def close(self) -> None:
        """Free the model."""
        self._highs.clear()

    def _set(self, options: Mapping[str, bool | float | str]) -> None:
        for name, value in options.items():
            self._highs.setOptionValue(name, value)

    def _bound(self, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        self._highs.changeColsBounds(len(columns), columns.astype(np.int32), lower, upper)

    def _price(self, costs: NDArray[np.float64]) -> None:
        self._highs.changeColsCost(len(costs), self._columns, costs)

    def _heed_stops(self, kind: highspy.cb.HighsCallbackType) -> None:
        stopped = self.stopped  # and not self, which HiGHS would keep alive

        def look(_kind: object, _message: str, _out: object, data: Any, _user: object) -> None:
            data.user_interrupt = stopped.is_set()  # HiGHS keeps what is written from run to run

        self._highs.setCallback(look, None)
        self._highs.startCallback(kind)

    def _run(self, deadline: float | None) -> Status:
        if self.stopped.is_set():
            return Status.TIME_LIMIT
        self._highs.setOptionValue("time_limit", np.inf if deadline is None else max(0.0, deadline - time.monotonic()))
        # HiGHS keeps one pool of threads for each thread that calls it, and refuses to run with another number of
        # threads than the pool has, be the pool ours or the user's. A new pool is made where there is none.
        self._highs.resetGlobalScheduler(True)
        self._highs.run()
        self._highs.resetGlobalScheduler(True)
        # A run that was interrupted may say anything, an error too where Ctrl-C came in the midst of a callback.
        return Status.TIME_LIMIT if self.stopped.is_set() else _STATUSES.get(self._highs.getModelStatus(), Status.ERROR)

    def _is_worth_what_it_says(self, costs: NDArray[np.float64]) -> bool:
        """Tell whether the solution has the objective that HiGHS gives.

        HiGHS 1.16 may take a start for another, better point of the presolved program, and return the start.
        """
        x = np.array(self._highs.getSolution().col_value)
        difference = self._highs.getInfo().objective_function_value - costs @ x
        return bool(abs(difference) <= _TOLERANCE * (1 + np.abs(costs) @ np.abs(x)))

    def _point(self) -> NDArray[np.float64]:
        x = np.clip(self._highs.getSolution().col_value, *self._bounds)
        return np.where(self._integrality, np.rint(x), x) + 0.0  # no negative zeros


def _linear_program(program: mapgrad.IntegerProgram) -> highspy.HighsLp:
    matrix, row_lower, row_upper = program.scaled_rows()
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = np.zeros(program.num_vars)
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = row_lower, row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
    lp.a_matrix_.value_ = matrix.data
    if program.integrality.any():
        kinds = HighsVarType.kContinuous, HighsVarType.kInteger
        lp.integrality_ = [kinds[integer] for integer in program.integrality.tolist()]
    return lp
