"""The laws on integer programs: empty sets, time limits, warm starts, problems by row, variables without a price."""

from functools import lru_cache

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import InstanceSolver, Solution, Status, Traits, testing
from mapgrad.testing._problems import empty_programs
from mapgrad.testing._reference import Enumeration

INTEGERS = mapgrad.IntegerProgram(A_ub=[[1, 2, 3], [-1, -1, 0]], b_ub=[7, -1], lower=[-2, -1, 0], upper=[3, 4, 2])
PLANTS = mapgrad.IntegerProgram(  # three customers, two plants, which cost 0.5 and 0.75 to open
    A_ub=[[1, 0, 1, 0, 1, 0, -3, 0], [0, 1, 0, 1, 0, 1, 0, -3]],
    b_ub=[0, 0],
    A_eq=[[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]],
    b_eq=[1, 1, 1],
    decision=[0, 1, 2, 3, 4, 5],
    fixed=[-0.5, -0.75],
    shape=(3, 2),
)


@lru_cache(maxsize=8)
def points_of(problem):
    try:
        return np.asarray(problem.states())
    except mapgrad.InfeasibleError:
        return np.empty((0, *problem.shape))


class Program(InstanceSolver):
    """Honest: tries all points."""

    def init(self):
        return points_of(self.problem)

    def solve(self, state, theta, request):
        if len(state) == 0:
            return Solution(None, Status.INFEASIBLE)
        return self.answer(state, theta, request)

    def answer(self, points, theta, request):
        return points[(points @ theta).argmax()]


