"""The two searches of SCIP: a quick one, which gives up, and the full one after it."""

import numpy as np
import pytest
import torch
from ortools.linear_solver import pywraplp

import mapgrad
from mapgrad import Request, Status
from mapgrad_ortools import _mip
from mapgrad_ortools._mip import Mip


def knapsack(items: int, rows: int) -> mapgrad.Knapsack:
    weights = np.random.default_rng(0).integers(1, 100, (rows, items))
    return mapgrad.Knapsack(weights, weights.sum(axis=1) // 2)


def searches(monkeypatch: pytest.MonkeyPatch, code: int | None = None) -> list[bool]:
    """Note of each search by MPSolver whether it is a quick one; the first ends with a code, if one is given."""
    solve, put = pywraplp.Solver.Solve, pywraplp.Solver.SetSolverSpecificParametersAsString
    seen: list[bool] = []

    def set_parameters(solver: pywraplp.Solver, text: str) -> bool:
        seen.append("limits/totalnodes" in text)
        return put(solver, text)

    def ended(solver: pywraplp.Solver, *parameters: object) -> int:
        result = solve(solver, *parameters)
        return result if code is None or len(seen) > 1 else code

    monkeypatch.setattr(pywraplp.Solver, "SetSolverSpecificParametersAsString", set_parameters)
    monkeypatch.setattr(pywraplp.Solver, "Solve", ended)
    return seen


def test_what_a_quick_search_leaves_the_full_one_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mip, "_QUICK_NODES", 14)
    monkeypatch.setattr(_mip, "_FEWEST_NODES", 1)
    problem = knapsack(14, 3)
    theta = torch.rand((10, 14), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = searches(monkeypatch)
    z = mapgrad.get_solver("ortools.mip", problem, engine="scip")(theta)
    assert seen.count(True) == 10
    assert seen.count(False) >= 5
    best = (theta @ problem.states().T).amax(dim=1)
    torch.testing.assert_close((theta * z).sum(dim=1), best, rtol=0, atol=1e-9)


def test_a_small_program_is_searched_quickly_alone_and_a_large_one_fully_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = searches(monkeypatch)
    for items, expected in ((16, [True]), (600, [False])):
        solver = Mip(mapgrad.KSubset(items, 3).to_ilp(), engine="scip")
        z = solver.solve(solver.init(), np.arange(items) / items, Request()).z
        assert z is not None
        assert z.nonzero()[0].tolist() == [items - 3, items - 2, items - 1]
        assert seen == expected
        seen.clear()


def test_a_search_that_fails_is_followed_by_one_on_a_new_model(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Mip(knapsack(16, 2).to_ilp(), engine="scip")
    state = solver.init()
    first = state.program.native.natives["SCIP"]
    seen = searches(monkeypatch, pywraplp.Solver.ABNORMAL)
    assert solver.solve(state, np.ones(16), Request()).status == Status.OPTIMAL
    assert seen == [True, False]
    assert state.program.native.natives["SCIP"] is not first


def test_a_stop_in_a_quick_search_ends_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Mip(knapsack(16, 2).to_ilp(), engine="scip")
    state = solver.init()
    seen = searches(monkeypatch, pywraplp.Solver.FEASIBLE)
    solve = pywraplp.Solver.Solve

    def stopped(native: pywraplp.Solver, *parameters: object) -> int:
        solver.stop(state)
        return solve(native, *parameters)

    monkeypatch.setattr(pywraplp.Solver, "Solve", stopped)
    solution = solver.solve(state, np.ones(16), Request())
    assert solution.status == Status.TIME_LIMIT
    assert seen == [True]


def test_a_stop_in_the_full_search_leaves_the_quick_ones_point(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Mip(knapsack(16, 2).to_ilp(), engine="scip")
    state = solver.init()
    seen = searches(monkeypatch, pywraplp.Solver.FEASIBLE)
    put = pywraplp.Solver.SetSolverSpecificParametersAsString

    def stop_the_full_one(native: pywraplp.Solver, text: str) -> bool:
        result = put(native, text)
        if not seen[-1]:
            solver.stop(state)
        return result

    monkeypatch.setattr(pywraplp.Solver, "SetSolverSpecificParametersAsString", stop_the_full_one)
    solution = solver.solve(state, np.ones(16), Request())
    assert seen == [True, False]
    assert solution.status == Status.TIME_LIMIT
    assert solution.z is not None
    assert solver.problem.contains(torch.as_tensor(solution.z))
