"""Integer and linear programs by the engines behind OR-Tools' MPSolver: SCIP, CBC, GLOP and CLP."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from ortools.linear_solver import pywraplp

import mapgrad
from mapgrad import Status
from mapgrad_ortools._interrupts import interrupts_kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Engines prune to tolerances of 1e-9 to 1e-5, so objectives reach them magnified. With 20 bits SCIP took the second
# best at differences of 2e-9, with 36 CBC began to err; from 28 to 32 neither did.
_MAGNIFICATION_BITS: Final = 30
_LARGE_BITS: Final = 10  # fewer where variables are large: CBC then erred with 30, too
_LINEAR_BITS: Final = 10  # GLOP was right up to 20, and calls bounded programs unbounded with 30
_GRID_BITS: Final = 20

_ROW_BITS: Final = 10
"""Engines take those rows for met that are missed by 1e-6."""

_WIDE: Final = 1e4
"""Where variables are as large, float64 can't meet magnified rows to 1e-6, and SCIP searches for ever or gives up."""

_STATUSES: Final = {
    pywraplp.Solver.OPTIMAL: Status.OPTIMAL,
    pywraplp.Solver.FEASIBLE: Status.TIME_LIMIT,  # the clock or a stop ended the search half-way
    pywraplp.Solver.NOT_SOLVED: Status.TIME_LIMIT,
    pywraplp.Solver.INFEASIBLE: Status.INFEASIBLE,
    pywraplp.Solver.UNBOUNDED: Status.UNBOUNDED,
    pywraplp.Solver.ABNORMAL: Status.ERROR,
    pywraplp.Solver.MODEL_INVALID: Status.ERROR,
}
_NAMES: Final = {
    pywraplp.Solver.OPTIMAL: "OPTIMAL",
    pywraplp.Solver.FEASIBLE: "FEASIBLE",
    pywraplp.Solver.NOT_SOLVED: "NOT_SOLVED",
    pywraplp.Solver.INFEASIBLE: "INFEASIBLE",
    pywraplp.Solver.UNBOUNDED: "UNBOUNDED",
    pywraplp.Solver.ABNORMAL: "ABNORMAL",
    pywraplp.Solver.MODEL_INVALID: "MODEL_INVALID",
}


class _Way(NamedTuple):
    """An engine and its parameters; `gives_up` if these end a search that may have no end."""

    engine: str
    parameters: str = ""
    presolve: bool = True
    gives_up: bool = False


# A handler of SCIP's own would swallow Ctrl-C. Where SCIP 10.0 presolves pairs of rows of the form a x + b y ≤ c with
# each other, it cuts off all optima of some programs of two such rows.
_ALWAYS: Final = "misc/catchctrlc = FALSE\nconstraints/varbound/presolpairwise = FALSE\n"
_DEAR: Final = (
    "adaptivediving alns coefdiving conflictdiving crossover distributiondiving farkasdiving feaspump fracdiving gins "
    "guideddiving linesearchdiving nlpdiving objpscostdiving pscostdiving rens rins rootsoldiving subnlp veclendiving"
)
"""Heuristics that dive or solve smaller programs."""

# A search of small programs alone ends sooner than SCIP has cut them, dived in them, tried which variable is best
# branched on, and presolved them anew; those with continuous variables need some cuts.
_QUICK: Final = "presolving/maxrestarts = 0\nseparating/maxrounds = 0\nbranching/pscost/priority = 1000000\n" + "".join(
    f"heuristics/{name}/freq = -1\n" for name in _DEAR.split()
)
_CUT_ROUNDS: Final = 1
_MIXED_CUT_ROUNDS: Final = 5

_QUICK_NODES: Final = 10_000
"""Times variables: where such a search hasn't ended by then, it has taken a tenth of the time that SCIP will."""

_FEWEST_NODES: Final = 20
"""Where a quick search may visit fewer, the program isn't small: bounding it takes most of the time."""

_BARE: Final = "presolving/maxrounds = 0\npropagating/maxrounds = 0\n"
_FIRST_SIDE: Final = "nodeselection/childsel = l\n"
_SCIP: Final = _Way("SCIP", _ALWAYS)
_BARE_SCIP: Final = _Way("SCIP", _ALWAYS + _BARE, presolve=False)
_CBC: Final = _Way("CBC")
_LINEAR_WAYS: Final = (_Way("GLOP", presolve=False), _Way("CLP"), _Way("GLOP"))
_MIXED_WAYS: Final = (_SCIP, _BARE_SCIP, _CBC)
_INTEGER_WAYS: Final = (_CBC, _SCIP, _BARE_SCIP)
_TIMED_WAYS: Final = (_SCIP, _BARE_SCIP, _Way("SCIP", _ALWAYS + _FIRST_SIDE))

