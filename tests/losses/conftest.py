"""Small problems of several kinds, each with an exact solver and all of its states."""

from types import SimpleNamespace

import pytest
import torch

import mapgrad

CASES = {
    "k-subset": ("topk", mapgrad.KSubset(5, 2)),
    "assignment": ("scipy.assignment", mapgrad.Assignment(3, 3)),
    "knapsack": ("highs", mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0]], [8.0])),
    "tree": ("networkx.spanning_tree", mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)])),
}


@pytest.fixture(scope="session", params=CASES)
def case(request):
    """solver, problem, states [N, *shape] float64."""
    name, problem = CASES[request.param]
    with mapgrad.get_solver(name, problem) as solver:
        yield SimpleNamespace(solver=solver, problem=problem, states=mapgrad.exact.enumerate_states(problem))


def draw_rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def draw():
    return draw_rows


def values_of(states, theta):
    """⟨θ, z⟩ of all states, [*batch, N], differentiable."""
    batch = theta.shape[: theta.ndim - states.ndim + 1]
    return theta.reshape(*batch, -1).double() @ states.flatten(1).T


@pytest.fixture
def values():
    return values_of


@pytest.fixture(params=[(), (3,), (2, 3)], ids=str)
def batch(request):
    return request.param