class Tires(Program):
    """Honest: when time is short, it has looked at the first half of the points, or at none."""

    def answer(self, points, theta, request):
        best = points[(points @ theta).argmax()]
        if request.seconds is None or request.seconds > 1:
            return best
        if request.seconds < 1e-6:
            return Solution(None, Status.TIME_LIMIT)
        seen = points[: len(points) // 2 + 1]
        return Solution(seen[(seen @ theta).argmax()], Status.TIME_LIMIT, bound=float(theta @ best))


class Raises(Program):
    """Honest: says by exceptions what others say by a status."""

    def solve(self, state, theta, request):
        if len(state) == 0:
            raise mapgrad.InfeasibleError("no point")
        if request.seconds is not None and request.seconds < 1:
            raise mapgrad.SolveTimeoutError("too slow")
        return super().solve(state, theta, request)


class Climbs(Program):
    """Honest: goes up from its start, whose values it has to take for what they are."""

    def answer(self, points, theta, request):
        if request.start is None:
            return super().answer(points, theta, request)
        values = points @ theta
        least = values[(np.isnan(request.start) | (points == request.start)).all(1)].max()
        above = points[values >= least]
        return above[values[values >= least].argmax()]


class Greedy(Program):
    """Honest: a heuristic that looks at a third of the points, fewer when time is short."""

    traits = Traits(exact=False)

    def answer(self, points, theta, request):
        seen = points[::3] if request.seconds is None else points[::9]
        return seen[(seen @ theta).argmax()]


@pytest.mark.parametrize(
    ("solver", "problem"),
    [
        *((solver, PLANTS) for solver in (Program, Tires, Raises, Climbs, Greedy, testing.BruteForce)),
        (Program, INTEGERS),
        (Greedy, INTEGERS),
        (testing.BruteForce, INTEGERS),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_honest_solvers_pass(solver, problem):
    testing.check_solver(solver, problem)


class FindsPointsInEmptySets(Program):
    def solve(self, state, theta, request):
        return super().solve(state, theta, request) if len(state) else np.floor(self.problem.upper)


class IsInfeasibleAtOnce(Program):
    def __init__(self, problem):
        super().__init__(problem)
        problem.states()


class Gives(Program):
    def solve(self, state, theta, request):
        return super().solve(state, theta, request) if len(state) else Solution(None, Status.TIME_LIMIT)


class CallsIncumbentsOptimal(Program):
    def answer(self, points, theta, request):
        return super().answer(points[:2] if request.seconds == 1e-3 else points, theta, request)


class SaysInfeasibleWhenLate(Program):
    def answer(self, points, theta, request):
        late = request.seconds is not None and request.seconds < 1
        return Solution(None, Status.INFEASIBLE) if late else super().answer(points, theta, request)


class IncumbentOutside(Tires):
    def answer(self, points, theta, request):
        answer = super().answer(points, theta, request)
        if isinstance(answer, Solution) and answer.z is not None:
            return Solution(self.problem.upper + 1.0, Status.TIME_LIMIT)
        return answer


class BoundsBelow(Tires):
    def answer(self, points, theta, request):
        answer = super().answer(points, theta, request)
        if isinstance(answer, Solution) and answer.z is not None:
            return Solution(answer.z, answer.status, bound=float(theta @ answer.z))
        return answer


class StopsForGood(Program):
    """Takes its limit for that of all rows together."""

    spent = 0.0

    def answer(self, points, theta, request):
        type(self).spent += 100.0
        late = request.seconds is not None and self.spent > request.seconds
        return Solution(None, Status.TIME_LIMIT) if late else super().answer(points, theta, request)


class TrustsItsStart(Program):
    def answer(self, points, theta, request):
        if request.start is None or not request.reuse:
            return super().answer(points, theta, request)
        near = points[(np.isnan(request.start) | (points == request.start)).all(1)]
        return super().answer(near, theta, request)


class KeepsItsIncumbent(Program):
    def init(self):
        return [super().init(), None]

    def solve(self, state, theta, request):
        points, last = state
        if not request.reuse or last is None:
            last = super().solve(points, theta, request)
        state[1] = last
        return last


class AlmostWhole(Program):
    def answer(self, points, theta, request):
        return super().answer(points, theta, request) + 1e-8


@pytest.mark.parametrize(
    ("solver", "law", "message"),
    [
        (FindsPointsInEmptySets, "infeasible", "the set is empty, but of 6 rows 0 end with status INFEASIBLE"),
        (IsInfeasibleAtOnce, "infeasible", "the set is empty, but of 6 rows 0 end with status INFEASIBLE"),
        (Gives, "infeasible", "the solver gave no answers: .*TIME_LIMIT"),
        (CallsIncumbentsOptimal, "time_limit", "the answer, called optimal, is worth"),
        (SaysInfeasibleWhenLate, "time_limit", "the solver gave no answers: .*INFEASIBLE"),
        (IncumbentOutside, "time_limit", "the answer isn't a state of the problem"),
        (BoundsBelow, "time_limit", "the bound is reported as"),
        (StopsForGood, "time_limit", "the solver gave no answers: .*TIME_LIMIT"),
        (TrustsItsStart, "reuse", "the I-MLE gradient is off by"),
        (KeepsItsIncumbent, "reuse", "the answer, called optimal, is worth"),
        (AlmostWhole, "feasible", "the answer isn't a state of the problem"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_dishonest_solvers_are_rejected(solver, law, message):
    with pytest.raises(mapgrad.ConformanceError, match=message) as broken:
        testing.check_solver(solver, INTEGERS)
    assert broken.value.law == law


class EverySecondRow(Program):
    """Leaves every second row to `late` where time is very short."""

    def init(self):
        return [super().init(), 0]

    def solve(self, state, theta, request):
        points, number = state
        state[1] = number + 1
        is_late = len(points) > 0 and request.seconds == 1e-9 and number % 2 == 1
        return self.late(points) if is_late else super().solve(points, theta, request)


class TimesOut(EverySecondRow):
    def late(self, points):
        return Solution(points[0], Status.TIME_LIMIT)


class Crashes(EverySecondRow):
    def late(self, points):
        raise ArithmeticError("no time")


def test_rows_run_out_of_time_alone():
    testing.check_time_limit(TimesOut, INTEGERS)
    with pytest.raises(mapgrad.ConformanceError, match=r"the solver gave no answers: .*ArithmeticError: no time"):
        testing.check_time_limit(Crashes, INTEGERS)


class Core:
    """Stands between the kit and a Solver; each subclass spoils one thing that the core owes to all solvers."""

    def __init__(self, solver):
        self.inner = solver
        self.traits = solver.traits

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.inner.close()

    def __call__(self, theta, problems=None):
        return self.solve(theta, problems).z

    def solve(self, theta, problems=None):
        return self.inner.solve(theta, problems)


class RefusesTooFew(Core):
    def solve(self, theta, problems=None):
        try:
            return super().solve(theta, problems)
        except mapgrad.SolveTimeoutError as error:
            raise mapgrad.SolveTimeoutError("", rows=error.rows[1:], solutions=error.solutions) from error


class ForgetsSolutions(Core):
    def solve(self, theta, problems=None):
        try:
            return super().solve(theta, problems)
        except mapgrad.SolveTimeoutError as error:
            raise mapgrad.SolveTimeoutError("", rows=error.rows) from error


class TakesTheFirstProblem(Core):
    def solve(self, theta, problems=None):
        if problems is None:
            return super().solve(theta)
        return self.inner.solve([theta[0]] * len(theta), [problems[0]] * len(theta))


@pytest.mark.parametrize(
    ("core", "law", "message"),
    [
        (
            RefusesTooFew,
            "time_limit",
            r"statuses OPTIMAL, TIME_LIMIT, .*, TIME_LIMIT, \(1, 3, 5\) were to be refused, but \(3, 5\) were",
        ),
        (ForgetsSolutions, "time_limit", "an error came without the solutions of the other rows"),
        (TakesTheFirstProblem, "per_row_problems", "beside rows of 2 other problems, the rows of a problem"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_core(monkeypatch, core, law, message):
    def spoilt(*arguments, **options):
        return core(mapgrad.get_solver(*arguments, **options))

    monkeypatch.setattr("mapgrad.testing._case.get_solver", spoilt)
    with pytest.raises(mapgrad.ConformanceError, match=message) as broken:
        getattr(testing, f"check_{law}")(TimesOut, INTEGERS)
    assert broken.value.law == law


class OneModelForAll(Program):
    """Keeps one model in the class, which each newcomer overwrites."""

    points = None

    def init(self):
        type(self).points = super().init()

    def solve(self, state, theta, request):
        return super().solve(self.points[:, : len(theta)], theta, request)


def test_named_solvers_meet_other_problems():
    class Plugin:
        @staticmethod
        @mapgrad.hookimpl
        def mapgrad_solvers():
            accepts = (mapgrad.IntegerProgram,)
            return [
                mapgrad.SolverSpec("honest", Program, accepts),
                mapgrad.SolverSpec("shared", OneModelForAll, accepts),
            ]

    mapgrad.register(Plugin, "by_row")
    try:
        testing.check_per_row_problems("by_row.honest", mapgrad.KSubset(5, 2))
        with pytest.raises(mapgrad.ConformanceError, match="beside rows of 2 other problems, the rows of a problem"):
            testing.check_per_row_problems("by_row.shared", mapgrad.KSubset(6, 2))
    finally:
        mapgrad.unregister("by_row")


def test_contradictions_leave_no_point():
    for program in (INTEGERS, PLANTS.full(), mapgrad.IntegerProgram(lower=2, upper=[2, 5])):
        for empty in empty_programs(program):
            assert empty.shape == program.shape
            with pytest.raises(mapgrad.InfeasibleError, match="has no state"):
                empty.states()


def test_a_state_is_worth_what_its_best_completion_is():
    enumeration = Enumeration(PLANTS)
    opened = {
        tuple(z.any(0).tolist()): float(fixed) for z, fixed in zip(enumeration.states, enumeration.fixed, strict=True)
    }
    assert opened == {(True, False): -0.5, (False, True): -0.75, (True, True): -1.25}
    theta = torch.full((1, 3, 2), 0.125, dtype=torch.float64)
    theta[0, 0, 1] = 0.25
    assert enumeration.values(theta).max() == 0.375 - 0.5
    solver = mapgrad.get_solver(testing.BruteForce(PLANTS), PLANTS)
    solutions = solver.solve(theta)
    assert solutions.z.tolist() == [[[1, 0], [1, 0], [1, 0]]]
    assert solutions.objective.tolist() == solutions.bound.tolist() == [-0.125]
    everything = mapgrad.get_solver(testing.BruteForce, PLANTS).solve(theta)
    assert torch.equal(everything.z, solutions.z)
    assert everything.objective.tolist() == [-0.125]


def test_a_continuous_variable_completes_a_state_at_its_best():
    overtime = mapgrad.IntegerProgram(
        A_ub=[[3, 2, -1]], b_ub=[4], upper=[1, 1, 2], integrality=[1, 1, 0], decision=[1, 0], fixed=[-0.5]
    )
    enumeration = Enumeration(overtime)
    found = {tuple(z.tolist()): float(fixed) for z, fixed in zip(enumeration.states, enumeration.fixed, strict=True)}
    assert found == {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): -0.5}


def test_a_state_whose_worth_has_no_limit_is_refused():
    program = mapgrad.IntegerProgram(lower=[0, 0], upper=[1, np.inf], integrality=[1, 0], decision=[0], fixed=[1.0])
    with pytest.raises(mapgrad.ProblemError, match=r"what a state of .* is worth can't be told: .*unbounded"):
        testing.check_optimal(testing.BruteForce(program), program)


def test_brute_force_says_that_a_set_is_empty():
    empty = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[-1])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver(testing.BruteForce, empty)(torch.zeros(3, 2))
    assert refused.value.rows == (0, 1, 2)
