"""Each problem's integer program has its optima, at any θ of its domain."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapgrad.errors import InfeasibleError, UnsupportedProblemError
from mapgrad.problems import (
    Arborescence,
    Assignment,
    AsymmetricTravelingSalesman,
    Domain,
    GridShortestPath,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    Problem,
    Ranking,
    ShortestPath,
    SpanningTree,
    TravelingSalesman,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Maximise = Callable[[IntegerProgram, np.ndarray], tuple[float, np.ndarray] | None]

Edges = list[tuple[int, int]]


def thetas(problem: Problem, seed: int) -> np.ndarray:
    """Generic ones, ones with ties, zeros, and scales apart, in the problem's domain."""
    rng = np.random.default_rng(seed)
    batch = rng.normal(size=(9, *problem.shape))
    batch[2:4] = batch[2:4].round()
    batch[4] = 0
    batch[5] *= rng.random(problem.shape) < 0.5
    batch[6] *= 100
    batch[7] = -abs(batch[7])
    return np.asarray(problem.domain.clip(torch.as_tensor(batch)))


def assert_same_optima(problem: Problem, maximise: Maximise, seed: int = 0) -> None:
    program, states = problem.to_ilp(), np.asarray(problem.states())
    assert program.shape == problem.shape
    axes = tuple(range(1, states.ndim))
    for theta in thetas(problem, seed):
        utilities = program.embed(theta[None])[0]
        optimum, x = maximise(program.full(), utilities)
        assert optimum == pytest.approx((states * theta).sum(axis=axes).max(), abs=1e-7)
        z = program.extract(x.round()[None])
        before = z.copy()
        repaired = problem.repair(z)
        assert (z == before).all()
        assert problem.contains(torch.as_tensor(repaired)).all()
        assert (repaired * theta).sum() == pytest.approx(optimum, abs=1e-7)


def test_the_program_has_the_optima_of_the_problem(problem: Problem, maximise: Maximise) -> None:
    if isinstance(problem, IntegerProgram):
        assert problem.to_ilp() is problem
    assert_same_optima(problem, maximise)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Edges]:
    num_nodes = draw(st.integers(2, 6))
    node = st.integers(0, num_nodes - 1)
    return num_nodes, draw(st.lists(st.tuples(node, node), min_size=1, max_size=12))


@given(graphs(), st.sampled_from(["directed", "undirected", "tree", "matching", "maximum", "out"]), st.integers(0, 9))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_programs_of_random_graphs(maximise: Maximise, graph: tuple[int, Edges], kind: str, seed: int) -> None:
    num_nodes, edges = graph
    try:
        if kind == "tree":
            problem = SpanningTree(num_nodes, edges)
        elif kind == "out":
            problem = Arborescence(num_nodes, edges, 0)
        elif kind in ("matching", "maximum"):
            cardinality = "maximum" if kind == "maximum" else None
            problem = Matching(num_nodes, [(u, v) for u, v in edges if u != v] or [(0, 1)], cardinality=cardinality)
        else:
            problem = ShortestPath(num_nodes, edges, 0, 1, directed=kind == "directed")
    except InfeasibleError:
        return
    assert_same_optima(problem, maximise, seed)


@pytest.mark.parametrize("neighbors", [4, 8])
def test_the_programs_of_grids_with_free_cells(neighbors: int, maximise: Maximise) -> None:
    """Where cells cost nothing the flow runs in circles too; what is left after the repair is a path."""
    problem = GridShortestPath(4, 4, neighbors=neighbors)
    program, states = problem.to_ilp(), np.asarray(problem.states())
    rng = np.random.default_rng(0)
    for _ in range(12):
        theta = -rng.random((4, 4)) * (rng.random((4, 4)) < 0.3)
        _, x = maximise(program.full(), program.embed(theta[None])[0])
        z = program.extract(x.round()[None])
        repaired = problem.repair(z)
        assert problem.contains(torch.as_tensor(repaired)).all()
        assert (repaired * theta).sum() == pytest.approx((states * theta).sum((1, 2)).max(), abs=1e-9)


@pytest.mark.parametrize(
    "problem",
    [
        KSubset(6, 2),
        Ranking(3),
        Assignment(3),
        Assignment(2, 4),
        Matching(4, [(0, 1), (1, 2), (2, 3), (3, 0), (1, 0)]),
        Matching(5, [(0, 1), (1, 2), (2, 0), (2, 3), (1, 0)], cardinality="maximum"),
        SpanningTree(4, [(0, 1), (1, 2), (2, 3), (3, 0), (2, 2), (1, 0)]),
        Arborescence(4, [(0, 1), (1, 2), (2, 3), (3, 1), (2, 2), (1, 0), (0, 3), (0, 1)], 0),
        ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (1, 3)], 0, 3),
        Knapsack([[1, 2, 3, 4], [2, 1, 1, 2]], [6, 4]),
        TravelingSalesman(4),
        AsymmetricTravelingSalesman(4),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_the_program_has_the_same_feasible_set(problem: Problem) -> None:
    program = problem.to_ilp()
    assert sorted(program.states().flatten(1).tolist()) == sorted(problem.states().flatten(1).tolist())
    assert problem.domain is Domain.REAL


