from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import torch

from mapgrad.errors import ProblemError, UndecidedError
from mapgrad.problems import Domain, GridShortestPath

Cell = tuple[int, int]


def grid_graph(problem: GridShortestPath) -> nx.Graph:
    graph = nx.grid_2d_graph(problem.height, problem.width)
    if problem.neighbors == 8:
        graph.add_edges_from(
            (cell, (cell[0] + 1, cell[1] + right))
            for cell in list(graph)
            for right in (-1, 1)
            if (cell[0] + 1, cell[1] + right) in graph
        )
    return graph


def simple_paths(problem: GridShortestPath) -> list[list[Cell]]:
    if problem.start == problem.goal:
        return [[problem.start]]
    return list(nx.all_simple_paths(grid_graph(problem), problem.start, problem.goal))


def cells_of(z: torch.Tensor) -> frozenset[Cell]:
    return frozenset((row, column) for row, column in z.nonzero().tolist())


def test_the_3_by_3_grid_has_62_sets_from_235_paths() -> None:
    problem = GridShortestPath(3, 3)
    assert len(simple_paths(problem)) == 235
    assert problem.states().shape == (62, 3, 3)


@pytest.mark.parametrize("neighbors", [4, 8])
@pytest.mark.parametrize("ends", list(itertools.product([(0, 0), (0, 1), (1, 1), (2, 2)], repeat=2)), ids=str)
def test_states_are_the_cell_sets_of_simple_paths(neighbors: int, ends: tuple[Cell, Cell]) -> None:
    problem = GridShortestPath(3, 3, start=ends[0], goal=ends[1], neighbors=neighbors)
    truth = {frozenset(path) for path in simple_paths(problem)}
    assert {cells_of(z) for z in problem.states()} == truth
    points = torch.tensor(list(itertools.product((0, 1), repeat=9))).reshape(-1, 3, 3)
    assert problem.contains(points).tolist() == [cells_of(z) in truth for z in points]


@pytest.mark.parametrize(("height", "width", "neighbors"), [(2, 6, 8), (7, 2, 4), (3, 4, 8), (4, 5, 4)])
def test_states_of_larger_grids(height: int, width: int, neighbors: int) -> None:
    problem = GridShortestPath(height, width, neighbors=neighbors)
    states = problem.states()
    assert {cells_of(z) for z in states} == {frozenset(path) for path in simple_paths(problem)}
    assert problem.contains(states).all()


def test_contains_decides_every_set_of_a_4_by_3_grid() -> None:
    problem = GridShortestPath(4, 3, start=(3, 0), goal=(0, 1))
    truth = {frozenset(path) for path in simple_paths(problem)}
    points = torch.tensor(list(itertools.product((0, 1), repeat=12))).reshape(-1, 4, 3)
    assert problem.contains(points).tolist() == [cells_of(z) in truth for z in points]


@pytest.mark.parametrize("neighbors", [4, 8])
def test_one_row_has_one_path(neighbors: int) -> None:
    problem = GridShortestPath(1, 2_000, neighbors=neighbors)
    assert problem.states().tolist() == [[[1.0] * 2_000]]
    assert problem.contains(torch.ones(1, 2_000)).item() is True
    assert problem.kappa == 2_000
    inner = GridShortestPath(5, 1, start=(3, 0), goal=(1, 0), neighbors=neighbors)
    assert inner.states().squeeze().tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("size", [1, 3])
def test_start_and_goal_in_one_cell_leave_that_cell(size: int) -> None:
    problem = GridShortestPath(size, size, start=(size - 1, 0), goal=(size - 1, 0))
    states = problem.states()
    assert [cells_of(z) for z in states] == [{(size - 1, 0)}]
    assert problem.contains(torch.ones(size, size)).item() is (size == 1)
    assert problem.kappa == 1


@pytest.mark.parametrize("side", [*range(1, 41), 100])
def test_kappa_of_a_square_is_that_of_the_paper(side: int) -> None:
    assert GridShortestPath(side, side).kappa == int(1.3 * side)


@pytest.mark.parametrize(
    ("problem", "kappa"),
    [
        (GridShortestPath(10, 10, neighbors=4), int(1.3 * 19)),
        (GridShortestPath(10, 20), int(1.3 * 20)),
        (GridShortestPath(10, 20, neighbors=4), int(1.3 * 29)),
        (GridShortestPath(30, 30, start=(5, 5), goal=(9, 2)), int(1.3 * 5)),
        (GridShortestPath(1, 20), 20),
        (GridShortestPath(2, 2, neighbors=4), 3),
    ],
    ids=repr,
)
def test_kappa_of_other_grids_grows_with_the_shortest_path(problem: GridShortestPath, kappa: float) -> None:
    assert problem.kappa == kappa


def test_theta_must_not_be_positive() -> None:
    assert GridShortestPath(3, 3).domain is Domain.NONPOSITIVE
    assert GridShortestPath(1, 4, neighbors=4).domain is Domain.NONPOSITIVE


@pytest.mark.parametrize("neighbors", [4, 8])
@pytest.mark.parametrize("free", [0.0, 0.6])
def test_shortest_paths_of_large_grids_are_recognised(neighbors: int, free: float) -> None:
    """With free cells an optimal path may touch itself, so that its cells can be visited in several orders."""
    rng, problem = np.random.default_rng(0), GridShortestPath(30, 30, neighbors=neighbors)
    graph, batch = grid_graph(problem), np.zeros((40, 30, 30))
    for z in batch:
        costs = np.maximum(rng.random((30, 30)) - free, 0)
        path = nx.dijkstra_path(graph, problem.start, problem.goal, weight=lambda u, v, _: costs[v])  # noqa: B023
        z[tuple(zip(*path, strict=True))] = 1
    z = torch.as_tensor(batch)
    assert problem.contains(z).all()
    z[:, 0, 29] = 1  # a detached cell
    assert not problem.contains(z).any()


def test_winding_paths_are_recognised() -> None:
    problem = GridShortestPath(9, 20, goal=(8, 19), neighbors=4)
    snake = torch.ones(9, 20)
    for row in range(1, 9, 2):
        snake[row] = 0
        snake[row, 19 if row % 4 == 1 else 0] = 1
    assert problem.contains(snake).item() is True
    snake[3, 7] = 1  # a bridge that no path through all cells can use, nor leave out
    assert problem.contains(snake).item() is False


def test_an_undecided_set_is_no_guess() -> None:
    problem = GridShortestPath(30, 30)
    with pytest.raises(UndecidedError, match=r"covers these 900 cells isn't known after 500,000 steps of search: Grid"):
        problem.contains(torch.ones(30, 30))


def test_the_states_of_a_4_by_4_grid_are_what_contains_accepts() -> None:
    problem = GridShortestPath(4, 4)
    states = problem.states()
    assert problem.contains(states).all()
    known = {cells_of(z) for z in states}
    sample = torch.randint(2, (3_000, 4, 4), generator=torch.Generator().manual_seed(0))
    sample[:, 0, 0] = sample[:, 3, 3] = 1
    assert problem.contains(sample).tolist() == [cells_of(z) in known for z in sample]


def test_large_sets_are_refused() -> None:
    with pytest.raises(ProblemError, match="takes more than 10,000,000 steps to enumerate: make it smaller"):
        GridShortestPath(6, 6).states()


@pytest.mark.parametrize("shape", [(30, 30), (2, 40)])
def test_long_searches_are_refused(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapgrad.problems._base._STATES_STEPS", 12_345)
    with pytest.raises(ProblemError, match="takes more than 12,345 steps to enumerate"):
        GridShortestPath(*shape).states()
