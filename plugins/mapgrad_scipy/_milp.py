"""Integer programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import LinearConstraint, milp

import mapgrad
from mapgrad import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_STATUS: Final = {0: Status.OPTIMAL, 1: Status.TIME_LIMIT, 2: Status.INFEASIBLE, 3: Status.UNBOUNDED}
"""SciPy's codes. Its last one, 4, is for all that it has no code for: errors, and what `_OPEN` says."""

_OPEN: Final = "The problem is unbounded or infeasible"

_COST_BITS: Final = 12
"""Costs are multiplied by 2¹²: the absolute gap of 1e-6 at which HiGHS stops is then 2e-10 in units of θ."""


def _way(*, presolve: bool, tolerance: float, **options: float) -> dict[str, float]:
    tolerances = {"mip_feasibility_tolerance": tolerance, "primal_feasibility_tolerance": tolerance}
    # smaller coefficients are dropped
    always = {"mip_rel_gap": 0.0, "small_matrix_value": 1e-12, "dual_feasibility_tolerance": 1e-10}
    return {**always, "presolve": presolve, **tolerances, **options}


_WAYS: Final = (
    _way(presolve=True, tolerance=1e-9),
    _way(presolve=False, tolerance=1e-7),
    _way(presolve=False, tolerance=1e-9, simplex_strategy=4),  # the primal one
    _way(presolve=False, tolerance=1e-6),
)

_COARSE_WAYS: Final = (  # HiGHS cuts optima off by rows of large integers that are nearly equal, to 1e-9
    _way(presolve=True, tolerance=1e-7),
    _way(presolve=False, tolerance=1e-9),
    *_WAYS[2:],
)

_NODES: Final = 5000
"""In boxes without end a search may have none: each way but the last one then gives up."""


class _Options(dict[str, Any]):
    """Options of HiGHS itself: SciPy passes them on, with a warning about each that it finds by iteration."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


@dataclass
class _Model:
    """What SciPy is given for each row."""

    columns: Any
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]


class Milp(mapgrad.ProgramSolver[_Model]):
    """SciPy's HiGHS, by branch and cut, with a new native model for each row: SciPy keeps none.

    SciPy has no call that stops a solve: Ctrl-C and deadlines wait for the row that runs, unless it has a time limit.
    The HiGHS of SciPy 1.17 prints a line to standard output when it repairs a solution; older ones are silent.
    """

    ways = len(_WAYS)
    fits = False
    integer_row_bits = 10
    grid_bits = 39  # where costs are smaller than the dual tolerance and not zero, presolving cuts optima off

    def build(self, program: mapgrad.IntegerProgram) -> _Model:
        """Bring the rows into the form in which HiGHS reads them."""
        columns = program.matrix.to_scipy().tocsc()
        # before SciPy 1.15, milp takes no other integers
        columns.indices, columns.indptr = columns.indices.astype(np.int32), columns.indptr.astype(np.int32)
        sides = program.row_lower.copy(), program.row_upper.copy()
        return _Model(columns, *sides, program.lower.copy(), program.upper.copy(), program.integrality)

    def set_bounds(
        self, model: _Model, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Keep other bounds for the next row."""
        model.lower[columns], model.upper[columns] = lower, upper

    def set_sides(
        self, model: _Model, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Keep other sides for the next row."""
        model.row_lower[rows], model.row_upper[rows] = lower, upper

    def maximize(self, model: _Model, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run HiGHS."""
        sides: Any = model.row_lower, model.row_upper  # arrays, whatever SciPy's stubs say
        is_open = bool(np.isinf((model.lower, model.upper))[:, model.integrality].any())
        is_coarse = model.integrality.any() and call.is_coarse
        ways = _COARSE_WAYS if is_coarse else _WAYS
        nodes = _NODES if is_open and call.way < len(_WAYS) - 1 else None
        result = milp(
            -np.ldexp(call.theta, _COST_BITS),
            integrality=model.integrality,
            bounds=(model.lower, model.upper),
            constraints=LinearConstraint(model.columns, *sides),
            options=_Options({**ways[call.way], "time_limit": call.seconds, "node_limit": nodes}),
        )
        status = Status.UNBOUNDED if result.message.startswith(_OPEN) else _STATUS.get(result.status, Status.ERROR)
        objective, bound = (
            None if value is None else float(-np.ldexp(value, -_COST_BITS))
            for value in (result.fun, result.mip_dual_bound)
        )
        return mapgrad.EngineAnswer(status, result.x, objective, bound, result.message)
