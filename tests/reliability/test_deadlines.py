"""A batch's deadline: what isn't finished is stopped, and `on_error` decides; what is finished keeps its answers."""

import math
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status

PROBLEM = mapgrad.KSubset(4, 1)
HANGS = 20.0
"""Seconds that a test waits for what doesn't end before it."""

over = threading.Event()


class Slow(mapgrad.InstanceSolver):
    """The largest entry; rows in which that is the first one hang."""

    def solve(self, state, theta, request):
        if theta.argmax() == 0:
            over.wait(HANGS)
        return np.eye(4)[theta.argmax()]


class Steady(mapgrad.InstanceSolver):
    """A whole row takes some time."""

    seconds = 0.2

    def solve(self, state, theta, request):
        time.sleep(self.seconds)
        return np.eye(4)[np.argsort(-theta)[: self.problem.k]].sum(axis=0)


class SlowToStart(mapgrad.InstanceSolver):
    """Its rows come all at once, as soon as a model is made."""

    traits = mapgrad.Traits(stoppable=True)

    def init(self):
        time.sleep(0.3)

    def solve_rows(self, state, block):
        block.z[:] = np.eye(4)[block.theta.argmax(axis=1)]

    def stop(self, state):
        pass


class SlowBatch(mapgrad.BatchSolver):
    def solve(self, theta):
        if (theta.argmax(dim=1) == 0).any():
            over.wait(HANGS)
        theta.add_(0)
        return torch.nn.functional.one_hot(theta.argmax(dim=1), 4).to(theta)


@pytest.fixture(autouse=True)
def _free():
    """End what was left behind."""
    over.clear()
    yield
    over.set()


def rows(*best):
    return 3 * torch.eye(4)[list(best)]


