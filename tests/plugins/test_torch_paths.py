"""Paths by torch's operations: right by enumeration and by the compiled kernels, the same in any batch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mapgrad
from mapgrad.testing import parametrize_with_checks
from mapgrad_torch import _paths
from mapgrad_torch._paths import ShortestPaths

PARALLEL = [(0, 1), (0, 1), (1, 2), (0, 2), (2, 0), (2, 2)]
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


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


def draw(problem: mapgrad.Problem, count: int, seed: int) -> Tensor:
    """Normal θ, θ of few values, of many zeros, of zeros alone; most at a scale of their own, some with −inf."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, *problem.shape))
    for number in range(count):
        normal, few = rng.normal(size=problem.shape), rng.integers(-2, 3, problem.shape)
        sparse = np.where(rng.random(problem.shape) < 0.4, normal, 0.0)
        rows[number] = (normal, few, sparse, np.zeros(problem.shape), np.full(problem.shape, -1.0))[number % 5]
        rows[number] *= 10.0 ** rng.integers(-9, 10)
        if number % 3 == 2:
            rows[number][rng.random(problem.shape) < rng.choice([0.1, 0.4, 0.9])] = -np.inf
    return torch.as_tensor(rows if problem.domain is mapgrad.Domain.REAL else -np.abs(rows))


def require_best(problem: mapgrad.Problem, theta: Tensor) -> None:
    """Each answer is a state that attains the maximum over all states, or there is none without a forbidden entry."""
    states, rows = problem.states().flatten(1), theta.flatten(1)
    finite = rows.masked_fill(rows.isneginf(), 0.0)
    values = (finite @ states.T).masked_fill(rows.isneginf().double() @ states.T > 0, -torch.inf)
    best, has_state = values.amax(dim=1), values.amax(dim=1) > -torch.inf
    for device in DEVICES:
        found = ShortestPaths(problem).solve(theta.to(device))
        z = found.z.cpu().flatten(1)
        assert (found.status.cpu() == mapgrad.Status.OPTIMAL).equal(has_state)
        assert (found.status[~has_state.to(device)] == mapgrad.Status.INFEASIBLE).all()
        assert z[~has_state].isnan().all()
        assert problem.contains(z[has_state].reshape(-1, *problem.shape)).all()
        assert not z[has_state][rows[has_state].isneginf()].any()
        worth = (finite * z).sum(dim=1)[has_state]
        assert ((worth - best[has_state]).abs() <= 1e-12 * finite.abs().amax(dim=1)[has_state]).all()


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


@settings(max_examples=200, deadline=None, derandomize=True)
@given(graphs(), st.integers(0, 1000))
def test_paths_through_any_small_graph_are_best(problem: mapgrad.ShortestPath, seed: int) -> None:
    require_best(problem, draw(problem, 15, seed))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([4, 8]), st.data())
def test_paths_across_any_small_grid_are_best(height: int, width: int, neighbors: int, data: st.DataObject) -> None:
    assume(height * width <= 12)  # 16 cells make some ten thousand states
    cell = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    start, goal = data.draw(cell), data.draw(cell)
    problem = mapgrad.GridShortestPath(height, width, start=start, goal=goal, neighbors=neighbors)
    require_best(problem, draw(problem, 15, data.draw(st.integers(0, 1000))))


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
    mapgrad.ShortestPath(60, random_edges(60, 300), 3, 41),
    mapgrad.ShortestPath(60, random_edges(60, 200), 41, 3, directed=False),
    mapgrad.ShortestPath(60, random_edges(60, 300, acyclic=True), 2, 55),
    mapgrad.ShortestPath(200, [(0, node) for node in range(1, 200)] + [(node, 0) for node in range(1, 200)], 7, 9),
]


def answers(plugin: str, problem: mapgrad.Problem, theta: Tensor) -> Any:
    """Return what a solver says of all rows, of those too that have no path."""
    try:
        return mapgrad.get_solver(f"{plugin}.shortest_path", problem).solve(theta)
    except mapgrad.InfeasibleError as error:
        return error.solutions


@pytest.mark.parametrize("problem", LARGE, ids=str)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_large_problems_have_the_optima_of_the_compiled_kernels(problem: mapgrad.Problem, device: torch.device) -> None:
    theta = draw(problem, 40, 0)
    found, expected = answers("torch", problem, theta.to(device)), answers("compiled", problem, theta)
    scale = theta.masked_fill(theta.isneginf(), 0.0).flatten(1).abs().amax(dim=1)
    assert torch.equal(found.status.cpu(), expected.status)
    has_path = expected.status == mapgrad.Status.OPTIMAL
    assert has_path.sum() > 25
    apart = (found.objective.cpu() - expected.objective).abs()
    assert (apart <= 1e-12 * scale)[has_path].all()
    assert problem.contains(found.z.cpu()[has_path]).all()


