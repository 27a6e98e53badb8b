"""What is particular to the SciPy solvers: zeros, signs, parallel edges, sizes, and how a program's search may end."""

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

import mapgrad
from mapgrad.testing import parametrize_with_checks
from mapgrad_networkx._assignment import FullMatching
from mapgrad_networkx._shortest_path import Dijkstra as NetworkXDijkstra
from mapgrad_networkx._spanning_tree import Prim
from mapgrad_scipy import _dags
from mapgrad_scipy._arborescence import Edmonds
from mapgrad_scipy._assignment import LinearSumAssignment
from mapgrad_scipy._graphs import sparse_graph
from mapgrad_scipy._milp import Milp
from mapgrad_scipy._shortest_path import Dijkstra
from mapgrad_scipy._spanning_tree import Kruskal

PARALLEL = [(0, 1), (0, 1), (1, 2), (0, 2), (2, 0), (2, 2)]
KNAPSACK = mapgrad.IntegerProgram(A_ub=[[5, 4, 3, 7], [1, 6, 4, 2]], b_ub=[11, 9])


def readonly(row: ArrayLike) -> NDArray[np.float64]:
    theta = np.array(row, dtype=np.float64)
    theta.flags.writeable = False
    return theta


def answer(solver: mapgrad.InstanceSolver, *theta: ArrayLike) -> list[object]:
    state = solver.init()
    return [solver.solve(state, readonly(row), mapgrad.Request()).tolist() for row in theta]


def solution(problem: mapgrad.IntegerProgram, theta: ArrayLike, seconds: float | None = None) -> mapgrad.Solution:
    solver = Milp(problem.full())
    return solver.solve(solver.init(), readonly(theta), mapgrad.Request(seconds=seconds))


@parametrize_with_checks(
    [
        (Dijkstra, mapgrad.GridShortestPath(3, 4, start=(1, 1))),
        (Dijkstra, mapgrad.ShortestPath(3, PARALLEL, 0, 2, directed=False)),
        (Dijkstra, mapgrad.ShortestPath(4, [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 0, 3)),
        (LinearSumAssignment, mapgrad.Assignment(3, 4)),
        (Kruskal, mapgrad.SpanningTree(3, PARALLEL)),
        (Edmonds, mapgrad.Arborescence(3, PARALLEL, 0)),
        (Edmonds, mapgrad.Arborescence(4, [*PARALLEL, (2, 3), (3, 1), (0, 3)], 2)),
        (Milp, KNAPSACK),
    ]
)
def test_conformance(check) -> None:
    check()


def test_a_graph_keeps_parallel_edges_and_zeros_apart() -> None:
    graph, edges = sparse_graph(3, np.array([1, 0, 1, 0]), np.array([2, 1, 2, 2]))
    assert edges.tolist() == [1, 3, 0, 2]
    assert graph.indptr.tolist() == [0, 2, 4, 4]
    assert graph.indices.tolist() == [1, 2, 2, 2]
    graph.data[:] = 0
    assert graph.nnz == 4


def test_edges_that_cost_nothing_are_used() -> None:
    edges = [(0, 1), (1, 2), (0, 2), (2, 1)]
    theta = [0.0, 0.0, -1e-300, 0.0]
    assert answer(Dijkstra(mapgrad.ShortestPath(3, edges, 0, 2)), theta) == [[1, 1, 0, 0]]
    assert answer(Kruskal(mapgrad.SpanningTree(3, edges)), theta, [0.0, -0.0, 0.0, 0.0]) == [[1, 1, 0, 0]] * 2


def test_a_path_takes_the_cheapest_of_parallel_edges_in_the_direction_it_goes() -> None:
    edges = [(0, 1), (0, 1), (1, 2), (0, 2), (1, 2), (2, 1)]
    costs = [[-0.3, -0.1, -0.2, -0.9, -0.5, -0.01], [-0.1, -0.2, -0.5, -0.9, -0.3, -0.01]]
    assert answer(Dijkstra(mapgrad.ShortestPath(3, edges, 0, 2)), *costs) == [[0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0]]
    undirected = Dijkstra(mapgrad.ShortestPath(3, edges, 0, 2, directed=False))
    assert answer(undirected, *costs) == [[0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1]]


def test_on_a_dag_utilities_may_be_positive() -> None:
    problem = mapgrad.ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 3)], 0, 3)
    assert answer(Dijkstra(problem), [0.1, 0.1, 0.1, 0.2], [-0.5, 0.5, 0.5, 0.6]) == [[1, 1, 1, 0], [0, 0, 0, 1]]


