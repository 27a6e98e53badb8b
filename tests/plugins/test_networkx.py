"""What is particular to the NetworkX solvers: which coordinate is set, domains, models that keep nothing of a row."""

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

import mapgrad
from mapgrad_networkx._assignment import FullMatching
from mapgrad_networkx._edges import NodePairs
from mapgrad_networkx._matching import Blossom
from mapgrad_networkx._shortest_path import Dijkstra
from mapgrad_networkx._spanning_tree import Prim

TRIANGLE = [(0, 1), (1, 2), (2, 0)]
SOLVERS = [
    (Dijkstra, mapgrad.GridShortestPath(4, 4)),
    (Dijkstra, mapgrad.ShortestPath(3, [(0, 1), (0, 1), (1, 2), (0, 2)], 0, 2)),
    (Blossom, mapgrad.Matching(4, [*TRIANGLE, (2, 3), (3, 2)])),
    (Blossom, mapgrad.Matching(5, [*TRIANGLE, (2, 3), (3, 2), (3, 4)], cardinality="maximum")),
    (FullMatching, mapgrad.Assignment(3, 5)),
    (Prim, mapgrad.SpanningTree(4, [*TRIANGLE, (2, 3), (3, 2)])),
]


def readonly(row: ArrayLike) -> NDArray[np.float64]:
    theta = np.array(row, dtype=np.float64)
    theta.flags.writeable = False
    return theta


def answer(solver: mapgrad.InstanceSolver, *theta: ArrayLike) -> list[object]:
    state = solver.init()
    return [solver.solve(state, readonly(row), mapgrad.Request()).tolist() for row in theta]


def test_the_best_of_parallel_edges_is_found_for_each_pair() -> None:
    edges = np.array([(1, 0), (0, 1), (2, 1), (0, 1), (1, 2)])
    pairs = NodePairs(edges, directed=False)
    assert pairs.pairs == [(0, 1), (1, 2)]
    assert pairs.best_edges(np.array([1.0, 3.0, 2.0, 3.0, 5.0])) == [1, 4]
    pairs = NodePairs(edges, directed=True)
    assert pairs.pairs == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert pairs.best_edges(np.array([1.0, 2.0, 2.0, 3.0, 5.0])) == [3, 0, 4, 2]


def test_a_pair_of_one_edge_is_that_edge() -> None:
    pairs = NodePairs(np.array([(2, 1), (0, 1), (0, 2)]), directed=False)
    assert pairs.pairs == [(0, 1), (0, 2), (1, 2)]
    assert pairs.best_edges(np.zeros(3)) == [1, 2, 0]


def test_a_path_takes_the_cheapest_of_parallel_edges_and_no_other() -> None:
    problem = mapgrad.ShortestPath(3, [(0, 1), (0, 1), (1, 2), (0, 2), (1, 2)], 0, 2)
    assert answer(Dijkstra(problem), [-0.3, -0.1, -0.2, -0.9, -0.5], [-0.1, -0.2, -0.5, -0.9, -0.3]) == [
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1],
    ]


def test_directed_edges_lead_one_way() -> None:
    edges = [(1, 0), (1, 2), (0, 2)]
    costs = [-0.1, -0.1, -0.9]
    assert answer(Dijkstra(mapgrad.ShortestPath(3, edges, 0, 2)), costs) == [[0, 0, 1]]
    assert answer(Dijkstra(mapgrad.ShortestPath(3, edges, 0, 2, directed=False)), costs) == [[1, 1, 0]]


def test_on_a_dag_utilities_may_be_positive() -> None:
    problem = mapgrad.ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 3)], 0, 3)
    assert answer(Dijkstra(problem), [0.1, 0.1, 0.1, 0.2], [-0.5, 0.5, 0.5, 0.6]) == [[1, 1, 1, 0], [0, 0, 0, 1]]


def test_a_path_from_a_node_to_itself_is_empty_whatever_the_sign() -> None:
    problem = mapgrad.ShortestPath(3, [(0, 1), (1, 2)], 1, 1)
    assert answer(Dijkstra(problem), [-0.5, -0.5], [0.5, 0.5]) == [[0, 0], [0, 0]]


