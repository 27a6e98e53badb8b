"""Engines that another thread stops: within a second, with nothing unproved called a result, and the next row right."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
from mapgrad import Request, Status
from mapgrad_highs._program import HiGHS
from mapgrad_highs._tours import BranchAndCut
from mapgrad_ortools._cp_sat import CpSat
from mapgrad_ortools._knapsack import KnapsackSearch
from mapgrad_ortools._mip import Mip
from mapgrad_pulp._cbc import Cbc
from mapgrad_pulp._highs import HiGHS as PulpHiGHS
from mapgrad_scipy._milp import Milp


def hard_program() -> tuple[mapgrad.IntegerProgram, NDArray[np.float64]]:
    """A program that no engine solves within seconds, and utilities that make it hard."""
    weights = np.random.default_rng(3).integers(50, 100, (30, 100))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2), weights.mean(axis=0) / 128


def long_linear_program() -> tuple[mapgrad.IntegerProgram, NDArray[np.float64]]:
    """A dense linear program that keeps the simplex method busy for a second."""
    weights = np.random.default_rng(3).integers(50, 100, (600, 1200))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2, integrality=0)
    return program, weights.mean(axis=0) / 128


def long_tour() -> tuple[mapgrad.TravelingSalesman, NDArray[np.float64]]:
    """A tour among points of a grid, whose many equal distances take HiGHS some seconds."""
    problem = mapgrad.TravelingSalesman(120)
    ends = np.random.default_rng(0).integers(0, 12, (120, 2))[problem.edges]
    return problem, -np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) / 32


def solver_and_row(name: str) -> tuple[Any, NDArray[np.float64]]:
    """A solver, and a row that takes it half a second and more."""
    if name == "highs.tsp":
        tour, theta = long_tour()
        return BranchAndCut(tour), theta
    program, theta = long_linear_program() if name.endswith("linear") else hard_program()
    solvers: dict[str, Any] = {
        "highs": HiGHS,
        "highs linear": HiGHS,
        "ortools.cp_sat": CpSat,
        "ortools.mip scip": Mip,
        "ortools.mip linear": Mip,
        "pulp.highs": PulpHiGHS,
        "pulp.cbc": Cbc,
    }
    return solvers[name](program, **({"engine": "scip"} if name.endswith("scip") else {})), theta


each_engine = pytest.mark.parametrize(
    "name",
    [
        "highs",
        "highs linear",
        "highs.tsp",
        "ortools.cp_sat",
        "ortools.mip scip",
        "ortools.mip linear",
        "pulp.highs",
        "pulp.cbc",
    ],
)


def easy_row(problem: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Utilities of which the optimum is plain, and that optimum."""
    if not isinstance(problem, mapgrad.TravelingSalesman):
        return np.full(problem.shape, -0.5), np.zeros(problem.shape)
    gap = problem.edges[:, 1] - problem.edges[:, 0]
    tour = np.where((gap == 1) | (gap == problem.n - 1), 1.0, 0.0)
    return tour - 0.5, tour


@each_engine
@pytest.mark.parametrize("reuse", [False, True])
def test_a_stop_ends_a_row_within_a_second_and_spares_the_next(name: str, reuse: bool) -> None:
    solver, theta = solver_and_row(name)
    theta.flags.writeable = False
    state = solver.init()
    assert solver.traits.stoppable is not False
    solver.stop(state)  # nothing runs
    answers = []
    thread = threading.Thread(target=lambda: answers.append(solver.solve(state, theta, Request(reuse=reuse))))
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    stopped = time.monotonic()
    solver.stop(state)
    thread.join(30)
    assert time.monotonic() - stopped < 1
    (answer,) = answers
    assert answer.status is Status.TIME_LIMIT
    if answer.z is not None:
        assert solver.problem.contains(torch.as_tensor(answer.z))
        assert answer.bound is None or answer.bound >= theta @ answer.z
    solver.stop(state)  # nothing runs any more
    theta, optimum = easy_row(solver.problem)
    answer = solver.solve(state, theta, Request(reuse=reuse))
    assert answer.status is Status.OPTIMAL
    np.testing.assert_allclose(answer.z, optimum, rtol=0, atol=1e-9)
    solver.close(state)


@pytest.mark.parametrize("name", ["highs", "ortools.cp_sat", "ortools.mip scip", "pulp.highs"])
def test_a_row_that_was_stopped_keeps_its_best_state(name: str) -> None:
    solver, theta = solver_and_row(name)
    state = solver.init()
    timer = threading.Timer(1.0, solver.stop, [state])
    timer.start()
    answer = solver.solve(state, theta, Request())
    assert answer.status is Status.TIME_LIMIT
    assert theta @ answer.z > 28
    timer.join()


@each_engine
def test_a_stop_before_the_engine_begins_is_not_lost(name: str) -> None:
    solver, theta = solver_and_row(name)
    state = solver.init()

    class StopsOnTheWay:
        """A request that is read while the row is being prepared."""

        start, reuse, forbidden, limits = None, False, None, None

        @property
        def seconds(self) -> None:
            solver.stop(state)

    started = time.monotonic()
    answer = solver.solve(state, theta, StopsOnTheWay())
    assert time.monotonic() - started < 1
    assert (answer.z, answer.status) == (None, Status.TIME_LIMIT)


def test_what_cant_be_stopped_says_so_and_goes_on() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[3, 5, 7]], b_ub=[10])
    theta = np.array([0.25, 0.5, 0.75])
    for solver in (Mip(program, engine="cbc"), Milp(program), KnapsackSearch(mapgrad.Knapsack([[3, 5, 7]], [10]))):
        assert not solver.traits.stoppable
        state = solver.init()
        solver.stop(state)
        answer = solver.solve(state, theta, Request())
        assert (list(answer.z), answer.status) == ([1, 0, 1], Status.OPTIMAL)
