"""Shortest paths by compiled kernels: right by enumeration and by the other solvers, the same in any block."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mapgrad
from mapgrad.testing import parametrize_with_checks
from mapgrad_compiled._paths import ShortestPaths
from mapgrad_compiled._search import Search
from mapgrad_networkx._shortest_path import Dijkstra as NetworkXDijkstra
from mapgrad_scipy._shortest_path import Dijkstra as SciPyDijkstra

PARALLEL = [(0, 1), (0, 1), (1, 2), (0, 2), (2, 0), (2, 2)]


def solve(problem: mapgrad.Problem, theta: NDArray[np.float64], most: int | None = None) -> mapgrad.Block:
    """Solve rows [m, *shape], where −inf forbids an entry, in one block, with at most so many rounds or sweeps."""
    rows = theta.reshape(len(theta), -1)
    forbidden = np.isneginf(rows)
    finite = np.where(forbidden, 0.0, rows)
    for each in (forbidden, finite):
        each.flags.writeable = False
    block = mapgrad.Block(finite, forbidden=forbidden if forbidden.any() else None)
    solver = ShortestPaths(problem)
    state = solver.init()
    if most is not None:
        state.most_rounds = state.most_sweeps = most
    solver.solve_rows(state, block)
    return block


def draw(problem: mapgrad.Problem, count: int, seed: int, *, forbids: bool = True) -> NDArray[np.float64]:
    """Normal θ, θ of few values, zeros among others, zeros alone; most at a scale of their own, some with −inf."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, *problem.shape))
    for number in range(count):
        normal, few = rng.normal(size=problem.shape), rng.integers(-2, 3, problem.shape)
        sparse = np.where(rng.random(problem.shape) < 0.4, normal, 0.0)
        rows[number] = (normal, few, sparse, np.zeros(problem.shape), np.full(problem.shape, -1.0))[number % 5]
        rows[number] *= 10.0 ** rng.integers(-9, 10)
        if forbids and number % 3 == 2:
            rows[number][rng.random(problem.shape) < rng.choice([0.1, 0.4, 0.9])] = -np.inf
    return rows if problem.domain is mapgrad.Domain.REAL else -np.abs(rows)


def require_best(problem: mapgrad.Problem, theta: NDArray[np.float64], most: int | None = None) -> None:
    """Each answer is a state that attains the maximum over all states, or there is none without a forbidden entry."""
    block = solve(problem, theta, most)
    states = problem.states().flatten(1).numpy()
    rows = theta.reshape(len(theta), -1)
    values = np.where(rows == -np.inf, 0.0, rows) @ states.T
    values[np.isneginf(rows).astype(float) @ states.T > 0] = -np.inf
    best = values.max(axis=1)
    has_state = best > -np.inf
    assert (block.status == np.where(has_state, mapgrad.Status.OPTIMAL, mapgrad.Status.INFEASIBLE)).all()
    assert np.isnan(block.z[~has_state]).all()
    z = block.z[has_state]
    assert problem.contains(torch.as_tensor(z.reshape(-1, *problem.shape))).all()
    assert not z[np.isneginf(rows[has_state])].any()
    scale = np.abs(np.where(np.isneginf(rows), 0, rows)).max(axis=1)[has_state]
    worth = (np.where(np.isneginf(rows), 0, rows)[has_state] * z).sum(axis=1)
    assert (np.abs(worth - best[has_state]) <= 1e-12 * scale).all()
    assert (np.abs(block.objective[has_state] - best[has_state]) <= 1e-12 * scale).all()