def test_a_grid_path_avoids_dear_cells_and_holds_both_ends() -> None:
    theta = [[-0.9, -0.9, -0.1], [-0.1, -0.9, -0.1], [-0.1, -0.1, -0.9]]
    around, across = [[1, 0, 0], [1, 0, 0], [1, 1, 1]], [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert answer(Dijkstra(mapgrad.GridShortestPath(3, 3, neighbors=4)), theta) == [around]
    assert answer(Dijkstra(mapgrad.GridShortestPath(3, 3, neighbors=8)), theta) == [across]


@pytest.mark.parametrize("neighbors", [4, 8])
def test_a_grid_path_is_as_cheap_as_value_iteration_says(neighbors: int) -> None:
    problem = mapgrad.GridShortestPath(12, 9, start=(3, 2), goal=(10, 8), neighbors=neighbors)
    costs = np.random.default_rng(0).random((20, 12, 9)) ** 4
    z = mapgrad.get_solver(Dijkstra, problem)(torch.as_tensor(-costs))
    assert problem.contains(z).all()
    assert np.allclose((costs * np.asarray(z)).sum(axis=(1, 2)), value_iteration(costs, (3, 2), neighbors)[:, 10, 8])


def value_iteration(costs: NDArray[np.float64], start: tuple[int, int], neighbors: int) -> NDArray[np.float64]:
    height, width = costs.shape[1:]
    reached = np.full(costs.shape, np.inf)
    reached[:, *start] = costs[:, *start]
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if neighbors == 8 or i == 0 or j == 0]
    for _ in range(height * width):
        padded = np.pad(reached, ((0, 0), (1, 1), (1, 1)), constant_values=np.inf)
        before = [padded[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in steps]
        reached = np.minimum(reached, np.min(before, axis=0) + costs)
    return reached


def test_free_cells_still_give_a_simple_path() -> None:
    problem = mapgrad.GridShortestPath(7, 7, start=(0, 3), goal=(6, 3))
    costs = np.random.default_rng(0).integers(0, 2, (200, 7, 7))
    assert problem.contains(mapgrad.get_solver(Dijkstra, problem)(-torch.as_tensor(costs, dtype=torch.float64))).all()


def test_a_matching_leaves_out_what_does_not_pay_unless_it_must_be_perfect() -> None:
    square = [(0, 1), (1, 2), (2, 3), (3, 0)]
    theta = [-0.1, -0.6, 0.5, -0.6]
    assert answer(Blossom(mapgrad.Matching(4, square)), theta) == [[0, 0, 1, 0]]
    assert answer(Blossom(mapgrad.Matching(4, square, perfect=True)), theta) == [[1, 0, 1, 0]]
    assert answer(Blossom(mapgrad.Matching(4, square, perfect=True)), [-0.6, -0.5, -0.6, -0.5]) == [[0, 1, 0, 1]]
    assert answer(Blossom(mapgrad.Matching(4, square)), [-0.6, -0.5, -0.6, -0.5]) == [[0, 0, 0, 0]]


def test_a_matching_of_maximum_cardinality_takes_what_does_not_pay_if_nodes_are_left() -> None:
    problem = mapgrad.Matching(5, [(0, 1), (1, 2), (2, 3), (2, 4), (1, 0)], cardinality="maximum")
    costs, few = [-0.5, 0.9, -0.4, -0.3, -0.6], [0, -0.1, -0.7, -0.8, -0.2]
    assert answer(Blossom(problem), costs, few) == [[1, 0, 0, 1, 0], [1, 0, 1, 0, 0]]
    theta = torch.tensor([[-torch.inf, 0.9, -torch.inf, -0.3, -0.6], [0, 0, -torch.inf, -torch.inf, 0]])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver(Blossom, problem)(theta)
    assert refused.value.rows == (1,)
    assert refused.value.solutions.z[0].tolist() == [0, 0, 0, 1, 1]


def test_a_matching_takes_the_best_of_parallel_edges_and_no_other() -> None:
    problem = mapgrad.Matching(4, [(0, 1), (1, 0), (2, 3), (3, 2), (1, 2)])
    assert answer(Blossom(problem), [0.1, 0.2, 0.5, 0.4, 0.6], [0.2, 0.2, -0.1, -0.5, 0.1]) == [
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]


def test_perfect_matchings_of_a_bipartite_graph_are_its_assignments() -> None:
    n = 12
    edges = [(row, n + column) for row in range(n) for column in range(n)]
    theta = torch.randn(20, n * n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matched = mapgrad.get_solver(Blossom, mapgrad.Matching(2 * n, edges, perfect=True)).solve(theta)
    assigned = mapgrad.get_solver(FullMatching, mapgrad.Assignment(n)).solve(theta.reshape(20, n, n))
    assert torch.equal(matched.z, assigned.z.reshape(20, n * n))
    torch.testing.assert_close(matched.objective, assigned.objective, rtol=0, atol=1e-12)


def test_the_smaller_side_of_an_assignment_is_used_up() -> None:
    theta = [[-0.5, -0.1, -0.9], [-0.5, -0.2, -0.3]]
    assert answer(FullMatching(mapgrad.Assignment(2, 3)), theta) == [[[0, 1, 0], [0, 0, 1]]]
    assert answer(FullMatching(mapgrad.Assignment(3, 2)), np.transpose(theta)) == [[[0, 0], [1, 0], [0, 1]]]


def test_a_tree_takes_the_best_of_parallel_edges_and_no_loop() -> None:
    problem = mapgrad.SpanningTree(3, [(0, 1), (1, 0), (1, 1), (1, 2), (0, 2)])
    assert answer(Prim(problem), [0.1, 0.2, 0.9, -0.5, -0.6], [0.2, 0.2, 0.9, 0.3, 0.4]) == [
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize(("solver", "problem"), SOLVERS)
def test_a_model_keeps_nothing_of_the_rows_before(
    solver: type[mapgrad.InstanceSolver], problem: mapgrad.Problem
) -> None:
    rows = -np.random.default_rng(0).integers(0, 3, (30, *problem.shape)) / 4
    instance = solver(problem)
    fresh = [answer(instance, row)[0] for row in rows]
    assert answer(instance, *rows) == fresh
    assert answer(instance, *rows[::-1]) == fresh[::-1]


@pytest.mark.parametrize(("solver", "problem"), SOLVERS)
def test_threads_give_the_answers_of_one(solver: type[mapgrad.InstanceSolver], problem: mapgrad.Problem) -> None:
    theta = -torch.rand(64, *problem.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with mapgrad.get_solver(solver, problem, workers=4) as threaded:
        assert torch.equal(threaded(theta), mapgrad.get_solver(solver, problem)(theta))


@pytest.mark.parametrize(("solver", "problem"), SOLVERS)
def test_threads_do_not_help_and_no_option_is_known(
    solver: type[mapgrad.InstanceSolver], problem: mapgrad.Problem
) -> None:
    assert solver.traits == mapgrad.Traits(releases_gil=False, scale_free=solver is Prim)
    with pytest.raises(TypeError, match=f"{solver.__name__} has no option 'method'"):
        solver(problem, method="slow")