@pytest.mark.parametrize("problem", LARGE, ids=str)
def test_an_answer_depends_on_nothing_but_its_row(problem: mapgrad.Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    theta, solver = draw(problem, 21, 1), ShortestPaths(problem)
    together = solver.solve(theta)
    for rows in ([*range(21)][::-1], [7], [4, 2, 4, 3, 9, 9, 18, 0]):
        some = solver.solve(theta[rows])
        assert torch.equal(some.z.nan_to_num(7.0), together.z[rows].nan_to_num(7.0))
    monkeypatch.setattr(_paths, "_NUMBERS", 1)  # each row on its own
    assert torch.equal(solver.solve(theta).z.nan_to_num(7.0), together.z.nan_to_num(7.0))


def test_of_paths_worth_the_same_the_one_of_the_first_edges_is_taken_backwards() -> None:
    problem = mapgrad.ShortestPath(4, [(0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (2, 3)], 0, 3)
    theta = torch.tensor([[1.0, 1, 1, 2, 1, 2, 1], [0.0] * 7])
    assert ShortestPaths(problem).solve(theta).z.tolist() == [[1, 0, 1, 0, 1, 0, 0]] * 2


@pytest.mark.parametrize("neighbors", [4, 8])
def test_cells_that_cost_nothing_make_no_detour(neighbors: int) -> None:
    problem = mapgrad.GridShortestPath(9, 7, neighbors=neighbors)
    theta = torch.zeros(3, 9, 7)
    theta[1, 4, :6] = -1
    theta[2, 4, :6] = -torch.inf
    cells = ShortestPaths(problem).solve(theta).z.sum(dim=(1, 2))
    straight, around = (9, 11) if neighbors == 8 else (15, 15)
    assert cells.tolist() == [straight, around, around]


def test_a_winding_path_takes_as_many_passes_as_it_has_cells() -> None:
    walls = torch.zeros(9, 9, dtype=torch.bool)
    walls[1::4, :8] = walls[3::4, 1:] = True
    theta = torch.full((1, 9, 9), -1.0).masked_fill(walls, -torch.inf)
    problem = mapgrad.GridShortestPath(9, 9, neighbors=4)
    assert torch.equal(ShortestPaths(problem).solve(theta).z[0] == 1, ~walls)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e299, 1e308])
@pytest.mark.parametrize("problem", LARGE, ids=str)
def test_no_utility_is_too_large_or_too_small(problem: mapgrad.Problem, scale: float) -> None:
    theta = np.random.default_rng(0).integers(-15, 16, (9, *problem.shape)) / 16  # sums of these are exact anywhere
    theta = theta if problem.domain is mapgrad.Domain.REAL else -np.abs(theta)
    scaled = torch.as_tensor(np.ldexp(theta, int(np.log2(scale))))
    solver = ShortestPaths(problem)
    assert torch.equal(solver.solve(torch.as_tensor(theta)).z, solver.solve(scaled).z)


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("edges", [[(1, 0)], [(0, 0)], [(0, 1), (1, 0)]])
def test_where_the_source_is_the_target_the_path_is_empty(directed: bool, edges: list[tuple[int, int]]) -> None:
    problem = mapgrad.ShortestPath(2, edges, 0, 0, directed=directed)
    found = ShortestPaths(problem).solve(torch.full((3, len(edges)), -1.0))
    assert not found.z.any()
    assert (found.status == mapgrad.Status.OPTIMAL).all()


@pytest.mark.parametrize("problem", LARGE[:1] + LARGE[4:5], ids=str)
def test_an_empty_batch_has_no_answers(problem: mapgrad.Problem) -> None:
    assert ShortestPaths(problem).solve(torch.zeros(0, *problem.shape)).z.shape == (0, *problem.shape)


def test_auto_leaves_it_to_be_named() -> None:
    problem = mapgrad.GridShortestPath(12, 12)
    assert mapgrad.get_solver("auto", problem).spec.factory != "mapgrad_torch._paths:ShortestPaths"
    theta = -torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(mapgrad.get_solver(name, problem)(theta) for name in ("torch.shortest_path", "auto")))
