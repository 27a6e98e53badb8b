"""One solver under several domain policies: models, counts and workers are shared."""

import copy
import pickle

import pytest
import torch

import mapgrad

GRID = mapgrad.GridShortestPath(2, 3)


class Counted(mapgrad.InstanceSolver):
    """Looks at every state; counts its native models."""

    made = 0

    def init(self):
        type(self).made += 1

    def solve(self, state, theta, request):
        return mapgrad.exact.map_state(self.problem, torch.as_tensor(theta.copy())).numpy()


@pytest.fixture
def theta():
    return torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0)) - 0.5


def test_models_and_counts_are_shared(theta):
    Counted.made = 0
    with mapgrad.get_solver(Counted, GRID) as solver:
        strict = solver.under("raise")
        assert strict.under("clip").under("raise") is not solver
        assert solver.under("clip") is solver
        z = solver(theta)
        assert torch.equal(strict(theta.clamp(max=0)), z)
        with pytest.raises(mapgrad.DomainError) as caught:
            strict(theta)
        assert caught.value.rows
        assert Counted.made == 1
        assert strict.stats == solver.stats
        assert solver.stats["rows"] == 8
        assert torch.equal(solver(theta), z)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda solver: pickle.loads(pickle.dumps(solver))])
def test_copies_keep_the_policy(theta, copied):
    strict = copied(mapgrad.get_solver("networkx.shortest_path", GRID).under("raise"))
    with pytest.raises(mapgrad.DomainError):
        strict(theta)


@pytest.mark.parametrize("first", ["clip", "raise"])
def test_rows_with_problems_of_their_own(theta, first):
    problems = [GRID, mapgrad.GridShortestPath(2, 3, neighbors=4)] * 2
    with mapgrad.get_solver("networkx.shortest_path", None) as solver:
        solver.under(first)(-theta.abs(), problems)
        with pytest.raises(mapgrad.DomainError):
            solver.under("raise")(theta, problems)
        assert solver(theta, problems).shape == theta.shape
        assert solver.under("raise").stats == solver.stats


def test_under_transforms(theta):
    with mapgrad.get_solver("networkx.shortest_path", GRID) as solver:
        strict = solver.under("raise")
        assert torch.equal(torch.vmap(solver)(theta), solver(theta))
        with pytest.raises(mapgrad.DomainError):
            torch.vmap(strict)(theta)
