"""A PuLP model that is kept: its objective and bounds change from row to row, and sides by building it anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pulp

import mapgrad
from mapgrad import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_STATUSES: Final = {
    (pulp.LpStatusOptimal, pulp.LpSolutionOptimal): Status.OPTIMAL,
    (pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible): Status.TIME_LIMIT,
    (pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound): Status.TIME_LIMIT,
    (pulp.LpStatusInfeasible, pulp.LpSolutionInfeasible): Status.INFEASIBLE,
    (pulp.LpStatusInfeasible, pulp.LpSolutionNoSolutionFound): Status.INFEASIBLE,
    (pulp.LpStatusUnbounded, pulp.LpSolutionUnbounded): Status.UNBOUNDED,
}
"""What PuLP's status and sol_status mean, where the only limit set is one of time."""


class Model:
    """min ⟨costs, x⟩ over the set of a program.

    Args:
        program: The set, every variable priced.

    Attributes:
        engine: What solves, or solved last.
        is_linear: No variable is integer.
    """

    def __init__(self, program: mapgrad.IntegerProgram) -> None:
        self.engine: pulp.LpSolver | None = None
        self.is_linear = not program.integrality.any()
        self._program = program
        self._lower, self._upper = program.lower.copy(), program.upper.copy()
        self._row_lower, self._row_upper = program.row_lower.copy(), program.row_upper.copy()
        self._build()

    def _build(self) -> None:
        program, kinds = self._program, (pulp.LpContinuous, pulp.LpInteger)
        self._problem = pulp.LpProblem("mapgrad", pulp.LpMinimize)
        zero = self._problem.add_variable("zero", 0, 0)  # for rows without coefficients
        self._variables = [
            self._problem.add_variable(f"x{column}", _finite(lower), _finite(upper), kinds[integer])
            for column, (lower, upper, integer) in enumerate(
                zip(self._lower.tolist(), self._upper.tolist(), program.integrality.tolist(), strict=True)
            )
        ]
        sides = zip(self._row_lower.tolist(), self._row_upper.tolist(), strict=True)
        for row, (lower, upper) in enumerate(sides):
            columns, coefficients = (part.tolist() for part in program.matrix.row(row))
            left = self._sum(columns, coefficients) if columns else zero
            if lower == upper:
                self._problem += left == upper
                continue
            if np.isfinite(upper):
                self._problem += left <= upper
            if np.isfinite(lower):
                self._problem += left >= lower

    def largest_integer(self) -> float:
        """Return the largest size that an integer variable may have; 0 without one."""
        sizes = np.maximum(np.abs(self._lower), np.abs(self._upper))[self._program.integrality]
        return float(sizes.max(initial=0))

    def minimize(self, costs: NDArray[np.float64], engine: pulp.LpSolver) -> mapgrad.EngineAnswer:
        """Return what PuLP makes of what an engine says of max ⟨-costs, x⟩, without objective and bound."""
        self.engine = engine
        # PuLP leaves the values of the row before where it has none, and those of variables that count nowhere.
        nearest = np.clip(0.0, self._lower, self._upper)
        for variable, value in zip(self._variables, nearest.tolist(), strict=True):
            variable.varValue = value
        self._problem.setObjective(self._sum(range(len(costs)), costs.tolist()))
        self._problem.solve(engine)
        outcome = self._problem.status, self._problem.sol_status
        text = f"{pulp.LpStatus[outcome[0]]}, {pulp.LpSolution[outcome[1]]}"
        status = _STATUSES.get(outcome, Status.ERROR)
        if outcome[1] not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            return mapgrad.EngineAnswer(status, text=text)
        x = np.array([variable.varValue for variable in self._variables], dtype=np.float64)
        return mapgrad.EngineAnswer(status, x, text=text)

    def set_bounds(self, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        """Give some variables other bounds."""
        self._lower[columns], self._upper[columns] = lower, upper
        for column, least, most in zip(columns.tolist(), lower.tolist(), upper.tolist(), strict=True):
            variable: Any = self._variables[column]
            variable.lowBound, variable.upBound = _finite(least), _finite(most)

    def set_sides(self, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        """Give some rows other sides: PuLP 4 can't change those of a model."""
        self._row_lower[rows], self._row_upper[rows] = lower, upper
        self._build()

    def _sum(self, columns: Iterable[int], coefficients: Sequence[float]) -> pulp.LpAffineExpression:
        expression = pulp.lpSum([])
        for column, coefficient in zip(columns, coefficients, strict=True):
            expression.addterm(self._variables[column], coefficient)
        return expression


def _finite(bound: float) -> float | None:
    return bound if np.isfinite(bound) else None
