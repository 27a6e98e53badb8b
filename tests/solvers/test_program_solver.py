"""ProgramSolver, held by engines that say what a script tells them to."""

import threading
import time

import numpy as np
import pytest

import mapgrad
from mapgrad import EngineAnswer, Request, Status
from mapgrad.solvers._limits import Limits

INF = float("inf")
X = np.array([1.0, 0.0, 1.0])
"""The optimum of `knapsack` at `THETA`."""

THETA = np.array([0.5, 0.25, 0.75])
OPTIMAL = EngineAnswer(Status.OPTIMAL, X, 1.25, 1.25, "done")
INFEASIBLE = EngineAnswer(Status.INFEASIBLE, text="none there")


def knapsack() -> mapgrad.IntegerProgram:
    return mapgrad.IntegerProgram(A_ub=[[2.0, 3.0, 4.0]], b_ub=[6.0])


class Scripted(mapgrad.ProgramSolver):
    """An engine of three ways that gives the answers of a script, one after the other; functions of the call too."""

    ways = 3

    def __init__(self, problem, script=()):
        super().__init__(problem)
        self.script, self.calls, self.bounds, self.sides, self.interrupted = list(script), [], [], [], 0

    def build(self, program):
        return program

    def set_bounds(self, model, columns, lower, upper):
        self.bounds.append((columns.tolist(), lower.tolist(), upper.tolist()))

    def set_sides(self, model, rows, lower, upper):
        self.sides.append((rows.tolist(), lower.tolist(), upper.tolist()))

    def maximize(self, model, call):
        self.calls.append(call)
        answer = self.script.pop(0)
        return answer(call) if callable(answer) else answer

    def interrupt(self, model):
        self.interrupted += 1


def solved(problem, script, theta=THETA, **request):
    """Return the solution and the ways that were asked; the script must be used up."""
    solver = Scripted(problem, script)
    solution = solver.solve(solver.init(), np.asarray(theta), Request(**request))
    assert not solver.script
    return solution, [call.way for call in solver.calls]


def test_an_answer_that_nothing_speaks_against_takes_one_run():
    solution, ways = solved(knapsack(), [OPTIMAL])
    assert (solution.status, solution.z.tolist(), ways) == (Status.OPTIMAL, X.tolist(), [0])


def test_infeasible_counts_once_two_ways_say_so():
    assert solved(knapsack(), [INFEASIBLE, INFEASIBLE])[0] == mapgrad.Solution(None, Status.INFEASIBLE)
    solution, ways = solved(knapsack(), [INFEASIBLE, OPTIMAL])
    assert (solution.status, solution.z.tolist(), ways) == (Status.OPTIMAL, X.tolist(), [0, 1])


def test_infeasible_does_not_count_where_a_way_has_found_a_point():
    found = EngineAnswer(Status.OPTIMAL, np.array([1.0, 0.0, 0.0]), 1.5)
    steps = [EngineAnswer(Status.ERROR), EngineAnswer(Status.ERROR)]
    with pytest.raises(ArithmeticError, match=r"a point of 0\.5 which isn't confirmed; INFEASIBLE .*; INFEASIBLE"):
        solved(knapsack(), [found, *steps, INFEASIBLE, INFEASIBLE])


def test_an_engine_of_one_way_is_believed_to_find_nothing():
    class OneWay(Scripted):
        ways = 1

    solver = OneWay(knapsack(), [INFEASIBLE])
    assert solver.solve(solver.init(), THETA, Request()).status is Status.INFEASIBLE


def test_a_bounded_program_is_never_unbounded():
    solution, ways = solved(knapsack(), [EngineAnswer(Status.UNBOUNDED), OPTIMAL])
    assert (solution.status, ways) == (Status.OPTIMAL, [0, 1])


def test_a_point_that_breaks_a_row_is_asked_for_again():
    broken = EngineAnswer(Status.OPTIMAL, np.ones(3), 1.5, 1.5)
    solution, ways = solved(knapsack(), [broken, OPTIMAL])
    assert (solution.z.tolist(), ways) == (X.tolist(), [0, 1])


@pytest.mark.parametrize("said", [{"objective": 1.375}, {"bound": 1.375}, {"objective": float("nan")}])
def test_a_point_that_does_not_attain_what_is_said_of_it_is_confirmed_by_another_way(said):
    unattained = EngineAnswer(Status.OPTIMAL, np.array([0.0, 0.0, 1.0]), **said)
    better = EngineAnswer(Status.OPTIMAL, np.array([1.0, 0.0, 0.0]))
    nothing = EngineAnswer(Status.OPTIMAL, np.zeros(3))
    solution, ways = solved(knapsack(), [unattained, better, nothing])
    assert (solution.status, solution.z.tolist(), ways) == (Status.OPTIMAL, X.tolist(), [0, 1, 1])