def test_a_dags_nodes_need_not_be_numbered_in_order_nor_all_be_joined() -> None:
    problem = mapgrad.ShortestPath(6, [(4, 1), (3, 4), (3, 1), (1, 0)], 3, 0)
    assert answer(Dijkstra(problem), [0.4, 0.3, 0.6, -0.9], [0.2, 0.3, 0.6, -0.9]) == [[1, 1, 0, 1], [0, 0, 1, 1]]


def test_a_grid_path_avoids_dear_cells_and_holds_both_ends() -> None:
    theta = [[-0.9, -0.9, -0.1], [-0.1, -0.9, -0.1], [-0.1, -0.1, -0.9]]
    around, across = [[1, 0, 0], [1, 0, 0], [1, 1, 1]], [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert answer(Dijkstra(mapgrad.GridShortestPath(3, 3, neighbors=4)), theta) == [around]
    assert answer(Dijkstra(mapgrad.GridShortestPath(3, 3, neighbors=8)), theta) == [across]


def test_cycles_within_cycles_are_entered_where_it_costs_least() -> None:
    problem = mapgrad.Arborescence(5, [(0, 1), (1, 2), (2, 1), (2, 3), (3, 4), (4, 1), (0, 4), (1, 3), (0, 1)], 0)
    far, near = [-9, 9, 9, 1, 5, 8, -6, 0, -8], [-9, 9, 9, 1, 5, 8, -6, 0, -2]
    solver = Edmonds(problem)
    answers = [solver.solve(solver.init(), readonly(theta), mapgrad.Request()).z for theta in (far, near)]
    assert np.stack(answers).tolist() == [[0, 1, 0, 1, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 0, 0, 1]]


def test_arborescences_of_middling_graphs_have_the_optima_that_networkx_finds_on_integers() -> None:
    problem = mapgrad.Arborescence(60, random_edges(60, 400), 0)
    theta = np.random.default_rng(0).integers(-1000, 1000, (8, len(problem.arcs)))
    theta[4:] -= 1000
    objectives = mapgrad.get_solver("scipy.arborescence", problem).solve(torch.as_tensor(theta) + 0.0).objective
    for weights, objective in zip(theta.tolist(), objectives.tolist(), strict=True):
        best: dict[tuple[int, int], int] = {}
        for (tail, head), weight in zip(problem.arcs.tolist(), weights, strict=True):
            if head not in (0, tail):
                best[tail, head] = max(weight, best.get((tail, head), weight))
        graph = nx.DiGraph()
        graph.add_weighted_edges_from((tail, head, weight) for (tail, head), weight in best.items())
        assert objective == nx.maximum_spanning_arborescence(graph).size("weight")


def test_forbidden_arcs_leave_no_way_to_a_node() -> None:
    problem = mapgrad.Arborescence(3, [(0, 1), (1, 2), (2, 1), (0, 2)], 0)
    inf = torch.inf
    theta = torch.tensor([[-inf, 1.0, 1, -5], [-inf, 1, 1, -inf], [1, 1, -inf, -inf], [1, -inf, 1, -inf]])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("scipy.arborescence", problem)(theta)
    assert refused.value.rows == (1, 3)
    assert refused.value.solutions.z[[0, 2]].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def random_edges(num_nodes: int, count: int, *, acyclic: bool = False) -> list[tuple[int, int]]:
    """A chain of all nodes and random edges: loops and parallel edges among them unless it must be acyclic."""
    pairs = np.random.default_rng(count).integers(0, num_nodes, (count, 2))
    if acyclic:
        pairs = np.sort(pairs, axis=1)[pairs[:, 0] != pairs[:, 1]]
    return [*((node, node + 1) for node in range(num_nodes - 1)), *((u, v) for u, v in pairs.tolist())]


@pytest.mark.parametrize(
    ("solver", "other", "problem"),
    [
        (Dijkstra, NetworkXDijkstra, mapgrad.GridShortestPath(12, 9, start=(3, 2), goal=(10, 8))),
        (Dijkstra, NetworkXDijkstra, mapgrad.GridShortestPath(9, 12, start=(8, 0), goal=(0, 11), neighbors=4)),
        (Dijkstra, NetworkXDijkstra, mapgrad.ShortestPath(40, random_edges(40, 200), 3, 30)),
        (Dijkstra, NetworkXDijkstra, mapgrad.ShortestPath(40, random_edges(40, 200), 30, 3, directed=False)),
        (Dijkstra, NetworkXDijkstra, mapgrad.ShortestPath(60, random_edges(60, 200, acyclic=True), 2, 55)),
        (Dijkstra, NetworkXDijkstra, mapgrad.ShortestPath(60, random_edges(60, 900, acyclic=True), 2, 55)),
        (Kruskal, Prim, mapgrad.SpanningTree(40, random_edges(40, 300))),
        (LinearSumAssignment, FullMatching, mapgrad.Assignment(15, 20)),
        (LinearSumAssignment, FullMatching, mapgrad.Assignment(20, 15)),
    ],
    ids=str,
)
def test_middling_problems_have_the_optima_that_networkx_finds(
    solver: type[mapgrad.InstanceSolver], other: type[mapgrad.InstanceSolver], problem: mapgrad.Problem
) -> None:
    rng = np.random.default_rng(0)
    mixed, costs = rng.standard_normal((8, *problem.shape)), -(rng.random((8, *problem.shape)) ** 4)
    theta = torch.as_tensor(np.concatenate([mixed, costs, -rng.integers(0, 3, (8, *problem.shape))]))
    found, expected = (mapgrad.get_solver(each, problem).solve(theta) for each in (solver, other))
    assert problem.contains(found.z).all()
    torch.testing.assert_close(found.objective, expected.objective, rtol=0, atol=1e-12)


def test_long_dags_are_solved_alike_with_and_without_a_positive_utility() -> None:
    problem = mapgrad.ShortestPath(60, random_edges(60, 900, acyclic=True), 0, 59)
    costs = -np.random.default_rng(0).random((20, *problem.shape))
    one_more = mapgrad.ShortestPath(61, [*problem.edges.tolist(), (0, 60)], 0, 59)
    aside = np.concatenate([costs, np.full((20, 1), 0.5)], axis=1)
    assert answer(Dijkstra(one_more), *aside) == [[*z, 0] for z in answer(Dijkstra(problem), *costs)]


@pytest.mark.parametrize(
    "problem",
    [
        mapgrad.ShortestPath(60, random_edges(60, 300, acyclic=True), 2, 55),
        mapgrad.ShortestPath(3, [(0, 1), (0, 1), (1, 2), (0, 2), (0, 2)], 0, 2),
        mapgrad.ShortestPath(5, [(4, 2), (2, 3), (2, 3), (3, 0), (2, 0)], 2, 0),
        mapgrad.ShortestPath(3, [(1, 0), (2, 1)], 0, 0),
    ],
    ids=str,
)
def test_many_rows_of_a_dag_go_the_ways_that_each_goes_alone(
    problem: mapgrad.ShortestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dags, "_MOST_ROWS", 40)
    rng = np.random.default_rng(0)
    few, mixed = rng.integers(-2, 3, (50, *problem.shape)), rng.standard_normal((50, *problem.shape))
    rows = readonly(np.concatenate([few, mixed]))
    solver = Dijkstra(problem)
    state = solver.init()
    assert state.dag.many < 100
    together, apart = mapgrad.Block(rows), [mapgrad.Block(row[None]) for row in rows]
    solver.solve_rows(state, together)
    state.dag.many = 2
    for block in apart:
        solver.solve_rows(state, block)
    assert together.z.tolist() == [block.z[0].tolist() for block in apart]
    assert problem.contains(torch.as_tensor(together.z)).all()


def test_a_program_of_integers_is_solved_to_optimality() -> None:
    assert solution(KNAPSACK, [0.5, 0.4, 0.3, 0.6]).z.tolist() == [0, 1, 0, 1]


def test_continuous_variables_keep_their_fractions_and_integer_ones_lose_them() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2, 3, 1]], b_ub=[4.5], upper=[1, np.inf, 2], integrality=[1, 0, 1])
    found = solution(program, [0.9, 0.3, -0.1])
    assert found.status is mapgrad.Status.OPTIMAL
    assert found.z[[0, 2]].tolist() == [1, 0]
    assert found.z[1] == pytest.approx(2.5 / 3, abs=1e-9)