@parametrize_with_checks(
    [
        (ShortestPaths, mapgrad.GridShortestPath(3, 4, start=(1, 1))),
        (ShortestPaths, mapgrad.GridShortestPath(3, 3, neighbors=4)),
        (ShortestPaths, mapgrad.GridShortestPath(1, 9, start=(0, 4), goal=(0, 5))),
        (ShortestPaths, mapgrad.ShortestPath(3, PARALLEL, 0, 2)),
        (ShortestPaths, mapgrad.ShortestPath(3, PARALLEL, 0, 2, directed=False)),
        (ShortestPaths, mapgrad.ShortestPath(4, [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 0, 3)),
    ]
)
def test_conformance(check) -> None:
    check()


@st.composite
def graphs(draw_from: st.DrawFn) -> mapgrad.ShortestPath:
    """Graphs with parallel edges, edges from a node to itself, and nodes that lead nowhere; a third has no cycle."""
    count = draw_from(st.integers(1, 6))
    node = st.integers(0, count - 1)
    edges = draw_from(st.lists(st.tuples(node, node), min_size=1, max_size=10))
    kind = draw_from(st.sampled_from(["directed", "undirected", "acyclic"]))
    if kind == "acyclic":
        order = draw_from(st.permutations(range(count)))
        edges = [(order[min(pair)], order[max(pair)]) for pair in edges if pair[0] != pair[1]]
    source, target = draw_from(node), draw_from(node)
    try:
        return mapgrad.ShortestPath(count, edges, source, target, directed=kind != "undirected")
    except mapgrad.MapgradError:  # no path, or no edge
        return mapgrad.ShortestPath(count + 1, [*edges, (source, count)], source, count, directed=kind != "undirected")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(graphs(), st.integers(0, 1000), st.sampled_from([None, 0, 2]))
def test_paths_through_any_small_graph_are_best(problem: mapgrad.ShortestPath, seed: int, most: int | None) -> None:
    require_best(problem, draw(problem, 15, seed), most)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([4, 8]), st.data())
def test_paths_across_any_small_grid_are_best(height: int, width: int, neighbors: int, data: st.DataObject) -> None:
    assume(height * width <= 12)  # 16 cells make some ten thousand states
    cell = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    start, goal = data.draw(cell), data.draw(cell)
    problem = mapgrad.GridShortestPath(height, width, start=start, goal=goal, neighbors=neighbors)
    theta = draw(problem, 15, data.draw(st.integers(0, 1000)))
    require_best(problem, theta, data.draw(st.sampled_from([None, 3])))


def random_edges(num_nodes: int, count: int, *, acyclic: bool = False) -> list[tuple[int, int]]:
    """A path through all nodes, and random edges beside it."""
    rng = np.random.default_rng(num_nodes)
    pairs = rng.integers(num_nodes, size=(count, 2))
    if acyclic:
        pairs = np.sort(pairs, axis=1)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    return [*((node, node + 1) for node in range(num_nodes - 1)), *((u, v) for u, v in pairs.tolist())]


LARGE = [
    mapgrad.GridShortestPath(12, 12),
    mapgrad.GridShortestPath(15, 6, start=(14, 2), goal=(3, 5), neighbors=4),
    mapgrad.GridShortestPath(30, 30, start=(10, 11), goal=(12, 12)),
    mapgrad.GridShortestPath(1, 20, start=(0, 13), goal=(0, 2)),
    mapgrad.ShortestPath(60, random_edges(60, 300), 3, 41),
    mapgrad.ShortestPath(60, random_edges(60, 200), 41, 3, directed=False),
    mapgrad.ShortestPath(60, random_edges(60, 300, acyclic=True), 2, 55),
]


@pytest.mark.parametrize("problem", LARGE, ids=str)
@pytest.mark.parametrize("other", [SciPyDijkstra, NetworkXDijkstra])
def test_large_problems_have_the_optima_that_other_solvers_find(
    problem: mapgrad.Problem, other: type[mapgrad.InstanceSolver]
) -> None:
    theta = draw(problem, 30, 0, forbids=False)
    block = solve(problem, theta)
    expected = mapgrad.get_solver(other, problem).solve(torch.as_tensor(theta))
    scale = np.abs(theta).reshape(len(theta), -1).max(axis=1)
    assert problem.contains(torch.as_tensor(block.z.reshape(theta.shape))).all()
    assert (np.abs(block.objective - expected.objective.numpy()) <= 1e-12 * scale).all()
    worth = (block.z * theta.reshape(block.z.shape)).sum(axis=1)
    assert (np.abs(block.objective - worth) <= 1e-12 * scale).all()