def delicate() -> mapgrad.IntegerProgram:
    return mapgrad.IntegerProgram(A_ub=[[1e-7, 3.0]], b_ub=[6.0], upper=[10.0, 2.0], integrality=1)


def test_a_second_best_of_a_delicate_program_is_found_out():
    second = EngineAnswer(Status.OPTIMAL, np.array([9.0, 1.0]), 5.25, 5.25)
    step = EngineAnswer(Status.OPTIMAL, np.array([1.0, 0.0]), 0.5, 0.5)
    solver = Scripted(delicate(), [second, step, EngineAnswer(Status.OPTIMAL, np.zeros(2), 0.0, 0.0)])
    solution = solver.solve(solver.init(), np.array([0.5, 0.75]), Request())
    assert (solution.status, solution.z.tolist()) == (Status.OPTIMAL, [10.0, 1.0])
    assert [call.way for call in solver.calls] == [0, 1, 1]
    assert solver.bounds == [([0, 1], [-9.0, -1.0], [1.0, 1.0]), ([0], [-10.0], [0.0])]
    assert len(solver.sides) == 2


def test_a_third_way_confirms_where_the_second_fails():
    best = EngineAnswer(Status.OPTIMAL, np.array([10.0, 1.0]), 5.75, 5.75)
    script = [best, EngineAnswer(Status.ERROR), EngineAnswer(Status.OPTIMAL, np.zeros(2))]
    solution, ways = solved(delicate(), script, [0.5, 0.75])
    assert (solution.status, ways) == (Status.OPTIMAL, [0, 1, 2])


def test_a_time_limit_gives_what_was_found_if_it_is_a_state():
    found = EngineAnswer(Status.TIME_LIMIT, X + 1e-8, 1.25, 1.5)
    solution, _ = solved(knapsack(), [found])
    assert (solution.status, solution.z.tolist(), solution.bound) == (Status.TIME_LIMIT, X.tolist(), 1.5)
    solution, _ = solved(knapsack(), [EngineAnswer(Status.TIME_LIMIT, np.ones(3), bound=1.75)])
    assert solution == mapgrad.Solution(None, Status.TIME_LIMIT, bound=1.75)
    assert solved(knapsack(), [EngineAnswer(Status.TIME_LIMIT)])[0] == mapgrad.Solution(None, Status.TIME_LIMIT)


def test_a_bound_below_the_point_is_raised_to_it():
    solution, _ = solved(knapsack(), [EngineAnswer(Status.TIME_LIMIT, X, 1.25, 1.0)])
    assert solution.bound == 1.25


def test_all_runs_share_one_deadline():
    def slow(call):
        time.sleep(0.3)
        return INFEASIBLE

    solver = Scripted(knapsack(), [slow, slow])
    assert solver.solve(solver.init(), THETA, Request(seconds=0.5)) == mapgrad.Solution(None, Status.TIME_LIMIT)
    first, second = solver.calls
    assert 0.4 < first.seconds <= 0.5
    assert 0 < second.seconds < 0.25


def test_without_time_no_run_begins():
    assert solved(knapsack(), [], seconds=0.0)[0] == mapgrad.Solution(None, Status.TIME_LIMIT)


def test_a_stop_ends_the_run_and_what_it_says_then_proves_nothing():
    begun = threading.Event()

    def stopped(call):
        begun.set()
        assert call.stopped.wait(10)
        return INFEASIBLE

    solver = Scripted(knapsack(), [stopped])
    state = solver.init()
    thread = threading.Thread(target=lambda: (begun.wait(10), solver.stop(state)))
    thread.start()
    assert solver.solve(state, THETA, Request()) == mapgrad.Solution(None, Status.TIME_LIMIT)
    thread.join()
    assert solver.interrupted == 1
    solver.script = [OPTIMAL]
    assert solver.solve(state, THETA, Request()).status is Status.OPTIMAL


def test_forbidden_entries_are_bounded_by_zero_for_their_row_alone():
    solver = Scripted(knapsack(), [EngineAnswer(Status.OPTIMAL, np.array([0.0, 0.0, 1.0]), 0.75), OPTIMAL])
    state = solver.init()
    forbidden = np.array([True, False, False])
    assert solver.solve(state, THETA, Request(forbidden=forbidden)).z.tolist() == [0, 0, 1]
    assert solver.solve(state, THETA, Request()).z.tolist() == X.tolist()
    assert solver.bounds == [([0], [0.0], [0.0]), ([0], [0.0], [1.0])]