def in_time(call, *arguments, **named):
    """Call something that must end soon; its first failing rows may warn."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = call(*arguments, **named)
    assert time.perf_counter() - began < HANGS / 2
    return found


@pytest.mark.parametrize("workers", [None, 2])
def test_rows_that_hang_time_out_and_the_others_are_kept(workers):
    solver = mapgrad.get_solver(Slow, PROBLEM, workers=workers, deadline=0.3, on_error="nan")
    solutions = in_time(solver.solve, rows(3, 2, 1, 0))
    assert solutions.mask.tolist() == [True, True, True, False]
    assert solutions.status.tolist() == [1, 1, 1, Status.TIME_LIMIT]
    assert "deadline of 0.3 s" in str(solutions.causes[3])


def test_the_deadline_of_a_call_comes_before_that_of_the_solver():
    solver = mapgrad.get_solver(Slow, PROBLEM, deadline=2 * HANGS)
    for call in (solver, solver.solve, mapgrad.MAPLayer(solver, mapgrad.IMLE(None))):
        with pytest.raises(mapgrad.SolveTimeoutError, match=r"deadline of 0\.2 s") as failed:
            in_time(call, rows(3, 0), deadline=0.2)
        assert failed.value.rows == (1,)
    with pytest.raises(mapgrad.SolveTimeoutError):
        in_time(solver, rows(3, 0), [PROBLEM, mapgrad.KSubset(4, 1)], deadline=0.2)
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None), on_error="zero_grad")
    pending = layer.submit(rows(3, 0), deadline=0.2)
    assert in_time(pending.result).argmax(dim=1)[0] == 3
    assert layer.last.mask.tolist() == [True, False]


@pytest.mark.parametrize("workers", [None, 2])
def test_problems_of_their_own_share_one_deadline(workers):
    solver = mapgrad.get_solver(Steady, None, workers=workers, deadline=0.5, on_error="nan")
    theta, problems = rows(1, 2, 3, 0, 1, 2, 3, 0), [mapgrad.KSubset(4, 1 + row % 4) for row in range(8)]
    solutions = in_time(solver.solve, theta, problems)
    assert solutions.seconds < 8 * Steady.seconds
    assert set(solutions.status.tolist()) == {Status.OPTIMAL, Status.TIME_LIMIT}


def test_a_deadline_that_passes_while_a_model_is_made_is_no_error():
    with pytest.raises(mapgrad.SolveTimeoutError) as failed:
        in_time(mapgrad.get_solver(SlowToStart, PROBLEM, deadline=0.05), rows(1, 2))
    assert failed.value.solutions.status.tolist() == [Status.TIME_LIMIT] * 2


@pytest.mark.parametrize("how", ["returns", "raises", "raises for a row"])
@pytest.mark.parametrize("workers", [None, 2, "executor"])
def test_rows_that_a_block_leaves_as_it_is_stopped_ran_out_of_time(workers, how):
    """Even if it is back before anybody has called them late."""

    class Obedient(mapgrad.InstanceSolver):
        def init(self):
            return threading.Event()

        def solve_rows(self, state, block):
            if len(block) == 1:
                block.z[0] = np.eye(4)[block.theta[0].argmax()]
                return
            block.z[0] = np.eye(4)[block.theta[0].argmax()]
            if how == "raises for a row":
                block.row = 0
                state.wait(HANGS)
                raise ValueError("the first row")
            state.wait(HANGS)
            if how == "raises":
                raise ValueError("some row")

        def stop(self, state):
            state.set()

    with ThreadPoolExecutor(2) as executor:
        given = executor if workers == "executor" else workers
        solver = mapgrad.get_solver(Obedient, PROBLEM, workers=given, on_error="nan", merge=False)
        statuses = {int(Status.OPTIMAL)}
        while statuses == {Status.OPTIMAL}:  # rows come one by one until it is known how short they take
            statuses = {*in_time(solver.solve, rows(*[3] * 40), deadline=0.2).status.tolist()}
    named = how == "raises for a row"
    assert Status.TIME_LIMIT in statuses
    assert statuses <= {Status.OPTIMAL, Status.TIME_LIMIT, *([Status.ERROR] if named else [])}


@pytest.mark.parametrize("workers", [None, 2, "executor"])
def test_a_stop_that_hangs_holds_up_nobody(workers):
    class Stubborn(Slow):
        def stop(self, state):
            over.wait(HANGS)

    with ThreadPoolExecutor(2) as executor:
        given = executor if workers == "executor" else workers
        solver = mapgrad.get_solver(Stubborn, PROBLEM, workers=given, on_error="nan")
        assert in_time(solver.solve, rows(3, 0), deadline=0.2).status.tolist() == [1, Status.TIME_LIMIT]
        assert torch.equal(in_time(solver, rows(3, 2)), rows(3, 2) / 3)
        assert not over.is_set()


@pytest.mark.parametrize("solver", [SlowBatch, "function"])
def test_whole_batches_are_left_behind(solver):
    asked = torch.zeros(4, 4)

    def function(theta):
        asked.copy_(theta)
        return SlowBatch(PROBLEM).solve(theta)

    made = mapgrad.get_solver(function if solver == "function" else solver, PROBLEM, deadline=0.3, on_error="nan")
    theta = rows(3, 2, 1, 0)
    solutions = in_time(made.solve, theta)
    assert not solutions.mask.any()
    assert set(solutions.status.tolist()) == {Status.TIME_LIMIT}
    theta.fill_(7.0)  # the one that was left behind has its own
    if solver == "function":
        torch.testing.assert_close(asked, rows(3, 2, 1, 0))


def test_a_function_sees_torch_as_its_caller_does():
    seen = []

    def look(theta):
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        return torch.nn.functional.one_hot(theta.argmax(dim=1), 4).to(theta)

    solver = mapgrad.get_solver(look, PROBLEM, deadline=HANGS)
    with torch.autocast("cpu", torch.bfloat16):
        assert solver(rows(3)).argmax() == 3
    with torch.inference_mode():
        assert solver(rows(3)).argmax() == 3
    solver(rows(3))
    assert seen == [(False, True, False), (False, False, True), (False, False, False)]


def test_forward_and_backward_each_have_the_whole_deadline():
    class Steady(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            time.sleep(0.25)
            return np.eye(4)[theta.argmax()]

    layer = mapgrad.MAPLayer(
        mapgrad.get_solver(Steady, PROBLEM, deadline=0.6, merge=False), mapgrad.Blackbox(10.0), on_error="nan"
    )
    for _ in range(2):
        theta = rows(3).requires_grad_()
        (layer(theta) * torch.tensor([-1.0, 0.0, 0.0, 1.0])).sum().backward()
        assert theta.grad.any()
    assert layer.stats["unsolved"] == layer.stats["unsolved_backward"] == 0


def test_a_backward_pass_that_runs_out_of_time_gives_no_gradient():
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver(Slow, PROBLEM, deadline=0.3), mapgrad.Blackbox(100.0), on_error="zero_grad"
    )
    theta = rows(3, 2).requires_grad_()
    z = layer(theta)
    pull = torch.tensor([[-1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])  # to where rows hang; and away from 2
    in_time((z * pull).sum().backward)
    assert not theta.grad[0].any()
    assert layer.stats["unsolved_backward"] >= 1


def test_a_fallback_has_a_deadline_of_its_own():
    solver = mapgrad.get_solver(Slow, PROBLEM, deadline=0.3, on_error="fallback:topk")
    solutions = in_time(solver.solve, rows(3, 0))
    assert solutions.z.argmax(dim=1).tolist() == [3, 0]
    assert solutions.status.tolist() == [Status.OPTIMAL, Status.OPTIMAL]
    assert solver.stats["fallback"] == 1


def test_problems_of_their_own_share_the_deadline():
    solver = mapgrad.get_solver(Slow, None, deadline=0.3, on_error="nan")
    in_time(solver.solve, rows(3), [PROBLEM])
    problems = [PROBLEM, mapgrad.KSubset(4, 2), mapgrad.KSubset(4, 3)]
    began = time.perf_counter()
    solutions = in_time(solver.solve, rows(0, 0, 3), problems)
    assert time.perf_counter() - began < 3
    assert set(solutions.status[:2].tolist()) == {Status.TIME_LIMIT}


def test_deadlines_are_positive_and_not_traced():
    for wrong in (0, -1.0, "1"):
        with pytest.raises(ValueError, match="deadline must be None or a positive number of seconds"):
            mapgrad.get_solver(Slow, PROBLEM, deadline=wrong)
        with pytest.raises(ValueError, match="deadline must be None or a positive number of seconds"):
            mapgrad.get_solver(Slow, PROBLEM)(rows(3), deadline=wrong)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM))
    with pytest.raises(RuntimeError, match="deadline= of a call can't be traced"):
        torch.func.vmap(lambda theta: layer.eval()(theta, deadline=1.0))(rows(3, 2))
    bound = mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM, deadline=5.0)).eval()
    assert torch.func.vmap(bound)(rows(3, 2)).argmax(dim=1).tolist() == [3, 2]


@pytest.mark.parametrize("deadline", [math.inf, 1e308, threading.TIMEOUT_MAX])
@pytest.mark.parametrize(
    ("solver", "workers"), [(Slow, None), (Slow, 2), ("scipy.milp", "processes:1"), ("topk", None)]
)
def test_a_deadline_may_be_longer_than_any_wait(solver, workers, deadline):
    with mapgrad.get_solver(solver, PROBLEM, workers=workers, deadline=deadline) as made:
        assert in_time(made, rows(3, 2)).argmax(dim=1).tolist() == [3, 2]


@pytest.mark.parametrize("engine", ["highs", "ortools.cp_sat", "ortools.mip", "pulp.cbc", "pulp.highs", "scipy.milp"])
@pytest.mark.parametrize("limit", [math.inf, 1e308, 1e20])
def test_a_time_limit_may_be_longer_than_an_engine_counts(engine, limit):
    program = mapgrad.IntegerProgram(A_ub=[[3, 2, 4]], b_ub=[5])
    solver = mapgrad.get_solver(engine, program, time_limit=limit)
    assert solver(torch.tensor([0.3, 0.9, 0.4])).tolist() == [1, 1, 0]


def test_a_given_executor_keeps_the_deadline():
    with ThreadPoolExecutor(2) as executor:
        solver = mapgrad.get_solver(Slow, PROBLEM, workers=executor, deadline=0.3, on_error="nan")
        solutions = in_time(solver.solve, rows(3, 0, 2, 1))
        assert solutions.status.tolist() == [1, Status.TIME_LIMIT, 1, 1]
        assert "deadline of 0.3 s passed while it was solved" in str(solutions.causes[1])
        kept = solutions.z.clone()
        over.set()  # what was left behind answers now, to nobody
        assert executor.submit(int, "3").result() == 3
        assert torch.equal(solutions.z[[0, 2, 3]], kept[[0, 2, 3]])
        assert torch.equal(solver(rows(3, 0)), rows(3, 0) / 3)


def test_a_solver_that_can_be_stopped_is_stopped_in_a_given_executor():
    """As often as it takes, though the executor's threads are back when the deadline has passed."""

    class Deaf(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            heard.wait(HANGS)
            ended.set()
            return np.eye(4)[theta.argmax()]

        def stop(self, state):
            stops.append(state)
            if len(stops) == 3:
                heard.set()

    stops, heard, ended = [], threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as executor:
        solver = mapgrad.get_solver(Deaf, PROBLEM, workers=executor, deadline=0.05, on_error="nan")
        in_time(solver.solve, rows(3))
        assert ended.wait(5)
    heard.set()


def test_rows_that_hang_leave_a_given_executor_its_threads():
    executor = ThreadPoolExecutor(2)
    solver = mapgrad.get_solver(Slow, PROBLEM, workers=executor, deadline=0.5, on_error="nan")
    for _ in range(4):  # twice as many hang as there are threads
        assert in_time(solver.solve, rows(3, 0, 2, 1)).status.tolist() == [1, Status.TIME_LIMIT, 1, 1]
    in_time(executor.shutdown)  # as the program's end does, too
    assert not over.is_set()