def test_a_program_without_rows_takes_each_variable_to_its_better_bound() -> None:
    assert solution(mapgrad.IntegerProgram(lower=-1, upper=[2, 3]), [0.5, -0.5]).z.tolist() == [2, -1]


def test_optima_a_billionth_apart_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, (2, 8))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)
    theta = rng.integers(1, 5, (60, 8)) / 8 + rng.choice([-7e-9, -3e-9, 3e-9, 5e-9, 1e-8], (60, 8))
    found = mapgrad.get_solver(Milp, program).solve(torch.as_tensor(theta))
    best = (torch.as_tensor(theta) @ program.states().T).amax(dim=1)
    assert (best - found.objective).max() <= 1e-9


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (mapgrad.IntegerProgram(A_eq=[[1, 1]], b_eq=[7]), mapgrad.Status.INFEASIBLE),
        (mapgrad.IntegerProgram(A_eq=[[2, -2]], b_eq=[1], upper=np.inf), mapgrad.Status.INFEASIBLE),
        (mapgrad.IntegerProgram(A_eq=[[1, 1]], b_eq=[7], integrality=0), mapgrad.Status.INFEASIBLE),
        (mapgrad.IntegerProgram(upper=[np.inf, 1]), mapgrad.Status.UNBOUNDED),
        (mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[0], upper=np.inf), mapgrad.Status.UNBOUNDED),
        (mapgrad.IntegerProgram(upper=[np.inf, 1], integrality=0), mapgrad.Status.UNBOUNDED),
    ],
    ids=str,
)
def test_the_end_of_a_search_without_an_optimum_is_named(
    program: mapgrad.IntegerProgram, status: mapgrad.Status
) -> None:
    assert solution(program, [0.5, 0.75]) == mapgrad.Solution(None, status)


