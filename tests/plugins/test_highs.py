"""Programs by HiGHS: starts, models that keep nothing of a row, and the user's own HiGHS."""

from concurrent.futures import ThreadPoolExecutor

import highspy
import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Request
from mapgrad_highs._program import HiGHS


def knapsack(seed: int, items: int = 12, rows: int = 3) -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(seed).integers(1, 20, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


def test_a_start_is_not_taken_for_the_optimum() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[0.5, 1.25, 0, 2.5, 0.75, 0]], b_ub=[3.25], A_eq=[[1, 0, 1, 0, 1, 1]], b_eq=[2]
    )
    theta = np.array([-0.72, -0.37, -0.68, -0.3, -0.04, 0.11])
    solver = HiGHS(program)
    request = Request(np.array([0.0, 1, 0, 0, 1, 1]), reuse=True)
    solution = solver.solve(solver.init(), theta, request)
    assert solution.status is mapgrad.Status.OPTIMAL
    assert solution.z is not None
    assert solution.z.tolist() == [0, 0, 0, 0, 1, 1]


def test_five_hundred_rows_of_one_model_are_answered_as_by_fresh_ones() -> None:
    solver = HiGHS(knapsack(5, items=8, rows=2))
    kept = solver.init()
    for theta in np.random.default_rng(0).uniform(-0.5, 1, (500, 8)):
        fresh = solver.init()
        z = solver.solve(kept, theta, Request()).z
        assert z is not None
        np.testing.assert_array_equal(z, solver.solve(fresh, theta, Request()).z)
        solver.close(fresh)


@pytest.mark.parametrize("integrality", [0, 1])
def test_reuse_changes_no_objective(integrality: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, (3, 30))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 3, integrality=integrality)
    solver = HiGHS(program)
    state, model = solver.init(), solver.init()
    theta, start = rng.random(30), None
    for _ in range(10):
        theta = np.clip(theta + 0.05 * rng.standard_normal(30), -1, 1)
        found = solver.solve(model, theta, Request(start, reuse=True))
        assert found.z is not None
        expected = solver.solve(state, theta, Request()).z
        assert found.status is mapgrad.Status.OPTIMAL
        assert theta @ found.z == pytest.approx(theta @ expected, abs=1e-9)
        start = np.where(rng.random(30) < 0.5, found.z, np.nan)


def own_highs(threads: int) -> highspy.HighsStatus:
    highs = highspy.Highs()
    highs.silent()
    highs.setOptionValue("threads", threads)
    highs.addVar(0, 1)
    return highs.run()


def test_the_users_own_highs_may_use_other_numbers_of_threads() -> None:
    solver = mapgrad.get_solver("highs", knapsack(0))
    theta = torch.linspace(0.5, 1, 12)

    def take_turns(_: int) -> list[highspy.HighsStatus]:
        statuses = []
        for threads in (2, 3, 1):
            statuses.append(own_highs(threads))
            assert solver(theta).sum() > 0
        return statuses

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(take_turns, range(4))) == [[highspy.HighsStatus.kOk] * 3] * 4
