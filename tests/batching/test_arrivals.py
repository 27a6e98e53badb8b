"""Rows that arrive in chunks have the answers that they have all at once."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.batching import _arrivals

PROGRAM = mapgrad.IntegerProgram(A_ub=[[2, 3, 4, 5], [5, 1, 3, 2]], b_ub=[7, 8], upper=2)
SIDES = [[7, 8], [3, 8], [7, 4], [5, 5], [9, 9]]
GROUND = mapgrad.SpanningTree(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])


def in_threes(rows, workers):
    return [range(start, min(start + 3, len(rows))) for start in range(0, len(rows), 3)]


@pytest.fixture(params=[None, 2, "processes:1"], ids=str)
def both(request, monkeypatch):
    """Returns what a call finds with all rows at once, and with rows in chunks."""

    def ask(name, problem, call, **options):
        found = []
        for cut in (_arrivals.cut, in_threes):
            with (
                monkeypatch.context() as patch,
                mapgrad.get_solver(name, problem, workers=request.param, **options) as solver,
            ):
                patch.setattr(_arrivals, "cut", cut)
                found.append(call(solver))
        return found

    return ask


def utilities(count: int, n: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(count, n, generator=torch.Generator().manual_seed(0)).to(dtype)


def require_equal(one: mapgrad.Solutions, other: mapgrad.Solutions) -> None:
    for name in ("z", "status", "objective", "bound", "variables"):
        values, others = getattr(one, name), getattr(other, name)
        assert (values is None) == (others is None), name
        if values is not None:
            torch.testing.assert_close(values, others, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_values_and_variables(both, dtype):
    theta = utilities(11, 4, dtype)
    require_equal(*both("scipy.milp", PROGRAM, lambda solver: solver.solve(theta)))
    require_equal(*both("networkx", GROUND, lambda solver: solver.solve(utilities(10, 5, dtype))))


def test_rows_with_bounds_and_sides_of_their_own(both):
    theta = utilities(len(SIDES) * 3, 4)
    problems = [PROGRAM.replace(row_upper=side) for side in SIDES * 3]
    one, other = both("highs", PROGRAM, lambda solver: solver.solve(theta, problems=problems))
    require_equal(one, other)
    assert all(problem.contains(z) for problem, z in zip(problems, other.z, strict=True))


def test_forbidden_entries_and_a_start(both):
    theta = utilities(8, 5)
    theta[::2, 1] = -torch.inf
    require_equal(*both("networkx", GROUND, lambda solver: solver.solve(theta)))

    def gradient(solver):
        layer, leaf = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=2), seed=0), utilities(5, 4).requires_grad_()
        layer(leaf).square().sum().backward()
        return leaf.grad

    assert torch.equal(*both("highs", PROGRAM, gradient, reuse=True))


class Odd(mapgrad.InstanceSolver[mapgrad.KSubset, None]):
    """Fails in rows whose first utility is negative, one way or the other."""

    def solve(self, state, theta, request):
        if theta[1] > theta[2] and theta[0] < 0:
            raise ArithmeticError("too odd")
        return np.array([1.0, 0, 0]) if theta[0] > 0 else np.full(3, np.nan)


@pytest.mark.parametrize("call", ["solve", "__call__"])
def test_failing_rows_keep_their_numbers_and_the_others_their_values(monkeypatch, call):
    theta = torch.tensor([1.0, -0.2, 0.5, 0.75, -1.0, 0.25, 1.0]).unsqueeze(1) * torch.tensor([[1.0, 0.5, 0.25]])
    theta[4, 1] = 0.5
    found = []
    for cut in (_arrivals.cut, in_threes):
        monkeypatch.setattr(_arrivals, "cut", cut)
        with pytest.raises(mapgrad.RowsError) as caught:
            getattr(mapgrad.get_solver(Odd, mapgrad.KSubset(3, 1), merge=False), call)(theta)
        found.append(caught.value)
    one, other = found
    assert one.rows == other.rows == (1, 4)
    assert str(one) == str(other)
    assert {row: str(cause) for row, cause in one.solutions.causes.items()} == {
        row: str(cause) for row, cause in other.solutions.causes.items()
    }
    require_equal(one.solutions, other.solutions)
    assert other.solutions.objective[[0, 2, 3, 5, 6]].tolist() == theta[[0, 2, 3, 5, 6], 0].tolist()
