"""Integer programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import LinearConstraint, milp

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STATUS: Final = {
    0: mapgrad.Status.OPTIMAL,
    1: mapgrad.Status.TIME_LIMIT,
    2: mapgrad.Status.INFEASIBLE,
    3: mapgrad.Status.UNBOUNDED,
}
"""SciPy's codes. Its last one, 4, is for all that it has no code for: errors, and what `_OPEN` says."""
_OPEN: Final = "The problem is unbounded or infeasible"
_SCALE: Final = 2.0**12
"""Brings the absolute gap of 1e-6 at which HiGHS stops, and SciPy can't move, down to 2e-10 in units of θ."""
_ROW_BITS: Final = 10  # rows are scaled to that power of two
_ROW_TOLERANCE: Final = 1e-6  # that of HiGHS, for rows of a mixed-integer program
_OPTIMALITY_TOLERANCE: Final = 1e-9


class Milp(mapgrad.InstanceSolver[mapgrad.IntegerProgram, LinearConstraint]):
    """SciPy's HiGHS, by branch and cut, with a new native model for each row: SciPy keeps none.

    SciPy has no call that stops a solve: Ctrl-C and deadlines wait for the row that runs, unless it has a time limit.
    The HiGHS of SciPy 1.17 prints a line to standard output when it repairs a solution; older ones are silent.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> LinearConstraint:
        """Bring the rows into the form in which HiGHS reads them."""
        matrix, lower, upper = self.problem.scaled_rows(_ROW_BITS)
        columns = matrix.to_scipy().tocsc()
        # before SciPy 1.15, milp takes no other integers
        columns.indices, columns.indptr = columns.indices.astype(np.int32), columns.indptr.astype(np.int32)
        bounds: Any = lower, upper  # arrays, whatever SciPy's stubs say
        return LinearConstraint(columns, *bounds)

    def solve(self, state: LinearConstraint, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the optimum [num_vars], or how the search ended.

        Raises:
            RuntimeError: HiGHS failed, or found no answer whose integer variables can be rounded.
        """
        lower, upper = self.problem.lower, self.problem.upper
        if request.forbidden is not None:
            upper = np.where(request.forbidden, 0.0, upper)
        result = self._maximize(theta, state, lower, upper, request.seconds)
        if result.x is None:
            return mapgrad.Solution(None, self._ending(result, state, lower, upper, request.seconds))
        z, status = self._rounded(result.x), _STATUS[result.status]
        activity = state.A @ z
        violation = np.maximum(state.lb - activity, activity - state.ub)
        if violation.max(initial=0) > _ROW_TOLERANCE:
            z = self._completed(z, theta, state, lower, upper, request.seconds)
            if theta @ z < theta @ result.x - _OPTIMALITY_TOLERANCE:
                status = mapgrad.Status.FEASIBLE
        bound = None if result.mip_dual_bound is None else -result.mip_dual_bound / _SCALE
        return mapgrad.Solution(z, status, bound=None if status is mapgrad.Status.OPTIMAL else bound)

    def _maximize(
        self,
        theta: NDArray[np.float64],
        rows: LinearConstraint,
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        seconds: float | None,
    ) -> Any:
        program = self.problem
        for presolve in (True, False):  # which may end in an error that HiGHS doesn't make without
            result = milp(
                -_SCALE * theta,
                integrality=program.integrality,
                bounds=(lower, upper),
                constraints=rows,
                options={"mip_rel_gap": 0.0, "time_limit": seconds, "presolve": presolve},
            )
            if result.status in _STATUS or result.message.startswith(_OPEN):
                break
        return result

    def _rounded(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(self.problem.integrality, x.round() + 0.0, x)  # no negative zeros

    def _ending(
        self,
        result: Any,
        rows: LinearConstraint,
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        seconds: float | None,
    ) -> mapgrad.Status:
        if result.message.startswith(_OPEN):
            result = self._maximize(np.zeros(self.problem.shape), rows, lower, upper, seconds)
            if result.x is not None:
                return mapgrad.Status.UNBOUNDED
        if result.status not in _STATUS:
            raise RuntimeError(f"SciPy's milp ended without an answer: {result.message}")
        return _STATUS[result.status]

    def _completed(
        self,
        z: NDArray[np.float64],
        theta: NDArray[np.float64],
        rows: LinearConstraint,
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        seconds: float | None,
    ) -> NDArray[np.float64]:
        """Return the best solution that has the integer variables of z."""
        integrality = self.problem.integrality
        result = self._maximize(theta, rows, np.where(integrality, z, lower), np.where(integrality, z, upper), seconds)
        if result.x is None:
            raise RuntimeError(
                "HiGHS takes numbers within 1e-6 of an integer for integers, and has no solution once they are "
                f"rounded: make the large coefficients smaller that allow this ({result.message})"
            )
        return self._rounded(result.x)