# In boxes without end, or as large, one search may take for ever what others find at once; none can tell.
_NODES: Final = "limits/nodes = 10000\n"
_OPEN_WAYS: Final = (
    *(way._replace(parameters=way.parameters + _NODES, gives_up=True) for way in (_SCIP, _BARE_SCIP)),
    _Way("SCIP", _ALWAYS + _FIRST_SIDE),
)

_set_coefficient: Final = pywraplp.Objective.SetCoefficient
_solution_value: Final = pywraplp.Variable.solution_value

_EXACT: Final = "numerics/feastol = 1e-9\n"


class _Reach(NamedTuple):
    """What follows from how far a program's variables may go.

    Attributes:
        is_open: An integer variable has no bound, or one beyond `_WIDE`.
        row_bits: As in `ProgramSolver`.
        cost_bits: The power of two by which utilities are multiplied where a variable is integer.
    """

    is_open: bool
    row_bits: int
    cost_bits: int

    @classmethod
    def of(cls, program: mapgrad.IntegerProgram) -> _Reach:
        """Return that of a program."""
        bounds = np.abs((program.lower, program.upper))
        largest = float(bounds[np.isfinite(bounds)].max(initial=1))
        return cls(
            is_open=bool((bounds[:, program.integrality] > _WIDE).any()),
            row_bits=_ROW_BITS if largest < _WIDE else 0,
            cost_bits=_MAGNIFICATION_BITS - min(_LARGE_BITS, math.floor(math.log2(largest))),
        )


@dataclass
class _Native:
    """An engine's model.

    Attributes:
        solver: OR-Tools' own.
        objective: Its objective.
        variables: Its variables.
        rows: Its constraints.
        handles: What Python's objects of the variables wrap: SWIG unwraps an object anew at each call, which takes
            several times as long as what the call does.
    """

    solver: Any
    objective: Any
    variables: list[Any]
    rows: list[Any]
    handles: list[Any]


@dataclass
class _Model:
    """A program with its present bounds and sides, and a model for each engine that has been asked."""

    program: mapgrad.IntegerProgram
    ways: tuple[_Way, ...]
    timed_ways: tuple[_Way, ...]
    quick: str
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    natives: dict[str, _Native] = field(default_factory=dict[str, _Native])
    running: _Native | None = None

    def native(self, engine: str) -> _Native:
        """Return an engine's model, built where there is none."""
        if engine not in self.natives:
            program = self.program
            solver = pywraplp.Solver.CreateSolver(engine)
            bounds = zip(self.lower.tolist(), self.upper.tolist(), program.integrality.tolist(), strict=True)
            variables = [solver.Var(lower, upper, is_integer, "") for lower, upper, is_integer in bounds]
            rows: list[Any] = []
            for row, (lower, upper) in enumerate(zip(self.row_lower.tolist(), self.row_upper.tolist(), strict=True)):
                rows.append(solver.Constraint(lower, upper))
                for column, coefficient in zip(*(part.tolist() for part in program.matrix.row(row)), strict=True):
                    rows[-1].SetCoefficient(variables[column], coefficient)
            objective, handles = solver.Objective(), [variable.this for variable in variables]
            objective.SetMaximization()
            self.natives[engine] = _Native(solver, objective, variables, rows, handles)
        return self.natives[engine]


