"""A PuLP model that is kept: only its objective changes from row to row."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Final

import numpy as np
import pulp

from mapgrad import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    import mapgrad

_STATUSES: Final = {
    (pulp.LpStatusOptimal, pulp.LpSolutionOptimal): Status.OPTIMAL,
    (pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible): Status.TIME_LIMIT,
    (pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound): Status.TIME_LIMIT,
    (pulp.LpStatusInfeasible, pulp.LpSolutionInfeasible): Status.INFEASIBLE,
    (pulp.LpStatusInfeasible, pulp.LpSolutionNoSolutionFound): Status.INFEASIBLE,
    (pulp.LpStatusUnbounded, pulp.LpSolutionUnbounded): Status.UNBOUNDED,
    (pulp.LpStatusUndefined, pulp.LpSolutionNoSolutionFound): Status.UNBOUNDED,  # HiGHS says: or infeasible
}
"""What PuLP's status and sol_status mean, where the only limit set is one of time."""


_FAR: Final = 1e15
"""A variable without a bound that that far from zero is unbounded: where no optimum is, CBC may call 1e20 optimal."""


class Model:
    """min ⟨costs, x⟩ over the set of a program.

    Args:
        program: The set, every variable priced.
        row_bits: To which power of two the largest coefficient of each row is scaled.
        mixed: Whether a program without integer variables gets one, which is always 0.

    Attributes:
        stopped: While it is set, engines end what runs.
        engine: What runs; None between runs.
    """

    def __init__(self, program: mapgrad.IntegerProgram, *, row_bits: int = 0, mixed: bool = False) -> None:
        self.stopped = Event()
        self.engine: pulp.LpSolver | None = None
        self._program = program
        self._problem = pulp.LpProblem("mapgrad", pulp.LpMinimize)
        kinds = pulp.LpContinuous, pulp.LpInteger
        zero = self._problem.add_variable("zero", 0, 0, kinds[mixed])
        self._variables = [
            self._problem.add_variable(f"x{column}", _finite(lower), _finite(upper), kinds[integer])
            for column, (lower, upper, integer) in enumerate(
                zip(program.lower.tolist(), program.upper.tolist(), program.integrality.tolist(), strict=True)
            )
        ]
        matrix, row_lower, row_upper = program.scaled_rows(row_bits)
        for row, (lower, upper) in enumerate(zip(row_lower.tolist(), row_upper.tolist(), strict=True)):
            columns, coefficients = (part.tolist() for part in matrix.row(row))
            left = self._sum(columns, coefficients) if columns else zero
            self._problem += left == upper if lower == upper else left <= upper
        if mixed and not program.integrality.any():
            self._problem += zero <= 1
        self._lacks_bound = ~np.isfinite(program.lower) | ~np.isfinite(program.upper)
        self._nearest = np.clip(0.0, program.lower, program.upper).tolist()

    def minimize(self, costs: NDArray[np.float64], engine: pulp.LpSolver) -> tuple[Status, NDArray[np.float64] | None]:
        """Return the status and argmin ⟨costs, x⟩, integer where it must be; None where PuLP has no solution."""
        # PuLP leaves the values of the row before where it has none, and those of variables that count nowhere.
        for variable, value in zip(self._variables, self._nearest, strict=True):
            variable.varValue = value
        self._problem.setObjective(self._sum(range(len(costs)), costs.tolist()))
        self.engine = engine
        try:
            self._problem.solve(engine)
        finally:
            self.engine = None
        outcome = self._problem.status, self._problem.sol_status
        if outcome[1] not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            return _STATUSES.get(outcome, Status.ERROR), None
        x = np.array([variable.varValue for variable in self._variables], dtype=np.float64)
        x = np.clip(x, self._program.lower, self._program.upper)
        if np.abs(x[self._lacks_bound]).max(initial=0) >= _FAR:
            return Status.UNBOUNDED, None
        return _STATUSES[outcome], np.where(self._program.integrality, np.rint(x), x) + 0.0  # no negative zeros

    def set_upper(self, columns: Iterable[int], upper: NDArray[np.float64]) -> None:
        """Give some variables other upper bounds, of those of all [num_vars]."""
        for column in columns:
            self._variables[column].upBound = _finite(float(upper[column]))

    def _sum(self, columns: Iterable[int], coefficients: Sequence[float]) -> pulp.LpAffineExpression:
        expression = pulp.lpSum([])
        for column, coefficient in zip(columns, coefficients, strict=True):
            expression.addterm(self._variables[column], coefficient)
        return expression


def _finite(bound: float) -> float | None:
    return bound if np.isfinite(bound) else None
