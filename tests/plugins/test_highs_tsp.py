"""Tours by HiGHS: no subtour is left, cuts serve later rows and don't pile up."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
from mapgrad import Request
from mapgrad.testing import parametrize_with_checks
from mapgrad_highs._model import Model
from mapgrad_highs._tours import BranchAndCut


def distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    tails, heads = np.triu_indices(len(points), 1)
    return np.hypot(*(points[tails] - points[heads]).T)


def held_karp(theta: NDArray[np.float64]) -> float:
    """The worth of the best directed tour: best[S, j] is that of a path from node 0 through the nodes of S to j."""
    last = len(theta) - 1
    best = np.full((1 << last, last), -np.inf)
    for node in range(last):
        best[1 << node, node] = theta[0, node + 1]
    for nodes in range(1, 1 << last):
        ahead = (best[nodes][:, None] + theta[1:, 1:]).max(axis=0)
        for node in range(last):
            if not nodes >> node & 1:
                best[nodes | 1 << node, node] = max(best[nodes | 1 << node, node], ahead[node])
    return float((best[-1] + theta[1:, 0]).max())


@parametrize_with_checks(
    [
        (BranchAndCut, mapgrad.TravelingSalesman(3)),
        (BranchAndCut, mapgrad.TravelingSalesman(6)),
        (BranchAndCut, mapgrad.AsymmetricTravelingSalesman(5)),
    ]
)
def test_conformance(check) -> None:
    check()


def test_far_apart_triangles_are_joined() -> None:
    corners = np.array([[0, 0], [1, 0], [0, 1]])
    points = np.concatenate([corners, corners + 20, corners + np.array([0, 20])])
    z = mapgrad.get_solver("highs.tsp", mapgrad.TravelingSalesman(9))(-torch.as_tensor(distances(points)))
    assert mapgrad.TravelingSalesman(9).contains(z)


def test_tours_are_as_good_as_those_of_the_flow_program() -> None:
    problem = mapgrad.TravelingSalesman(9)
    theta = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 36)))
    tours = mapgrad.get_solver("highs.tsp", problem).solve(theta)
    assert problem.contains(tours.z).all()
    torch.testing.assert_close(
        tours.objective, mapgrad.get_solver("highs.highs", problem).solve(theta).objective, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("n", range(2, 10))
def test_directed_tours_are_as_good_as_those_of_dynamic_programming(n: int) -> None:
    problem = mapgrad.AsymmetricTravelingSalesman(n)
    rng = np.random.default_rng(n)
    points = rng.random((4, n, 2))
    distances = np.hypot(*(points[:, :, None] - points[:, None]).transpose(3, 0, 1, 2))
    theta = np.concatenate(
        [rng.standard_normal((4, n, n)), rng.integers(-2, 3, (4, n, n)), 0.1 * rng.random((4, n, n)) - distances]
    )
    theta[::2, range(n), range(n)] = -np.inf
    solutions = mapgrad.get_solver("highs.tsp", problem).solve(torch.as_tensor(theta))
    assert problem.contains(solutions.z).all()
    assert solutions.objective.tolist() == pytest.approx([held_karp(row) for row in theta], abs=1e-9)


def test_directed_tours_keep_to_arcs_that_are_there() -> None:
    problem = mapgrad.AsymmetricTravelingSalesman(6)
    ring = torch.full((6, 6), -torch.inf).index_put((torch.arange(6), torch.arange(1, 7) % 6), torch.tensor(-1.0))
    broken = ring.clone()
    broken[2, 3], broken[2, 0] = -torch.inf, 5
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("highs.tsp", problem)(torch.stack([ring, broken]))
    assert refused.value.rows == (1,)
    assert refused.value.solutions.z[0].equal((ring == -1).float())


def test_any_tour_is_best_where_all_cost_the_same() -> None:
    problem = mapgrad.TravelingSalesman(12)
    z = mapgrad.get_solver("highs.tsp", problem)(torch.stack([torch.zeros(66), -torch.ones(66)]))
    assert problem.contains(z).all()
    problem = mapgrad.AsymmetricTravelingSalesman(12)
    z = mapgrad.get_solver("highs.tsp", problem)(torch.stack([torch.zeros(12, 12), -torch.ones(12, 12)]))
    assert problem.contains(z).all()


def test_cuts_found_for_one_row_serve_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    maximize = Model.maximize

    def counted(*args: object, **kwargs: object) -> object:
        runs.append(1)
        return maximize(*args, **kwargs)

    monkeypatch.setattr(Model, "maximize", counted)
    theta = -distances(np.random.default_rng(0).random((25, 2)))
    solver = BranchAndCut(mapgrad.TravelingSalesman(25))
    state = solver.init()
    first = solver.solve(state, theta, Request()).z
    assert len(runs) == 2
    again = solver.solve(state, theta, Request()).z
    assert len(runs) == 3
    np.testing.assert_array_equal(first, again)


def test_cuts_dont_pile_up() -> None:
    solver = BranchAndCut(mapgrad.TravelingSalesman(8))
    kept = solver.init()
    cuts = []
    for theta in np.random.default_rng(0).standard_normal((150, 28)):
        fresh = solver.init()
        z = solver.solve(kept, theta, Request()).z
        assert z is not None
        assert theta @ z == pytest.approx(theta @ solver.solve(fresh, theta, Request()).z, abs=1e-9)
        cuts.append(len(kept.cuts))
        solver.close(fresh)
    assert max(cuts) < 50
    assert min(np.diff(cuts)) < -20


def test_a_tour_out_of_time_is_not_optimal() -> None:
    theta = -torch.as_tensor(distances(np.random.default_rng(0).random((60, 2))))
    with pytest.raises(mapgrad.SolveTimeoutError):
        mapgrad.get_solver("highs.tsp", mapgrad.TravelingSalesman(60), time_limit=1e-9)(theta)
