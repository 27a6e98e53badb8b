"""Rows solved by other workers: threads, processes and foreign executors."""

import multiprocessing
import re
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

import mapgrad

PROBLEM = mapgrad.GridShortestPath(4, 5)


def rows(*batch):
    return -torch.rand(*batch, 4, 5, generator=torch.Generator().manual_seed(0))


# Spawned workers import a solver's class by name, which they can't from a test file.
MODULE = '''
import os

import numpy as np

import mapgrad


class Deadly(mapgrad.InstanceSolver):
    """Kills its process on rows whose largest entry comes first."""

    def solve(self, state, theta, request):
        if np.argmax(theta) == 0:
            os._exit(3)
        return np.eye(len(theta))[np.argmax(theta)]


class Unsendable(mapgrad.InstanceSolver):
    """Raises an error that pickle refuses."""

    def solve(self, state, theta, request):
        error = ArithmeticError("at row level")
        error.held = lambda: None
        raise error
'''


@pytest.fixture(scope="module")
def harmful(import_source):
    return import_source("harmful_solvers", MODULE)


@pytest.fixture(scope="module")
def processes(harmful):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_every_way_of_running_gives_the_same_answers(processes):
    theta = rows(3, 7)
    expected = mapgrad.get_solver("networkx.shortest_path", PROBLEM)(theta)
    with ThreadPoolExecutor(2) as threads:
        for workers in (1, 2, 5, threads, processes):
            with mapgrad.get_solver("networkx.shortest_path", PROBLEM, workers=workers) as solver:
                for _ in range(2):
                    assert torch.equal(solver(theta), expected)
        assert threads.submit(int, "3").result() == 3  # a given executor stays open


def threads_beside(others):
    """Return how many threads of ours there are beside these."""
    ours = set(threading.enumerate()) - others
    return sum(re.fullmatch(r"mapgrad_\d+", thread.name) is not None for thread in ours)


def test_callers_share_one_pool():
    others = set(threading.enumerate())
    with mapgrad.get_solver("networkx.shortest_path", PROBLEM, workers=2) as solver:
        callers = [threading.Thread(target=solver, args=(rows(20),)) for _ in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert threads_beside(others) == 2
    assert threads_beside(others) == 0


def test_processes_by_number():
    with mapgrad.get_solver("networkx.shortest_path", PROBLEM, workers="processes:1") as solver:
        assert torch.equal(solver(rows(3)), mapgrad.get_solver("networkx.shortest_path", PROBLEM)(rows(3)))


def test_an_executor_that_runs_in_place():
    class Immediate(ThreadPoolExecutor):
        def submit(self, function, /, *arguments, **keywords):
            future = Future()
            future.set_result(function(*arguments, **keywords))
            return future

    with Immediate(1) as executor:
        solver = mapgrad.get_solver("networkx.shortest_path", PROBLEM, workers=executor)
        assert torch.equal(solver(rows(3)), mapgrad.get_solver("networkx.shortest_path", PROBLEM)(rows(3)))


def test_errors_come_back_from_a_process(processes, harmful):
    solver = mapgrad.get_solver(harmful.Unsendable, mapgrad.KSubset(3, 1), workers=processes)
    with pytest.raises(mapgrad.SolverCrashError, match="ArithmeticError: at row level") as caught:
        solver(torch.eye(3))
    assert caught.value.rows == (0, 1, 2)


def test_a_worker_that_dies_takes_only_unfinished_rows_along(harmful):
    solver = mapgrad.get_solver(harmful.Deadly, mapgrad.KSubset(3, 1), workers="processes:1")
    with pytest.raises(mapgrad.SolverCrashError, match=r"Deadly.*ended with exit code 3") as caught:
        solver(torch.eye(3)[[1, 2, 0]])
    assert caught.value.rows == (2,)
    assert isinstance(caught.value.__cause__, ChildProcessError)
    solver.close()


def test_an_open_pool_does_not_keep_the_interpreter_alive(run_program):
    script = (
        "import mapgrad, torch\n"
        "solver = mapgrad.get_solver('networkx.shortest_path', mapgrad.GridShortestPath(3, 3), workers=2)\n"
        "print(solver(-torch.ones(4, 3, 3)).sum().item())\n"
    )
    done = run_program(script, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "12.0\n", "")