@pytest.mark.parametrize(
    "problem",
    [
        GridShortestPath(3, 3, neighbors=4),
        GridShortestPath(2, 2, start=(0, 1), goal=(0, 1)),
        ShortestPath(4, [(0, 1), (1, 2), (2, 1), (2, 3), (1, 3)], 0, 3),
        ShortestPath(4, [(0, 1), (1, 2), (2, 1), (2, 3), (1, 3)], 3, 0, directed=False),
    ],
    ids=repr,
)
def test_the_program_holds_all_paths(problem: Problem) -> None:
    assert problem.domain is Domain.NONPOSITIVE
    assert problem.to_ilp().contains(problem.states()).all()


def test_every_variable_of_a_program_is_integer(problem: Problem) -> None:
    """So that solvers of pure integer programs take it."""
    program = problem.to_ilp()
    if not isinstance(problem, IntegerProgram):
        assert program.integrality.all()
        assert np.isfinite(program.lower).all()
        assert np.isfinite(program.upper).all()
        assert (program.matrix.data % 1 == 0).all() or isinstance(problem, Knapsack)


def test_repair_of_a_grid_drops_what_is_apart_and_what_is_a_detour() -> None:
    problem = GridShortestPath(3, 4, neighbors=4)
    z = np.array(
        [
            [[1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1]],
            [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
            [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]],
            [[1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]],
        ],
        dtype=np.float64,
    )
    repaired = problem.repair(z)
    assert repaired[0].tolist() == [[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert repaired[1].sum() == 6
    assert problem.contains(torch.as_tensor(repaired)).tolist() == [True, True, True, False]
    assert (repaired[2:] == z[2:]).all()
    assert problem.repair(np.empty((0, 3, 4))).shape == (0, 3, 4)


def test_repair_of_a_graph_drops_cycles() -> None:
    edges = [(0, 1), (1, 3), (2, 4), (4, 2), (1, 1), (3, 1)]
    z = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0]], dtype=np.float64)
    for directed in (True, False):
        problem = ShortestPath(5, edges, 0, 3, directed=directed)
        assert problem.repair(z).tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 0, 1, 1, 0, 0]]
    backwards = ShortestPath(5, edges, 3, 0, directed=False)
    assert backwards.repair(z[:1]).tolist() == [[1, 1, 0, 0, 0, 0]]
    acyclic = ShortestPath(3, [(0, 1), (1, 2), (0, 2)], 0, 2)
    assert acyclic.repair(np.array([[1.0, 1, 0]])).tolist() == [[1, 1, 0]]


def test_repair_leaves_other_problems_alone() -> None:
    z = np.array([[1.0, 0, 0], [1, 1, 1]])
    assert KSubset(3, 1).repair(z) is z


def test_programs_grow_no_faster_than_their_problems() -> None:
    grid = GridShortestPath(30, 30).to_ilp()
    assert (grid.num_vars, len(grid.row_upper)) == (900 + 4 * 30 * 29 + 4 * 29 * 29, 1800)
    tree = SpanningTree(60, list(itertools.combinations(range(60), 2))).to_ilp()
    assert (tree.num_vars, len(tree.row_upper)) == (5 * 1770, 5 * 1770 + 2 * 60)
    tour = TravelingSalesman(30).to_ilp()
    assert (tour.num_vars, len(tour.row_upper)) == (3 * 435 + 4 * 29, 435 + 2 * 29 + 2 * 31)
    directed = AsymmetricTravelingSalesman(30).to_ilp()
    assert (directed.num_vars, len(directed.row_upper)) == (900 + 29 * 29, 3 * 30 + 2 * 29 * 29)


def test_a_spanning_tree_of_a_middling_graph(maximise: Maximise) -> None:
    rng = np.random.default_rng(0)
    edges = np.array([(node, node + 1) for node in range(24)] + rng.integers(0, 25, (60, 2)).tolist())
    program, theta = SpanningTree(25, edges).to_ilp(), rng.normal(size=(1, 84))
    graph = nx.MultiGraph()
    graph.add_edges_from((u, v, {"weight": weight}) for (u, v), weight in zip(edges.tolist(), theta[0], strict=True))
    best = nx.maximum_spanning_tree(graph).size(weight="weight")
    assert maximise(program.full(), program.embed(theta)[0])[0] == pytest.approx(best, abs=1e-7)


def test_a_problem_may_have_no_program() -> None:
    class Odd(KSubset):
        to_ilp = Problem.to_ilp

    with pytest.raises(
        UnsupportedProblemError, match=r"^Odd\(n=3, k=1\) stands for no integer program, so that only so"
    ):
        Odd(3, 1).to_ilp()
