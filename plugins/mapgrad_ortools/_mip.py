"""Integer and linear programs by the engines behind OR-Tools' MPSolver: SCIP, CBC and GLOP."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from ortools.linear_solver import pywraplp

import mapgrad
from mapgrad_ortools._interrupts import interrupts_kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Engines prune to tolerances of 1e-9 to 1e-5, so objectives reach them magnified. With 20 bits SCIP took the second
# best at differences of 2e-9, with 36 CBC began to err; from 28 to 32 neither did.
_MAGNIFICATION_BITS: Final = 30
_ROW_BITS: Final = 10  # rows are scaled to that power of two, as engines take those for met that are missed by 1e-6
_GRID_BITS: Final = 20
_ENGINES: Final = {
    "scip": "misc/catchctrlc = FALSE\n",  # a handler of its own would swallow Ctrl-C
    "cbc": "",
    "glop": "",
}
_STATUSES: Final = {
    pywraplp.Solver.OPTIMAL: mapgrad.Status.OPTIMAL,
    pywraplp.Solver.FEASIBLE: mapgrad.Status.TIME_LIMIT,  # the clock or `Mip.stop` ended the search half-way
    pywraplp.Solver.NOT_SOLVED: mapgrad.Status.TIME_LIMIT,
    pywraplp.Solver.INFEASIBLE: mapgrad.Status.INFEASIBLE,
    pywraplp.Solver.UNBOUNDED: mapgrad.Status.UNBOUNDED,
    pywraplp.Solver.ABNORMAL: mapgrad.Status.ERROR,
    pywraplp.Solver.MODEL_INVALID: mapgrad.Status.ERROR,
}


class _Model(NamedTuple):
    solver: Any
    variables: list[Any]
    objective: Any
    stopped: Event

    @classmethod
    def of(cls, program: mapgrad.IntegerProgram, engine: str) -> _Model:
        """Build a program for an engine; GLOP sees its continuous relaxation."""
        solver = pywraplp.Solver.CreateSolver(engine.upper())
        integer = program.integrality & (engine != "glop")
        bounds = zip(program.lower.tolist(), program.upper.tolist(), integer.tolist(), strict=True)
        variables = [solver.Var(lower, upper, is_integer, "") for lower, upper, is_integer in bounds]
        matrix, row_lower, row_upper = program.scaled_rows(_ROW_BITS)
        for row, (lower, upper) in enumerate(zip(row_lower.tolist(), row_upper.tolist(), strict=True)):
            constraint = solver.Constraint(lower, upper)
            for column, coefficient in zip(*(part.tolist() for part in matrix.row(row)), strict=True):
                constraint.SetCoefficient(variables[column], coefficient)
        objective = solver.Objective()
        objective.SetMaximization()
        solver.SetSolverSpecificParametersAsString(_ENGINES[engine])
        return cls(solver, variables, objective, Event())

    def run(self, coefficients: NDArray[np.float64], *, incremental: bool = False) -> int:
        """Maximise an objective; return the engine's code, which proves nothing once it was stopped."""
        for variable, coefficient in zip(self.variables, coefficients.tolist(), strict=True):
            self.objective.SetCoefficient(variable, coefficient)
        parameters = pywraplp.MPSolverParameters()
        parameters.SetDoubleParam(parameters.RELATIVE_MIP_GAP, 0.0)
        mode = parameters.INCREMENTALITY_ON if incremental else parameters.INCREMENTALITY_OFF
        parameters.SetIntegerParam(parameters.INCREMENTALITY, mode)
        with interrupts_kept():
            return pywraplp.Solver.NOT_SOLVED if self.stopped.is_set() else self.solver.Solve(parameters)

    def bound(self, columns: Iterable[int], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        """Bound some variables."""
        for column in columns:
            variable = self.variables[column]
            is_integer = variable.integer()
            # SCIP takes an integer that is bounded by 0 and 1 for binary, and then refuses other bounds
            variable.SetInteger(False)
            variable.SetBounds(float(lower[column]), float(upper[column]))
            variable.SetInteger(is_integer)

    def values(self) -> NDArray[np.float64]:
        """Return the variables' values; there must be some."""
        return np.array([variable.solution_value() for variable in self.variables])


class _State(NamedTuple):
    model: _Model
    relaxation: _Model | None


class Mip(mapgrad.InstanceSolver[mapgrad.IntegerProgram, _State]):
    """Branch and bound with zero gaps, one thread and fixed seeds; the simplex method for linear programs.

    The model is built once a worker and only its objective changes. Unless `reuse` is on, an engine starts anew from
    that model for every row: what SCIP learns from a row would let the next one's ties fall otherwise.

    Engines meet rows and integers to within 1e-6 only. So integers are rounded and checked, and where there are
    continuous variables too, a linear program fits these to the rounded integers.

    Args:
        problem: An `IntegerProgram` with every variable priced.
        engine: ``"scip"``, ``"cbc"``, or ``"glop"``, which takes linear programs only. None takes GLOP for those, CBC
            where all variables are integer and bounded, as it is the fastest there, and SCIP else: on mixed programs
            CBC was seen to call an inferior answer optimal, and without bounds it may search for ever where there is no
            solution. OR-Tools' own HiGHS isn't offered: it crashes in a process that has imported highspy or PuLP.

    SCIP and GLOP can be stopped, CBC can't: Ctrl-C and deadlines wait for its row, unless it has a time limit. OR-Tools
    lets CBC count that in seconds of processor time, those of all threads of the process together: it takes longer on
    a busy machine and less beside other threads. SCIP, GLOP and the solver ``"pulp.cbc"`` count wall-clock time.

    Raises:
        ValueError: there is no such engine.
        UnsupportedProblemError: GLOP was asked for and there are integer variables.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def __init__(self, problem: mapgrad.IntegerProgram, *, engine: str | None = None) -> None:
        super().__init__(problem)
        self._integer = problem.integrality
        self._is_mixed = bool(self._integer.any() and not self._integer.all())
        if engine is None:
            is_bounded = not problem.unbounded_integers.any()
            engine = "glop" if not self._integer.any() else "cbc" if is_bounded and not self._is_mixed else "scip"
        engine = engine.lower()
        if engine not in _ENGINES:
            raise ValueError(f"engine must be one of {', '.join(map(repr, _ENGINES))} or None, got {engine!r}")
        if engine == "glop" and self._integer.any():
            raise mapgrad.UnsupportedProblemError(
                f"engine 'glop' solves linear programs, but {problem!r} has {int(self._integer.sum())} integer "
                "variables: leave engine out, or take 'cbc' or 'scip'"
            )
        self._engine = engine
        self.traits = replace(type(self).traits, stoppable=engine != "cbc")

    def init(self) -> _State:
        """Build the model."""
        relaxation = _Model.of(self.problem, "glop") if self._is_mixed else None
        return _State(_Model.of(self.problem, self._engine), relaxation)

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return values of all variables, [num_vars]."""
        model = state.model
        model.stopped.clear()
        if request.forbidden is None:
            return self._solve(state, theta, request)
        lower, upper = self.problem.lower, self.problem.upper
        columns = np.flatnonzero(request.forbidden).tolist()
        models = [each for each in state if each is not None]
        for each in models:
            each.bound(columns, lower, np.where(request.forbidden, 0.0, upper))
        solution = self._solve(state, theta, request)
        for each in models:
            each.bound(columns, lower, upper)
        return solution

    def _solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        model, start = state.model, request.start
        # SCIP chokes on more than ten partial starts
        if request.reuse and start is not None and np.isfinite(start).all():
            model.solver.SetHint(model.variables, start.tolist())
        limit = math.inf if request.seconds is None else max(1, math.ceil(1e3 * request.seconds))
        model.solver.SetTimeLimit(0 if limit == math.inf else limit)  # milliseconds, 0 for no limit
        started = time.perf_counter()
        coefficients, unit = _magnified(theta, is_integer=bool(self._integer.all()))
        code = model.run(coefficients, incremental=request.reuse)
        # A clock that stops CBC early may make it call a feasible program infeasible, and SCIP ends abnormally where it
        # is interrupted without a solution: proofs count while nothing ends the search.
        in_time = 1e3 * (time.perf_counter() - started) < limit
        status = _STATUSES[code] if in_time and not model.stopped.is_set() else mapgrad.Status.TIME_LIMIT
        if code in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
            bound = unit * model.objective.BestBound() if model.solver.IsMip() else math.inf
            z = self._clean(state, coefficients, model.values())
            objective = float(theta @ z)
            is_optimal = status is mapgrad.Status.OPTIMAL
            return mapgrad.Solution(z, status, objective, None if is_optimal else max(bound, objective))
        if status in (mapgrad.Status.INFEASIBLE, mapgrad.Status.UNBOUNDED):
            status = self._without_optimum(model, theta)
        return mapgrad.Solution(None, status)

    def stop(self, state: _State) -> None:
        """End the search that runs, with the best solution found so far; CBC goes on."""
        state.model.stopped.set()
        state.model.solver.InterruptSolve()

    def _clean(self, state: _State, coefficients: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the solution with its integers rounded.

        Raises:
            ArithmeticError: rounded, it is none.
        """
        x[self._integer] = x[self._integer].round() + 0.0
        if state.relaxation is not None:
            state.relaxation.bound(np.flatnonzero(self._integer).tolist(), x, x)
            fits = state.relaxation.run(coefficients) == pywraplp.Solver.OPTIMAL
            if fits:
                x[~self._integer] = state.relaxation.values()[~self._integer]
        else:
            fits = not self._integer.any() or self._is_state(x)
        if not fits:
            raise ArithmeticError(
                f"{self._engine} found a solution only by its tolerance of 1e-6: rounded to integers it breaks a row; "
                "scale down large coefficients, or take another engine or solver"
            )
        return x

    def _is_state(self, x: NDArray[np.float64]) -> bool:
        return bool(self.problem.contains_rows(x))

    def _without_optimum(self, model: _Model, theta: NDArray[np.float64]) -> mapgrad.Status:
        """Tell infeasible programs from unbounded ones, which presolving doesn't: only the latter have solutions."""
        ends = np.where(theta > 0, self.problem.upper, self.problem.lower)[theta != 0]
        if np.isfinite(ends).all():
            return mapgrad.Status.INFEASIBLE
        status = _STATUSES[model.run(np.zeros_like(theta))]
        return mapgrad.Status.UNBOUNDED if status is mapgrad.Status.OPTIMAL else status


def _magnified(theta: NDArray[np.float64], *, is_integer: bool) -> tuple[NDArray[np.float64], float]:
    """Return an objective for an engine, and what one of its units is in units of θ.

    Where θ is a multiple of small integers and all variables are integer, these integers are the objective: values
    are then apart anyway, and an engine that sees so prunes more, CBC twice as much in covering programs.
    """
    magnified = np.ldexp(theta, _MAGNIFICATION_BITS)
    if is_integer and (magnified == magnified.round()).all():
        divisor = int(np.gcd.reduce(magnified.astype(np.int64))) or 1
        if np.abs(magnified).max() <= divisor * 2.0**_GRID_BITS:
            return magnified / divisor, math.ldexp(divisor, -_MAGNIFICATION_BITS)
    return magnified, math.ldexp(1, -_MAGNIFICATION_BITS)
