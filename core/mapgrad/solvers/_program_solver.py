"""The base of engines of integer programs: it asks them, and believes what it has checked."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import numpy as np

from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Solution, Status
from mapgrad.solvers._boxes import are_small_integers, break_a_row, on_grid
from mapgrad.solvers._contract import InstanceSolver, Traits
from mapgrad.solvers._engines import EngineAnswer, EngineCall
from mapgrad.solvers._limits import Limits
from mapgrad.solvers._native import AskedRow, NativeModel, NativeModels
from mapgrad.solvers._points import DIGITS, Rows
from mapgrad.solvers._rays import Cone
from mapgrad.solvers._split_rows import for_engines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.solvers._requests import Request

M = TypeVar("M")

_OPTIMALITY: Final = 1e-9
"""Of max |θ|: an answer that is worse than the best by no more is optimal."""

_STEPS: Final = 8
"""So often a point is replaced by a better one that a way finds from there."""

_ROUNDING: Final = 1e-13
"""Of Σ |θ_j x_j|: by so much two ways to add up an objective may differ."""

_ADVICE: Final = (
    ". Where a side is nearer to a sum of a row's coefficients than engines can tell, solvers that count integers "
    "exactly may help: search, diagram, ortools.cp_sat"
)

_FAR: Final = 1e4
"""Objectives of that many times max |θ| are found to fewer digits than an optimum is owed."""


class ProgramSolver(InstanceSolver[IntegerProgram, NativeModels[M]], ABC, Generic[M]):
    """Base class for engines of integer programs: an author builds a native model and runs the engine.

    What an engine says is checked, as every one was seen to be wrong in small cases:

    - A point is rounded where it must be integer. Where it then breaks a row by more than 1e-9 of the row's largest
      term, a linear program fits the continuous variables to the integer ones, and the vertex near its solution is
      taken to the last digit.
    - OPTIMAL counts if the point attains the objective and the bound that the engine gives.
    - INFEASIBLE counts once two ways say so, if the engine has two ways, or all of them where coefficients of a row are
      far apart or a side is nearly 0, and none has found a feasible point; or where a row of integers shows it by a
      divisor of its coefficients, or a row lies outside what the bounds allow.
    - UNBOUNDED counts if there is a direction d along which all rows and bounds stay met and ⟨θ, d⟩ > 0, and a feasible
      point. The linear program of such directions is asked before the engine, and only where θ drives a variable
      towards a bound that it lacks and the set isn't bounded by its rows.
    - Where numbers of a row or of an answer are far apart, a side is nearly 0, or an integer lacks a bound, OPTIMAL
      counts once another way, asked for a step from there to a better point, finds none.

    What doesn't count is asked for again in another way, at last by a step from a point that breaks a row; else the row
    fails with what the engine said. The base also keeps deadlines and forbidden entries, scales rows, splits those of
    many digits, and shrinks an integer's coefficient that is 1e6 times another of its row where a smaller one will do.

    Args:
        problem: A program of rows and bounds alone, every variable of which is priced.
        options: As for `InstanceSolver`.

    Attributes:
        ways: How many ways of running the engine there are.
        row_bits: The largest coefficient of each row is scaled to [2^row_bits, 2^(row_bits + 1)).
        integer_row_bits: By so much more where all variables are integers of at most 1e4 and rows aren't coarse, as
            `RowFacts` has it: the more, the finer does an engine of absolute tolerances tell which rows are met.
        split_multiple: Rows of more digits are split: see `SplitRows`.
        fits: Whether the continuous variables of a mixed program are fitted to the integer ones even where all rows
            hold: for engines that stop at tolerances larger than 1e-9.
        grid_bits: Where a variable is integer, utilities are rounded to multiples of 2^-grid_bits, or of so much less
            that no objective changes by 1e-9 of max |θ|: for engines that err where utilities, or differences of
            them, are smaller than their tolerances, and not zero. None for no rounding.
    """

    traits: Traits = Traits(releases_gil=True, masks=True, limits=True)
    ways: ClassVar[int] = 1
    row_bits: int = 0
    integer_row_bits: ClassVar[int] = 0
    split_multiple: ClassVar[float] = 2.0**12
    fits: ClassVar[bool] = True
    grid_bits: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.traits, Traits):  # pyright: ignore[reportUnnecessaryIsInstance] (an author's value)
            cls.traits = replace(cls.traits, masks=True, limits=True)

    def __init__(self, problem: IntegerProgram, **options: Any) -> None:
        super().__init__(problem, **options)
        if problem.features:
            raise UnsupportedProblemError(
                f"{type(self).__name__} takes rows and bounds alone, but {problem!r} has "
                f"{', '.join(sorted(problem.features))}: give it problem.reformulated()"
            )
        stoppable = self.traits.stoppable
        if stoppable is None:
            base: type[Any] = ProgramSolver
            stoppable = type(self).interrupt is not base.interrupt
        self.traits = replace(self.traits, masks=True, limits=True, stoppable=stoppable)

    @abstractmethod
    def build(self, program: IntegerProgram) -> M:
        """Return a native model of a program, every variable of which is priced; called from one thread at a time.

        Args:
            program: The solver's own with its rows scaled, or a linear program made of it.
        """

    @abstractmethod
    def maximize(self, model: M, call: EngineCall) -> EngineAnswer:
        """Run the engine once and return what it says of max ⟨θ, x⟩ over the model's set."""

    @abstractmethod
    def set_bounds(
        self, model: M, columns: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Give some variables other bounds, [len(columns)], maybe infinite."""

    @abstractmethod
    def set_sides(
        self, model: M, rows: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> None:
        """Give some rows other sides, [len(rows)], maybe infinite."""

    def serves(self, other: IntegerProgram) -> bool:
        """Tell whether the rows of another program call for the same scale."""
        return self._row_bits(other, other) == self._row_bits(self.problem, self.problem)

    def interrupt(self, model: M) -> None:
        """End what runs on a model soon, from another thread.

        Engines that look at `EngineCall.stopped` need none, if their traits say ``stoppable``.
        """

    def free(self, model: M) -> None:
        """Free a native model."""

    def init(self) -> NativeModels[M]:
        """Build the native model of the problem."""
        return NativeModels(self._model(self.problem))

    def solve(self, state: NativeModels[M], theta: NDArray[np.float64], request: Request) -> Solution:
        """Return the best point, [num_vars].

        Raises:
            ArithmeticError: what the engine says can't be true, and no other way of running it helps.
        """
        state.stopped.clear()
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        limits = Limits.of(self.problem) if request.limits is None else request.limits
        if request.forbidden is not None:
            limits = limits._replace(upper=np.where(request.forbidden, 0.0, limits.upper))
        start = request.start if request.reuse else None
        row = AskedRow(theta, limits, deadline, request.reuse, start)
        if state.program.rows.exclude_all(limits):
            return Solution(None, Status.INFEASIBLE)
        if self._grows(state, row):
            feasible = self._settle(state, state.program, replace(row, theta=np.zeros_like(theta)))
            return Solution(None, Status.UNBOUNDED if feasible.status is Status.OPTIMAL else feasible.status)
        return self._settle(state, state.program, row)

    def stop(self, state: NativeModels[M]) -> None:
        """End the row that runs, with the best point found so far."""
        state.stopped.set()
        running = state.running
        if running is not None:
            self.interrupt(running.native)

    def close(self, state: NativeModels[M]) -> None:
        """Free the native models."""
        for model in (state.program, state.relaxation, state.cone_model):
            if model is not None:
                self.free(model.native)

    def _model(self, program: IntegerProgram) -> NativeModel[M]:
        limits, rows = Limits.of(program), Rows(program)
        asked, split, is_tightened = for_engines(program, rows, limits, self.split_multiple)
        native = self.build(asked.scaled(self._row_bits(program, asked)))
        return NativeModel(native, program, asked, split, limits, rows, is_tightened)

    def _row_bits(self, program: IntegerProgram, asked: IntegerProgram) -> int:
        is_fine = are_small_integers(program) and not asked.row_facts.is_coarse
        return self.row_bits + self.integer_row_bits * is_fine

    def _hold(self, model: NativeModel[M], limits: Limits) -> None:
        """Bring a model's bounds and sides to these."""
        held, model.limits = model.limits, limits
        is_outside = model.split is not None and not model.split.fits(model.rows.stated(limits))
        if model.is_tightened or is_outside:
            if not all(map(np.array_equal, limits, held)):
                self.free(model.native)
                model.asked, model.split, _ = for_engines(model.program, model.rows, limits, self.split_multiple)
                model.native = self.build(model.asked.scaled(self._row_bits(model.program, model.asked)))
            return
        if model.split is not None:
            held, limits = (model.split.limits(model.rows.stated(each)) for each in (held, limits))
        if limits.lower is not held.lower or limits.upper is not held.upper:
            columns = np.flatnonzero((limits.lower != held.lower) | (limits.upper != held.upper))
            if len(columns):
                self.set_bounds(model.native, columns, limits.lower[columns], limits.upper[columns])
        if limits.row_lower is not held.row_lower or limits.row_upper is not held.row_upper:
            rows = np.flatnonzero((limits.row_lower != held.row_lower) | (limits.row_upper != held.row_upper))
            if len(rows):
                facts, bits = model.asked.row_facts, self._row_bits(model.program, model.asked)
                sides = (limits if model.split is not None else model.rows.stated(limits))[2:]
                self.set_sides(model.native, rows, *(facts.scaled_sides(bits, side)[rows] for side in sides))

    def _run(self, state: NativeModels[M], model: NativeModel[M], row: AskedRow, way: int) -> EngineAnswer:
        """Run the engine; what it says when its time is up or it was stopped proves nothing."""
        seconds = None if row.deadline is None else row.deadline - time.monotonic()
        if state.stopped.is_set() or (seconds is not None and seconds <= 0):
            return EngineAnswer(Status.TIME_LIMIT)
        self._hold(model, row.limits)
        start, reuse = (row.start, row.reuse) if way == 0 else (None, False)
        state.running = model
        theta = row.theta
        if self.grid_bits is not None and model.program.integrality.any():
            theta = on_grid(theta, row.limits, self.grid_bits)
        if model.split is not None:
            theta = model.split.lengthened(theta, 0.0)
            start = None if start is None else model.split.lengthened(start, np.nan)
        is_coarse = model.asked.row_facts.is_coarse
        answer = self.maximize(model.native, EngineCall(theta, way, state.stopped, seconds, reuse, start, is_coarse))
        if answer.x is not None:
            answer = replace(answer, x=answer.x[: len(row.theta)])
        state.running = None
        if state.stopped.is_set() or (row.deadline is not None and time.monotonic() >= row.deadline):
            answer = replace(answer, status=Status.TIME_LIMIT)
        return answer

    def _settle(self, state: NativeModels[M], model: NativeModel[M], row: AskedRow) -> Solution:
        """Ask in one way after the other until an answer counts."""
        said: list[str] = []
        is_hard = model.rows.are_hard(row.limits)
        infeasible, enough = 0, self.ways if is_hard else min(2, self.ways)
        is_feasible, astray = False, None
        for way in range(self.ways):
            answer = self._run(state, model, row, way)
            if answer.status is Status.TIME_LIMIT:
                return self._incumbent(model, row, answer)
            comment = ""
            if answer.status is Status.INFEASIBLE:
                infeasible += 1
                if infeasible == enough and not is_feasible:
                    return Solution(None, Status.INFEASIBLE)
            elif answer.status is Status.OPTIMAL and answer.x is not None:
                x = self._cleaned(state, model, row, answer.x, way)
                is_feasible = is_feasible or x is not None
                if x is None:
                    if break_a_row(model.rows, model.program.matrix, row.limits):
                        return Solution(None, Status.INFEASIBLE)
                    comment, astray = ", with a point that breaks a row once its integers are rounded", answer.x
                elif not is_hard and self._is_beyond_doubt(model, row, x, answer):
                    return Solution(x)
                elif solution := self._confirmed(state, model, row, x, way):
                    return solution
                else:
                    comment = f", with a point of {row.theta @ x:.12g} which isn't confirmed"
            said.append(f"{answer.in_words()}{comment}")
        if astray is not None and (solution := self._stepped(state, model, row, astray)):
            return solution
        raise ArithmeticError(
            f"{type(self).__name__} contradicts itself or the program, in each way of running it: "
            f"{'; '.join(said)}{'' if astray is None else _ADVICE}"
        )

    @staticmethod
    def _is_beyond_doubt(model: NativeModel[M], row: AskedRow, x: NDArray[np.float64], answer: EngineAnswer) -> bool:
        """Tell whether a point attains what is said of it, to the engine's own tolerance, and its numbers are near."""
        value = float(row.theta @ x)
        largest, terms = row.sizes(x)
        slack = _OPTIMALITY * (largest + terms)
        attains = all(each is None or abs(each - value) <= slack for each in (answer.objective, answer.bound))
        return attains and terms <= _FAR * largest and not model.rows.is_open(row.limits)

    def _confirmed(
        self, state: NativeModels[M], model: NativeModel[M], row: AskedRow, x: NDArray[np.float64], way: int
    ) -> Solution | None:
        """Return x, which a way found, or what is better, once another way finds no better point; None where none does.

        The other is asked for the step: its numbers are small where those of x are large, and nothing is lost in them.
        Rows that are tightened would lose that seen from x, so there the other is asked the same as the first.
        """
        nearest = np.clip(0.0, row.limits.lower, row.limits.upper)
        others = [(way + step) % self.ways for step in range(1, max(2, self.ways))]
        for _ in range(_STEPS):
            start = nearest if model.is_tightened else model.rows.near_origin(x, row.limits)
            is_proof = model.is_tightened or start is x
            answer = self._run(state, model, replace(row, limits=model.rows.seen_from(start, row.limits)), others[0])
            if answer.status is Status.TIME_LIMIT:
                return Solution(x, Status.TIME_LIMIT)
            if answer.status is Status.OPTIMAL and answer.x is not None:
                reached = model.rows.rounded(start + answer.x, row.limits)
                better = self._cleaned(state, model, row, start + answer.x, others[0])
                largest, terms = row.sizes(x)
                if better is not None:
                    gain, slack = row.theta @ (better - x), _OPTIMALITY * largest + _ROUNDING * terms
                    if gain > slack or (not is_proof and gain >= -slack):
                        x = better
                        continue
                    if is_proof and row.theta @ (reached - x) <= _OPTIMALITY * (largest + terms):
                        return Solution(x)
            others.pop(0)
            if not others:
                return None
        return None

    def _cleaned(
        self, state: NativeModels[M], model: NativeModel[M], row: AskedRow, x: NDArray[np.float64], way: int
    ) -> NDArray[np.float64] | None:
        """Return the point that the engine means by x; None if that isn't feasible."""
        rows = model.rows
        x = rows.rounded(x, row.limits)
        integrality = model.program.integrality
        is_mixed = bool(integrality.any() and not integrality.all())
        point = x if rows.hold(x, row.limits) else rows.vertex_near(x, row.limits)
        if point is not None and not (is_mixed and self.fits):
            return point
        if is_mixed and (fitted := self._fitted(state, row, x, way)) is not None:
            return self._better_vertex(model, row, x, than=fitted)
        if point is None and rows.hold(x, row.limits, DIGITS):
            return x
        return point

    def _stepped(
        self, state: NativeModels[M], model: NativeModel[M], row: AskedRow, x: NDArray[np.float64]
    ) -> Solution | None:
        """Look for a step from x, which breaks a row: seen from there, sides are small, and so tolerances."""
        start = model.rows.rounded(x, row.limits)
        if model.is_tightened or model.rows.near_origin(start, row.limits) is not start:
            return None
        answer = self._run(state, model, replace(row, limits=model.rows.seen_from(start, row.limits)), 0)
        if answer.status is not Status.OPTIMAL or answer.x is None:
            return Solution(None, Status.TIME_LIMIT) if answer.status is Status.TIME_LIMIT else None
        point = self._cleaned(state, model, row, start + answer.x, 0)
        return None if point is None else self._confirmed(state, model, row, point, 0)

    @staticmethod
    def _better_vertex(
        model: NativeModel[M], row: AskedRow, x: NDArray[np.float64], than: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the vertex near x if it is better than a point: the linear program that gave this one may be wrong."""
        slack = _OPTIMALITY * sum(row.sizes(x))
        vertex = model.rows.vertex_near(x, row.limits) if row.theta @ (x - than) > slack else None
        return than if vertex is None or row.theta @ (vertex - than) <= slack else vertex

    def _fitted(
        self, state: NativeModels[M], row: AskedRow, x: NDArray[np.float64], way: int
    ) -> NDArray[np.float64] | None:
        """Return the best point with the integers of x, by a linear program; None if none is found."""
        if state.relaxation is None:
            state.relaxation = self._model(self.problem.replace(integrality=0))
        model, integrality = state.relaxation, self.problem.integrality
        lower, upper = (np.where(integrality, x, bound) for bound in (row.limits.lower, row.limits.upper))
        linear = replace(row, limits=row.limits._replace(lower=lower, upper=upper), reuse=False, start=None)
        answer = self._run(state, model, linear, way)
        if answer.status is not Status.OPTIMAL or answer.x is None:
            return None
        return self._cleaned(state, model, linear, answer.x, way)

    def _incumbent(self, model: NativeModel[M], row: AskedRow, answer: EngineAnswer) -> Solution:
        x = None if answer.x is None else model.rows.rounded(answer.x, row.limits)
        if x is not None and not model.rows.hold(x, row.limits, DIGITS):
            x = None
        bound = answer.bound
        if bound is not None and x is not None:
            bound = max(bound, float(row.theta @ x))
        return Solution(x, Status.TIME_LIMIT, bound=bound)

    def _grows(self, state: NativeModels[M], row: AskedRow) -> bool:
        """Tell whether ⟨θ, x⟩ grows along some direction in which all rows and bounds stay met."""
        if state.cone is None:
            state.cone = Cone(self.problem)
        directions = state.cone.driven(row.theta, row.limits)
        if directions is None:
            return False

        def farthest(theta: NDArray[np.float64]) -> NDArray[np.float64] | None:
            assert state.cone is not None
            if state.cone_model is None:
                state.cone_model = self._model(state.cone.program)
            asked = AskedRow(theta, directions, row.deadline)
            return self._settle(state, state.cone_model, asked).z

        return state.cone.grows(row.theta, directions, farthest)