@pytest.mark.parametrize("problem", LARGE, ids=str)
def test_an_answer_depends_on_nothing_but_its_row(problem: mapgrad.Problem) -> None:
    theta = draw(problem, 21, 1)
    together = solve(problem, theta)
    for rows in (np.arange(21)[::-1], np.array([7]), np.arange(8), np.array([4, 2, 4, 3, 9, 9, 18, 0, 4, 20, 13])):
        block = solve(problem, theta[rows])
        for name in ("z", "status", "objective"):
            assert np.array_equal(getattr(block, name), getattr(together, name)[rows], equal_nan=True)


def test_of_paths_worth_the_same_the_one_of_the_first_edges_is_taken_backwards() -> None:
    problem = mapgrad.ShortestPath(4, [(0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (2, 3)], 0, 3)
    theta = np.array([[1.0, 1, 1, 2, 1, 2, 1], [0.0] * 7])
    assert solve(problem, theta).z.tolist() == [[1, 0, 1, 0, 1, 0, 0]] * 2


def test_edges_that_cost_nothing_make_no_detour() -> None:
    problem = mapgrad.ShortestPath(5, [(0, 1), (1, 2), (2, 0), (1, 4), (2, 3), (3, 4), (2, 4)], 0, 4, directed=False)
    theta = np.zeros((2, 7))
    theta[1, [3, 6]] = -1
    assert solve(problem, theta).z.tolist() == [[1, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1, 0]]


@pytest.mark.parametrize("neighbors", [4, 8])
def test_cells_that_cost_nothing_make_no_detour(neighbors: int) -> None:
    problem = mapgrad.GridShortestPath(9, 7, neighbors=neighbors)
    theta = np.zeros((3, 9, 7))
    theta[1, 4, :6] = -1
    theta[2, 4, :6] = -np.inf
    cells = solve(problem, theta).z.sum(axis=1)
    straight, around = (9, 11) if neighbors == 8 else (15, 15)
    assert cells.tolist() == [straight, around, around]


def maze(side: int, seed: int) -> NDArray[np.bool_]:
    """Return which cells of a grid are walls, such that one winding path joins any two others."""
    half = (side + 1) // 2
    graph, rng = nx.grid_2d_graph(half, half), np.random.default_rng(seed)
    for edge in graph.edges:
        graph.edges[edge]["weight"] = rng.random()
    tree = nx.minimum_spanning_tree(graph)
    walls = np.ones((side, side), dtype=bool)
    walls[::2, ::2] = False
    for (row, column), (next_row, next_column) in tree.edges:
        walls[row + next_row, column + next_column] = False
    return walls


def spiral(side: int) -> NDArray[np.bool_]:
    """Return which cells of a grid are walls, such that a path winds from a corner to its centre."""
    walls = np.ones((side, side), dtype=bool)
    row, column = 0, -1
    lengths = [side, *(length for length in range(side - 1, 0, -2) for _ in range(2))]
    for turn, length in enumerate(lengths):
        down, right = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(length):
            row, column = row + down, column + right
            walls[row, column] = False
    return walls


@pytest.mark.parametrize("neighbors", [4, 8])
def test_mazes_are_left_to_dijkstra_where_sweeps_take_long(neighbors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    side, rng = 29, np.random.default_rng(0)
    walls = np.stack([spiral(side), maze(side, 0), np.zeros((side, side), dtype=bool), maze(side, 1), spiral(side)])
    problem = mapgrad.GridShortestPath(side, side, goal=(side // 2, side // 2), neighbors=neighbors)
    dear = np.where(walls, -1e3, -rng.random(walls.shape))
    dear[2] = -1
    theta = np.concatenate([dear, np.where(walls, -np.inf, dear)])
    left: list[int] = []
    search = Search.solve
    monkeypatch.setattr(Search, "solve", lambda self, rows, *rest: left.append(len(rows)) or search(self, rows, *rest))
    block = solve(problem, theta, most=8)
    assert left == [8]
    assert (block.status == mapgrad.Status.OPTIMAL).all()
    assert problem.contains(torch.as_tensor(block.z.reshape(theta.shape))).all()
    expected = mapgrad.get_solver(SciPyDijkstra, problem).solve(torch.as_tensor(theta)).objective.numpy()
    np.testing.assert_allclose(block.objective, expected, rtol=1e-12)


def test_winding_paths_are_left_to_dijkstra_where_rounds_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    count, rng = 40, np.random.default_rng(0)
    problem = mapgrad.ShortestPath(count, [(a, b) for a in range(count) for b in range(count)], 0, count - 1)
    tails, heads = problem.edges.T
    order = np.stack([rng.permutation(count) for _ in range(20)])
    theta = -np.where(abs(order[:, tails] - order[:, heads]) == 1, rng.random((20, count**2)), 1e3)
    theta[::2] = -1
    left: list[int] = []
    search = Search.solve
    monkeypatch.setattr(Search, "solve", lambda self, rows, *rest: left.append(len(rows)) or search(self, rows, *rest))
    block = solve(problem, theta)
    assert left == [10]
    expected = mapgrad.get_solver(SciPyDijkstra, problem).solve(torch.as_tensor(theta)).objective.numpy()
    np.testing.assert_allclose(block.objective, expected, rtol=1e-12)
    assert problem.contains(torch.as_tensor(block.z)).all()


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e299, 1e308])
@pytest.mark.parametrize("problem", [LARGE[0], LARGE[2], *LARGE[4:]], ids=str)
def test_no_utility_is_too_large_or_too_small(problem: mapgrad.Problem, scale: float) -> None:
    rng = np.random.default_rng(0)
    theta = rng.integers(-15, 16, (9, *problem.shape)) / 16  # sums of these are exact at any scale
    if problem.domain is not mapgrad.Domain.REAL:
        theta = -np.abs(theta)
    plain, scaled = solve(problem, theta), solve(problem, np.ldexp(theta, int(np.log2(scale))))
    assert np.array_equal(plain.z, scaled.z)
    with np.errstate(over="ignore"):
        assert np.array_equal(np.ldexp(plain.objective, int(np.log2(scale))), scaled.objective)


def test_large_and_forbidden_utilities_beside_each_other() -> None:
    problem = mapgrad.ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)], 0, 3)
    theta = np.array(
        [
            [-1.5e308, -1.5e308, 1.7e308, -1.4e308, -np.inf],
            [-1.5e308, -1.5e308, 1.7e308, -1.2e308, -np.inf],
            [1.5e308, 1.5e308, -1.7e308, 1.2e308, 0.0],
            [1.0, 1.0, -np.inf, -np.inf, -np.inf],
        ]
    )
    block = solve(problem, theta)
    assert block.status.tolist() == [1, 1, 1, 3]
    assert block.z[:3].tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 1]]


@pytest.mark.parametrize("directed", [True, False])
def test_where_the_source_is_the_target_the_path_is_empty(directed: bool) -> None:
    for edges in ([(1, 0)], [(0, 0)], [(0, 1), (1, 0)]):
        problem = mapgrad.ShortestPath(2, edges, 0, 0, directed=directed)
        block = solve(problem, np.full((3, len(edges)), -1.0))
        assert not block.z.any()
        assert block.objective.tolist() == [0, 0, 0]


def test_what_the_solver_promises() -> None:
    assert ShortestPaths.traits == mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)
    with pytest.raises(TypeError, match="ShortestPaths has no option 'method'"):
        ShortestPaths(LARGE[0], method="sweep")


@pytest.mark.parametrize("problem", LARGE, ids=str)
def test_auto_takes_it(problem: mapgrad.Problem) -> None:
    assert mapgrad.get_solver("auto", problem).spec.factory == "mapgrad_compiled._paths:ShortestPaths"
    infos = [info for info in mapgrad.list_solvers(problem) if info.plugin == "compiled"]
    assert [info.name for info in infos] == ["compiled.shortest_path"]