def test_a_time_limit_gives_the_best_solution_so_far_and_a_bound() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(50, 100, (20, 200))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)
    theta = rng.random(200)
    found = solution(program, theta, seconds=0.5)
    assert found.status is mapgrad.Status.TIME_LIMIT
    assert program.contains(torch.as_tensor(found.z))
    assert 0.9 < theta @ found.z / found.bound < 1
    assert solution(program, theta, seconds=0.0) == mapgrad.Solution(None, mapgrad.Status.TIME_LIMIT)


def served(large: float, *, outside: bool) -> tuple[mapgrad.IntegerProgram, np.ndarray]:
    """Five customers to be served by four sites, which open at a price, or also from outside; and utilities.

    Variables are the amounts from each site to each customer, which sites are open, and the amounts from outside.
    """
    demand = np.hstack([np.kron(np.eye(5), np.ones(4)), np.zeros((5, 4)), np.eye(5)])
    opening = np.hstack([np.kron(np.ones(5), np.eye(4)), -large * np.eye(4), np.zeros((4, 5))])
    program = mapgrad.IntegerProgram(
        A_ub=np.vstack([-demand, opening]),
        b_ub=[*[-1] * 5, *[0] * 4],
        upper=np.repeat([np.inf, 1, np.inf if outside else 0], [20, 4, 5]),
        integrality=np.repeat([0, 1, 0], [20, 4, 5]),
    )
    rng = np.random.default_rng(0)
    return program, -np.concatenate([0.1 * rng.random(20), 0.5 + 0.4 * rng.random(4), np.full(5, 0.9)])


@pytest.mark.parametrize("outside", [True, False])
def test_an_answer_that_is_integer_within_a_tolerance_only_is_not_taken_for_an_optimum(outside: bool) -> None:
    program, theta = served(5, outside=outside)
    best = theta @ solution(program, theta).z
    for large in (1e3, 1e5, 1e7):
        program, theta = served(large, outside=outside)
        found = solution(program, theta)
        assert found.status is mapgrad.Status.OPTIMAL
        assert program.contains(torch.as_tensor(found.z))
        assert theta @ found.z == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_block_of_assignments_is_answered_as_row_after_row(shape: tuple[int, int], count: int) -> None:
    solver = LinearSumAssignment(mapgrad.Assignment(*shape))
    rows = readonly(np.random.default_rng(0).integers(-2, 3, (count, *shape)))
    block = mapgrad.Block(rows.reshape(count, shape[0] * shape[1]))
    solver.solve_rows(None, block)
    assert block.z.reshape(rows.shape).tolist() == answer(solver, *rows)
    assert (block.status == mapgrad.Status.OPTIMAL).all()


@pytest.mark.parametrize("solver", [Dijkstra, LinearSumAssignment, Kruskal, Milp])
def test_what_the_solvers_promise(solver: type[mapgrad.InstanceSolver]) -> None:
    assert solver.traits == mapgrad.Traits(
        releases_gil=solver in (LinearSumAssignment, Milp),
        scale_free=solver is Kruskal,
        masks=solver is Milp,
        limits=solver is Milp,
    )
    with pytest.raises(TypeError, match=f"{solver.__name__} has no option 'method'"):
        solver(KNAPSACK, method="slow")