def test_a_start_and_earlier_rows_help_the_first_way_alone():
    solver = Scripted(knapsack(), [INFEASIBLE, OPTIMAL])
    solver.solve(solver.init(), THETA, Request(start=X, reuse=True))
    assert [(call.start is X, call.reuse) for call in solver.calls] == [(True, True), (False, False)]


def test_what_is_never_settled_fails_with_what_was_said():
    script = [
        EngineAnswer(Status.OPTIMAL, np.ones(3), 1.5, text="gap 0"),
        INFEASIBLE,
        EngineAnswer(Status.ERROR, text="numerical troubles"),
        INFEASIBLE,  # the step from there
    ]
    with pytest.raises(ArithmeticError) as raised:
        solved(knapsack(), script)
    assert str(raised.value) == (
        "Scripted contradicts itself or the program, in each way of running it: OPTIMAL of objective 1.5 (gap 0), with "
        "a point that breaks a row once its integers are rounded; INFEASIBLE (none there); ERROR (numerical troubles). "
        "Where a side is nearer to a sum of a row's coefficients than engines can tell, solvers that count integers "
        "exactly may help: search, diagram, ortools.cp_sat"
    )


def test_where_every_way_breaks_a_row_a_step_from_there_is_confirmed_by_another_way():
    broken = EngineAnswer(Status.OPTIMAL, np.ones(3), 1.5, 1.5)
    step = EngineAnswer(Status.OPTIMAL, X - 1)
    nothing = EngineAnswer(Status.OPTIMAL, np.zeros(3))
    solution, ways = solved(knapsack(), [broken, broken, broken, step, nothing])
    assert (solution.status, solution.z.tolist(), ways) == (Status.OPTIMAL, X.tolist(), [0, 1, 2, 0, 1])


def test_a_step_that_takes_too_long_is_a_time_limit():
    broken, late = EngineAnswer(Status.OPTIMAL, np.ones(3), 1.5, 1.5), EngineAnswer(Status.TIME_LIMIT)
    assert solved(knapsack(), [broken, broken, broken, late])[0].status is Status.TIME_LIMIT


def test_a_point_of_no_numbers_is_not_a_point():
    nothing = EngineAnswer(Status.OPTIMAL, np.full(3, np.nan))
    assert solved(knapsack(), [nothing, OPTIMAL])[1] == [0, 1]


def along(*directions):
    """Return answers to linear programs of directions, each with its own point."""
    return [EngineAnswer(Status.OPTIMAL, np.array(direction, dtype=np.float64)) for direction in directions]


def open_program() -> mapgrad.IntegerProgram:
    return mapgrad.IntegerProgram(A_ub=[[1.0, -1.0]], b_ub=[2.0], upper=INF, integrality=0)


def test_unbounded_takes_a_ray_and_a_feasible_point():
    ray, point = [1.0, 1.0], [0.0, 0.0]
    theta = [0.5, -0.25]
    script = [*along(ray, point, ray), EngineAnswer(Status.OPTIMAL, np.array(point), 0.0, 0.0)]
    assert solved(open_program(), script, theta)[0] == mapgrad.Solution(None, Status.UNBOUNDED)
    script = [*along(ray, point, ray), INFEASIBLE, INFEASIBLE]
    assert solved(open_program(), script, theta)[0] == mapgrad.Solution(None, Status.INFEASIBLE)


def test_where_no_direction_is_worth_anything_unbounded_is_not_believed():
    theta = [0.5, -0.75]
    optimum = EngineAnswer(Status.OPTIMAL, np.array([2.0, 0.0]), 1.0)
    script = [*along([1.0, 1.0], [0.0, 0.0], [0.0, 0.0]), EngineAnswer(Status.UNBOUNDED), optimum]
    solution, ways = solved(open_program(), script, theta)
    assert (solution.status, solution.z.tolist(), ways[-2:]) == (Status.OPTIMAL, [2.0, 0.0], [0, 1])


def test_a_mixed_point_is_taken_to_the_last_digit():
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 2.0]], b_ub=[1.5], integrality=[1, 0])
    rough = EngineAnswer(Status.OPTIMAL, np.array([1 - 1e-7, 1 / 4 + 1e-7]), 0.6875)
    fitted = EngineAnswer(Status.OPTIMAL, np.array([1.0, 1 / 4 + 1e-8]))
    solution, ways = solved(program, [rough, fitted], [0.5, 0.75])
    assert solution.z.tolist() == pytest.approx([1.0, 0.25], rel=0, abs=1e-15)
    assert ways == [0, 0]


