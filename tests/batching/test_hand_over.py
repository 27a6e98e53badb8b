"""Rows that a solver gives up go to the cheapest engine, as far as they are easier for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import IntegerProgram, Status
from mapgrad.batching import _hand_over

PROGRAM = IntegerProgram(A_ub=[[2, 3, 4, 5]], b_ub=[7])
SECONDS = 1e-7
"""What the engine declares to take for a row."""


class Best(mapgrad.InstanceSolver):
    """Tries all sums; notes what it was asked."""

    traits = mapgrad.Traits(masks=True, limits=True)
    asked: list[tuple[int, float | None, float | None]]
    seconds = 0.0

    def solve_rows(self, state, block):
        type(self).asked.append((len(block), block.seconds, block.patience))
        time.sleep(self.seconds * len(block))
        points = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, -1).T
        for row, theta in enumerate(block.theta):
            side = self.problem.row_upper if block.limits is None else block.limits.row_upper[row]
            fitting = points[(points @ self.problem.matrix.toarray().T <= side).all(axis=1)]
            if block.forbidden is not None:
                fitting = fitting[~fitting[:, block.forbidden[row]].any(axis=1)]
            block.z[row] = fitting[np.argmax(fitting @ theta)]


class Engine(Best):
    """What rows are handed over to."""


class Hasty(Best):
    """Gives up the rows whose first utility, in parts of the largest, is more than its patience."""

    traits = mapgrad.Traits(masks=True, limits=True, gives_up=True)

    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        if block.patience is not None:
            left = np.abs(block.theta[:, 0]) > block.patience
            block.status[left], block.z[left] = Status.TIME_LIMIT, np.nan


@pytest.fixture(autouse=True)
def plugin():
    """Two solvers, of which the engine is the cheapest one of all."""
    for kind in (Best, Engine, Hasty):
        kind.asked, kind.seconds = [], 0.0

    def solvers():
        return [
            mapgrad.SolverSpec("engine", Engine, (IntegerProgram,), cost=lambda _: SECONDS),
            mapgrad.SolverSpec("hasty", Hasty, (IntegerProgram,), cost=lambda _: 1.0),
        ]

    mapgrad.register(SimpleNamespace(mapgrad_solvers=mapgrad.hookimpl(solvers)), "fake")
    yield
    mapgrad.unregister("fake")


def rows(count: int, first: float) -> torch.Tensor:
    theta = torch.rand(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    theta[:, 0] = first
    return theta


def best(theta: torch.Tensor, problem: IntegerProgram = PROGRAM) -> torch.Tensor:
    return (theta @ problem.states().T).amax(1)


def test_all_rows_are_answered_and_those_handed_over_counted():
    theta = rows(9, 0.4)
    theta[:3, 0] = 0.0
    with mapgrad.get_solver("fake.hasty", PROGRAM) as solver:
        found = solver.solve(theta)
        assert found.stats["handed_over"] == 6
        assert found.stats["solves"] == 9
        assert solver(theta).equal(found.z)
        assert solver.stats["handed_over"] == 12
    assert found.status.tolist() == [Status.OPTIMAL] * 9
    torch.testing.assert_close(found.objective, best(theta), rtol=0, atol=1e-12)
    assert sum(count for count, *_ in Engine.asked) == 12
    assert Hasty.asked[0] == (9, None, 1e-4)


def test_rows_are_asked_for_anew_where_the_other_solver_is_declared_to_be_slow(monkeypatch):
    monkeypatch.setattr(_hand_over, "_AT_ONCE", 0.02 * SECONDS)
    theta = rows(9, 0.4)
    theta[:2, 0], theta[2:4, 0] = 0.0, 0.04 * SECONDS
    found = mapgrad.get_solver("fake.hasty", PROGRAM).solve(theta)
    assert found.stats["handed_over"] == 5
    assert Hasty.asked == [(9, None, 0.02 * SECONDS), (7, None, pytest.approx(0.05 * SECONDS))]


def test_nobody_else_is_looked_for_while_all_rows_are_solved_at_once(monkeypatch):
    monkeypatch.setattr(_hand_over, "successor_of", lambda *_: pytest.fail("looked for"))
    found = mapgrad.get_solver("fake.hasty", PROGRAM).solve(rows(5, 0.5e-4))
    assert found.status.tolist() == [Status.OPTIMAL] * 5


def test_nobody_gives_up_where_there_is_nobody_else(monkeypatch):
    monkeypatch.setattr(_hand_over, "successor_of", lambda *_: None)
    theta = rows(5, 0.4)
    found = mapgrad.get_solver("fake.hasty", PROGRAM).solve(theta)
    assert found.stats["handed_over"] == 0
    assert Hasty.asked == [(5, None, 1e-4), (5, None, None)]
    torch.testing.assert_close(found.objective, best(theta), rtol=0, atol=1e-12)


def test_nobody_is_there_for_the_rows_of_another_thread_either(monkeypatch):
    monkeypatch.setattr(_hand_over, "successor_of", lambda *_: None)
    found = []

    class Beside(Hasty):
        def solve_rows(self, state, block):
            super().solve_rows(state, block)
            if threading.current_thread() is threading.main_thread() and not found:
                thread = threading.Thread(target=lambda: found.append(solver.solve(theta)))  # ends before this one
                thread.start()
                thread.join()

    theta = rows(3, 0.4)
    solver = mapgrad.get_solver(Beside, PROGRAM)
    found.append(solver.solve(theta))
    assert [each.status.tolist() for each in found] == [[Status.OPTIMAL] * 3] * 2


def test_a_slow_engine_makes_the_solver_patient():
    Engine.seconds = 0.05
    theta = rows(200, 1e-3)  # more than the patience at first, and less than a share of .05 s
    with mapgrad.get_solver("fake.hasty", PROGRAM) as solver:
        found = solver.solve(theta)
        assert found.stats["handed_over"] == 5, "one row to make it ready, and four to take the time"
        assert solver.solve(theta).stats["handed_over"] == 0
    assert [count for count, *_ in Engine.asked] == [1, 4]
    assert [count for count, *_ in Hasty.asked] == [200, 195, 200]
    torch.testing.assert_close(found.objective, best(theta), rtol=0, atol=1e-12)


def new_programs(count: int, height: int = 1) -> list[IntegerProgram]:
    """Programs of one size, each with coefficients of its own."""
    return [IntegerProgram(A_ub=[[2, 3, 4, 5 + number / 64]] * height, b_ub=[7] * height) for number in range(count)]


def test_what_the_other_solver_takes_is_learnt_for_new_problems_of_the_same_size():
    Engine.seconds = 0.05
    theta = rows(6, 1e-3)  # more than the patience at first, and less than a share of .05 s
    programs = new_programs(20)
    with mapgrad.get_solver("fake.hasty", None) as solver:
        found = solver.solve(theta, problems=programs[:6])
        assert found.stats["handed_over"] == 1
        for row, program in enumerate(programs[:6]):
            assert float(found.objective[row]) == pytest.approx(float(best(theta[row : row + 1], program)))
        assert solver.solve(theta, problems=programs[6:12]).stats["handed_over"] == 0
        assert solver.solve(rows(8, 0.4), problems=programs[12:]).stats["handed_over"] == 8, "they take longer yet"
        assert solver.solve(rows(2, 2e-4), problems=new_programs(2, height=2)).stats["handed_over"] == 1


def test_several_rows_of_a_new_problem_share_what_it_takes_to_make_the_other_solver_ready():
    Engine.seconds = 0.05
    with mapgrad.get_solver("fake.hasty", None) as solver:
        solver.solve(rows(1, 0.4), problems=new_programs(1))
        Engine.seconds = 0.0
        solver.solve(rows(100, 0.4), problems=[new_programs(2)[1]] * 100)
    assert Hasty.asked[1] == (100, None, 1e-4), "no row gets a share of what the other solver took for that one"
    assert [count for count, *_ in Engine.asked] == [1, 1, 4, 95]


def test_all_that_is_spent_on_rows_given_up_is_a_share_of_what_the_other_solver_takes(monkeypatch):
    monkeypatch.setattr(_hand_over, "_AT_ONCE", 0.0)
    with mapgrad.get_solver("fake.hasty", None) as solver:
        taken = 0.0
        for number, program in enumerate(new_programs(40)):
            Engine.seconds = 0.02 if number % 7 == 3 else 0.0
            began = time.perf_counter()
            assert solver.solve(rows(1, 0.9), problems=[program]).stats["handed_over"] == 1
            taken += time.perf_counter() - began
    spent = [patience for *_, patience in Hasty.asked]
    assert max(spent) > 1e-4
    assert sum(spent) < 0.05 * taken


def test_threads_may_hand_over_rows_of_new_problems_at_a_time():
    programs, theta = new_programs(48), rows(12, 0.4)
    with mapgrad.get_solver("fake.hasty", None) as solver, ThreadPoolExecutor(4) as threads:
        parts = [programs[start : start + 12] for start in range(0, 48, 12)]
        found = list(threads.map(lambda part: solver.solve(theta, problems=part), parts))
        assert solver.stats["handed_over"] == 48
    for part, solutions in zip(parts, found, strict=True):
        for row, program in enumerate(part):
            assert float(solutions.objective[row]) == pytest.approx(float(best(theta[row : row + 1], program)))


def test_a_time_limit_holds_for_both_together():
    theta = rows(3, 0.4)
    mapgrad.get_solver("fake.hasty", PROGRAM, time_limit=10.0)(theta)
    assert [seconds for _, seconds, _ in Engine.asked] == pytest.approx([9.75] * len(Engine.asked))
    Hasty.asked.clear()
    mapgrad.get_solver("fake.hasty", PROGRAM, time_limit=1e-8)(theta)
    assert Hasty.asked[-1] == (3, 1e-8, None), "the limit comes before the patience ends"


def test_under_a_short_time_limit_another_solver_is_looked_for_once(monkeypatch):
    looked, successor_of = [], _hand_over.successor_of
    monkeypatch.setattr(_hand_over, "successor_of", lambda *given: looked.append(given) or successor_of(*given))
    with mapgrad.get_solver("fake.hasty", None, time_limit=1e-8) as solver:
        for program in new_programs(5):
            assert solver.solve(rows(1, 0.4), problems=[program]).status.item() == Status.OPTIMAL
    assert len(looked) == 1


@pytest.mark.parametrize(("limit", "handed_over"), [(3.9 * SECONDS, 0), (4.1 * SECONDS, 3)])
def test_no_row_goes_to_an_engine_that_may_not_make_it_in_time(limit, handed_over):
    found = mapgrad.get_solver("fake.hasty", PROGRAM, time_limit=limit).solve(rows(3, 0.4))
    assert found.stats["handed_over"] == handed_over
    assert found.status.tolist() == [Status.OPTIMAL] * 3


@pytest.mark.filterwarnings("ignore:fake.hasty")
def test_after_a_row_that_ran_out_of_time_elsewhere_the_others_stay(monkeypatch):
    def run_out(_, state, block):
        Engine.asked.append((len(block), block.seconds, block.patience))
        time.sleep(block.seconds)
        block.status[:], block.z[:] = Status.TIME_LIMIT, np.nan

    monkeypatch.setattr(Engine, "solve_rows", run_out)
    theta = rows(6, 0.4)
    with mapgrad.get_solver("fake.hasty", PROGRAM, time_limit=0.1, on_error="nan") as solver:
        first, second = solver.solve(theta), solver.solve(theta)
    assert [count for count, *_ in Engine.asked] == [1]
    assert first.status.tolist() == [Status.TIME_LIMIT] + [Status.OPTIMAL] * 5
    torch.testing.assert_close(second.objective, best(theta), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:fake.hasty")
def test_rows_stay_where_another_solver_was_late_for_the_deadline():
    Engine.seconds = 0.3
    theta = rows(6, 0.4)
    with mapgrad.get_solver("fake.hasty", PROGRAM, deadline=0.1, on_error="nan") as solver:
        for _ in range(2):  # the first time it may have been made ready for that long
            assert (solver.solve(theta).status == Status.TIME_LIMIT).all()
        found = solver.solve(theta)
    assert found.stats["handed_over"] == 0
    torch.testing.assert_close(found.objective, best(theta), rtol=0, atol=1e-12)


def test_rows_with_problems_of_their_own_take_them_along():
    theta = rows(8, 0.4)
    theta[::3, 0] = 0.0
    problems = [PROGRAM.replace(row_upper=[side]) for side in (3, 5, 7, 9, 11, 14, 2, 0)]
    found = mapgrad.get_solver("fake.hasty", PROGRAM).solve(theta, problems=problems)
    assert found.stats["handed_over"] == 5
    for row, problem in enumerate(problems):
        assert problem.contains(found.z[row])
        assert float(found.objective[row]) == pytest.approx(float(best(theta[row : row + 1], problem)))


def test_forbidden_entries_and_workers_elsewhere():
    theta = rows(6, 0.4)
    theta[::2, 3] = -torch.inf
    expected = mapgrad.get_solver("fake.engine", PROGRAM).solve(theta)
    for workers in (None, 2):
        with mapgrad.get_solver("fake.hasty", PROGRAM, workers=workers) as solver:
            found = solver.solve(theta)
        assert found.stats["handed_over"] == 6
        assert found.z.equal(expected.z)


def test_what_the_other_solver_cant_do_either_is_told():
    class Broken(Engine):
        def solve_rows(self, state, block):
            raise ArithmeticError("no")

    mapgrad.unregister("fake")

    def solvers():
        return [
            mapgrad.SolverSpec("engine", Broken, (IntegerProgram,), cost=lambda _: 1e-9),
            mapgrad.SolverSpec("hasty", Hasty, (IntegerProgram,), cost=lambda _: 1.0),
        ]

    mapgrad.register(SimpleNamespace(mapgrad_solvers=mapgrad.hookimpl(solvers)), "fake")
    theta = rows(4, 0.4)
    theta[1, 0] = 0.0
    with pytest.raises(mapgrad.SolverCrashError) as failed:
        mapgrad.get_solver("fake.hasty", PROGRAM)(theta)
    assert failed.value.rows == (0, 2, 3)
    assert str(failed.value.solutions.causes[2]) == "no"
    assert failed.value.solutions.status[1] == Status.OPTIMAL