class Mip(mapgrad.ProgramSolver[_Model]):
    """Branch and bound with zero gaps, one thread and fixed seeds; the simplex method for linear programs.

    SCIP searches programs of up to 500 variables in two ways: first with few cuts and without heuristics that dive,
    which takes less time on most, then, where that has given up after some nodes, as its developers have set it.

    The model is built once a worker and only its numbers change. Unless `reuse` is on, an engine starts anew from that
    model for every row: what SCIP learns from a row would let the next one's ties fall otherwise.

    Args:
        problem: An `IntegerProgram` with every variable priced.
        engine: ``"scip"``, ``"cbc"``, or ``"glop"``, which takes linear programs only: what is asked first. None takes
            GLOP for those, CBC where all variables are integer and in ±10⁴ and there is no time limit, as it is the
            fastest there, and SCIP else: on mixed programs CBC was seen to call an inferior answer optimal, and without
            bounds it may search for ever where there is no solution. The others, and CLP, are asked where an answer
            can't be believed. OR-Tools' own HiGHS isn't offered: it crashes in a process that has imported highspy or
            PuLP.

    SCIP and GLOP can be stopped, CBC can't: Ctrl-C waits for its row. OR-Tools lets CBC count a time limit in seconds
    of processor time, those of all threads of the process together: it takes longer on a busy machine and less beside
    other threads. So ``engine="cbc"`` keeps a limit roughly; SCIP, GLOP and the solver ``"pulp.cbc"`` keep it.

    Raises:
        ValueError: there is no such engine.
        UnsupportedProblemError: GLOP was asked for and there are integer variables.
    """

    ways = 3

    def __init__(self, problem: mapgrad.IntegerProgram, *, engine: str | None = None) -> None:
        super().__init__(problem)
        integer, is_default = problem.integrality, engine is None
        self._reach = _Reach.of(problem)
        if engine is None:
            engine = "glop" if not integer.any() else "cbc" if integer.all() and not self._reach.is_open else "scip"
        engine = engine.lower()
        if engine not in ("scip", "cbc", "glop"):
            raise ValueError(f"engine must be one of 'scip', 'cbc', 'glop' or None, got {engine!r}")
        if engine == "glop" and integer.any():
            raise mapgrad.UnsupportedProblemError(
                f"engine 'glop' solves linear programs, but {problem!r} has {int(integer.sum())} integer variables: "
                "leave engine out, or take 'cbc' or 'scip'"
            )
        self._engine = engine
        self._keeps_limits = engine == "cbc" and is_default
        self.traits = replace(self.traits, stoppable=engine != "cbc")
        self.row_bits = self._reach.row_bits

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        """Tell whether another program's bounds call for the same engine, parameters and scales."""
        return _Reach.of(other) == self._reach

    def build(self, program: mapgrad.IntegerProgram) -> _Model:
        """Build the model of the engine that is asked first."""
        ways = _LINEAR_WAYS
        if program.integrality.any():
            ways = _INTEGER_WAYS if self._engine == "cbc" else _MIXED_WAYS
            if self._engine == "scip" and self._reach.is_open:
                ways = _OPEN_WAYS
        timed_ways = _TIMED_WAYS if program.integrality.any() and self._keeps_limits else ways
        if self.row_bits:
            ways, timed_ways = _with(ways, _EXACT), _with(timed_ways, _EXACT)
        sides, quick = (program.row_lower.copy(), program.row_upper.copy()), _quick_parameters(program)
        model = _Model(program, ways, timed_ways, quick, program.lower.copy(), program.upper.copy(), *sides)
        model.native(ways[0].engine)
        return model

    def set_bounds(
        self, model: _Model, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Bound some variables in all models."""
        model.lower[columns], model.upper[columns] = lower, upper
        for native in model.natives.values():
            for column, least, most in zip(columns.tolist(), lower.tolist(), upper.tolist(), strict=True):
                variable = native.variables[column]
                is_integer = variable.integer()
                # SCIP takes an integer that is bounded by 0 and 1 for binary, and then refuses other bounds
                variable.SetInteger(False)
                variable.SetBounds(least, most)
                variable.SetInteger(is_integer)

    def set_sides(
        self, model: _Model, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Give some rows other sides in all models."""
        model.row_lower[rows], model.row_upper[rows] = lower, upper
        for native in model.natives.values():
            for row, least, most in zip(rows.tolist(), lower.tolist(), upper.tolist(), strict=True):
                native.rows[row].SetBounds(least, most)

    def maximize(self, model: _Model, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        """Run the way's engine, SCIP in a quick search first."""
        way = (model.ways if call.seconds is None else model.timed_ways)[call.way]
        deadline = math.inf if call.seconds is None else time.perf_counter() + call.seconds
        if way.engine != "SCIP" or not model.quick:
            return self._search(model, call, way, deadline)
        quick = self._search(
            model, call, way._replace(parameters=way.parameters + model.quick, gives_up=True), deadline
        )
        if quick.status is not Status.ERROR:
            return quick
        answer = self._search(model, call, way, deadline)
        if answer.status is Status.TIME_LIMIT and quick.x is not None:
            return _better(answer, quick)
        return answer

    def _search(self, model: _Model, call: mapgrad.EngineCall, way: _Way, deadline: float) -> mapgrad.EngineAnswer:
        """Run an engine until a deadline; the answer of a search that gives up is an ERROR, with its best point."""
        model.running = native = model.native(way.engine)
        solver, objective = native.solver, native.objective
        # SCIP chokes on more than ten partial starts; simplex methods take none
        if call.start is not None and solver.IsMip() and np.isfinite(call.start).all():
            solver.SetHint(native.variables, call.start.tolist())
        coefficients, unit = _magnified(call.theta, model.program.integrality, self._reach.cost_bits)
        unwrapped = objective.this
        for handle, coefficient in zip(native.handles, coefficients.tolist(), strict=True):
            _set_coefficient(unwrapped, handle, coefficient)
        started = time.perf_counter()
        limit = math.inf if deadline == math.inf else max(1, math.ceil(1e3 * (deadline - started)))
        solver.SetTimeLimit(0 if limit == math.inf else limit)  # milliseconds, 0 for no limit
        solver.SetSolverSpecificParametersAsString(way.parameters)
        parameters = _parameters(presolve=way.presolve, reuse=call.reuse)
        with interrupts_kept() if way.engine == "CBC" else nullcontext():
            code = pywraplp.Solver.NOT_SOLVED if call.stopped.is_set() else solver.Solve(parameters)
        # a clock that stops CBC early may make it call a feasible program infeasible
        in_time = 1e3 * (time.perf_counter() - started) < limit
        status, text = _STATUSES[code] if in_time else Status.TIME_LIMIT, f"{way.engine}: {_NAMES[code]}"
        if code == pywraplp.Solver.ABNORMAL:
            del model.natives[way.engine]  # SCIP's refuses all that is asked after an error
        if way.gives_up and status is Status.TIME_LIMIT and in_time and not call.stopped.is_set():
            status, text = Status.ERROR, f"{text} when it gave up"
        if code not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
            return mapgrad.EngineAnswer(status, text=text)
        x = np.array([*map(_solution_value, native.handles)])
        bound = unit * objective.BestBound() if solver.IsMip() and status is not Status.OPTIMAL else None
        return mapgrad.EngineAnswer(status, x, unit * objective.Value(), bound, text)

    def interrupt(self, model: _Model) -> None:
        """End the search that runs, with the best solution found so far; CBC goes on."""
        if model.running is not None:
            model.running.solver.InterruptSolve()


def _better(answer: mapgrad.EngineAnswer, quick: mapgrad.EngineAnswer) -> mapgrad.EngineAnswer:
    """Return a search's answer, with the point of an earlier one where that is better."""
    if answer.objective is not None and quick.objective is not None and answer.objective >= quick.objective:
        return answer
    bound = quick.bound if answer.bound is None else answer.bound
    return replace(answer, x=quick.x, objective=quick.objective, bound=bound)


def _quick_parameters(program: mapgrad.IntegerProgram) -> str:
    """Return those of SCIP's quick search, which gives up after some nodes; none where a program isn't small."""
    nodes = _QUICK_NODES // program.num_vars
    rounds = _CUT_ROUNDS if program.integrality.all() else _MIXED_CUT_ROUNDS
    limits = f"separating/maxroundsroot = {rounds}\nlimits/totalnodes = {nodes}\n"
    return _QUICK + limits if nodes >= _FEWEST_NODES else ""


def _with(ways: tuple[_Way, ...], parameters: str) -> tuple[_Way, ...]:
    """Return ways in which SCIP gets further parameters."""
    return tuple(way._replace(parameters=way.parameters + parameters) if way.engine == "SCIP" else way for way in ways)


@cache
def _parameters(*, presolve: bool, reuse: bool) -> Any:
    """Return parameters that all engines know, the same for all who ask: they are only read."""
    parameters = pywraplp.MPSolverParameters()
    parameters.SetDoubleParam(parameters.RELATIVE_MIP_GAP, 0.0)
    parameters.SetIntegerParam(parameters.PRESOLVE, parameters.PRESOLVE_ON if presolve else parameters.PRESOLVE_OFF)
    parameters.SetIntegerParam(
        parameters.INCREMENTALITY, parameters.INCREMENTALITY_ON if reuse else parameters.INCREMENTALITY_OFF
    )
    return parameters


def _magnified(
    theta: NDArray[np.float64], integrality: NDArray[np.bool_], bits: int
) -> tuple[NDArray[np.float64], float]:
    """Return an objective for an engine, and what one of its units is in units of θ.

    Where θ is a multiple of small integers and all variables are integer, these integers are the objective: values
    are then apart anyway, and an engine that sees so prunes more, CBC twice as much in covering programs.
    """
    if not integrality.any():
        return np.ldexp(theta, _LINEAR_BITS), math.ldexp(1, -_LINEAR_BITS)
    magnified = np.ldexp(theta, bits)
    if integrality.all() and (magnified == magnified.round()).all():
        divisor = int(np.gcd.reduce(magnified.astype(np.int64))) or 1
        if np.abs(magnified).max() <= divisor * 2.0**_GRID_BITS:
            return magnified / divisor, math.ldexp(divisor, -bits)
    return magnified, math.ldexp(1, -bits)