def test_what_rounding_leaves_of_a_zero_is_a_zero():
    program = mapgrad.IntegerProgram(
        A_ub=[[-2.0, 9.0], [-3.0, 9.0]], b_ub=[0.0, 0.0], lower=[0, -1], upper=1, integrality=0
    )
    noise = EngineAnswer(Status.OPTIMAL, np.array([3e-12, 1e-12]), 0.0)
    assert solved(program, [noise], [-0.25, 0.5])[0].z.tolist() == [0, 0]


def test_a_confirmation_must_attain_the_gain_that_it_speaks_of():
    class Unfitted(Scripted):
        fits = False

    program = mapgrad.IntegerProgram(
        A_ub=[[1e-7, 3.0], [1.0, 0.0]], b_ub=[6.0, 10.0], upper=[20.0, 2.0], integrality=[0, 1]
    )
    best = EngineAnswer(Status.OPTIMAL, np.array([10.0, 1.0]), 5.75, 5.75)
    beyond = EngineAnswer(Status.OPTIMAL, np.array([1e-4, 0.0]), 5e-5)
    solver = Unfitted(program, [best, beyond, *along([10.0, 1.0], [0.0, 0.0])])
    solution = solver.solve(solver.init(), np.array([0.5, 0.75]), Request())
    assert (solution.status, solution.z.tolist()) == (Status.OPTIMAL, [10.0, 1.0])
    assert [call.way for call in solver.calls] == [0, 1, 1, 2]


def test_a_gain_from_integers_that_are_not_is_none():
    best = EngineAnswer(Status.OPTIMAL, np.array([9.0, 1.0]), 5.25, 5.25)
    fraction = EngineAnswer(Status.OPTIMAL, np.array([1e-4, 0.0]), 5e-5)
    solution, ways = solved(delicate(), [best, fraction], [0.5, 0.75])
    assert (solution.status, solution.z.tolist(), ways) == (Status.OPTIMAL, [9.0, 1.0], [0, 1])


def test_a_program_of_unbounded_integers_is_confirmed_within_reach():
    program = mapgrad.IntegerProgram(A_ub=[[1.0, -1.0]], b_ub=[5.0], lower=[0, 0], upper=INF)
    optimum = EngineAnswer(Status.OPTIMAL, np.array([5.0, 0.0]), 2.5)
    solver = Scripted(program, [*along([1.0, 1.0], [0.0, 0.0], [0.0, 0.0]), optimum, *along([0.0, 0.0])])
    assert solver.solve(solver.init(), np.array([0.5, -0.75]), Request()).z.tolist() == [5, 0]
    assert [call.way for call in solver.calls] == [0, 0, 0, 0, 1]
    assert solver.bounds == [([0, 1], [-5.0, 0.0], [1e6, 1e6])]


def test_a_linear_program_that_loses_what_the_engine_had_is_not_believed():
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 2.0]], b_ub=[1.5], integrality=[1, 0])
    right = EngineAnswer(Status.OPTIMAL, np.array([1.0, 0.25]), 0.6875)
    fitted = EngineAnswer(Status.OPTIMAL, np.array([1.0, 0.125]))
    assert solved(program, [right, fitted], [0.5, 0.75])[0].z.tolist() == [1, 0.25]


def test_a_tightened_row_is_tightened_anew_for_other_limits():
    built = []

    class Building(Scripted):
        def build(self, program):
            built.append((program.matrix.data / program.matrix.data[1]).tolist())
            return program

    program = mapgrad.IntegerProgram(A_ub=[[-1e12, 1.0]], b_ub=[0.0], upper=[1.0, 16.0])
    best = EngineAnswer(Status.OPTIMAL, np.array([1.0, 16.0]), 7.5, 7.5)
    solver = Building(program, [best] * 6)
    state, theta = solver.init(), np.array([-0.5, 0.5])
    for side in (0.0, -4.0, -4.0):
        limits = Limits.of(program.replace(row_upper=side))
        solution = solver.solve(state, theta, Request(limits=limits))
        assert (solution.status, solution.z.tolist()) == (Status.OPTIMAL, [1.0, 16.0])
    assert built == [[-16.0, 1.0], [-20.0, 1.0]]
    assert not solver.sides
