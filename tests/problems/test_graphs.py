from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mapgrad.errors import InfeasibleError, ProblemError
from mapgrad.problems import Arborescence, Domain, Matching, Problem, SpanningTree

if TYPE_CHECKING:
    from collections.abc import Callable

Edges = list[tuple[int, int]]


def complete(n: int) -> Edges:
    return list(itertools.combinations(range(n), 2))


def multigraph(num_nodes: int, edges: Edges) -> nx.MultiGraph:
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(num_nodes))
    graph.add_edges_from(edges)
    return graph


def every_vector(length: int) -> Tensor:
    return torch.tensor(list(itertools.product((0, 1), repeat=length)))


def chosen(edges: Edges, z: Tensor) -> Edges:
    return [edge for edge, one in zip(edges, z.tolist(), strict=True) if one]


@st.composite
def graphs(draw: st.DrawFn, *, loops: bool) -> tuple[int, Edges]:
    num_nodes = draw(st.integers(1 if loops else 2, 5))
    node = st.integers(0, num_nodes - 1)
    edge = st.tuples(node, node).filter(lambda pair: loops or pair[0] != pair[1])
    return num_nodes, draw(st.lists(edge, min_size=1, max_size=8))


@given(graphs(loops=False), st.booleans())
@settings(max_examples=60, deadline=None)
def test_matchings_are_those_in_which_no_node_has_two_edges(graph: tuple[int, Edges], perfect: bool) -> None:
    num_nodes, edges = graph
    points = every_vector(len(edges))
    truth = []
    for z in points:
        ends = [node for edge in chosen(edges, z) for node in edge]
        truth.append(len(set(ends)) == len(ends) and (len(ends) == num_nodes or not perfect))
    if not any(truth):
        with pytest.raises(InfeasibleError, match="has no perfect matching"):
            Matching(num_nodes, edges, perfect=perfect)
        return
    problem = Matching(num_nodes, edges, perfect=perfect)
    assert problem.contains(points).tolist() == truth
    states = problem.states()
    assert sorted(states.tolist()) == sorted(points[torch.tensor(truth)].tolist())
    assert problem.kappa == states.sum(1).max()


@given(graphs(loops=False))
@settings(max_examples=60, deadline=None)
def test_matchings_of_maximum_cardinality_are_the_largest_of_all(graph: tuple[int, Edges]) -> None:
    num_nodes, edges = graph
    points, matchings = every_vector(len(edges)), Matching(num_nodes, edges).states()
    largest = matchings[matchings.sum(1) == matchings.sum(1).max()]
    problem = Matching(num_nodes, edges, cardinality="maximum")
    assert sorted(problem.states().tolist()) == sorted(largest.tolist())
    assert sorted(points[problem.contains(points)].tolist()) == sorted(largest.tolist())
    assert problem.constant_sums == {(0,): problem.kappa} == {(0,): largest[0].sum()}


@given(graphs(loops=True), st.data())
@settings(max_examples=60, deadline=None)
def test_arborescences_are_those_of_networkx(graph: tuple[int, Edges], data: st.DataObject) -> None:
    num_nodes, arcs = graph
    root = data.draw(st.integers(0, num_nodes - 1))
    points, truth = every_vector(len(arcs)), []
    for z in points:
        part = nx.MultiDiGraph(multigraph(num_nodes, []))
        part.add_edges_from(chosen(arcs, z))
        truth.append(nx.is_arborescence(part) and part.in_degree(root) == 0)
    if not any(truth):
        with pytest.raises(InfeasibleError, match=f"no path leads from the root, node {root}, to node "):
            Arborescence(num_nodes, arcs, root)
        return
    problem = Arborescence(num_nodes, arcs, root)
    assert problem.contains(points).tolist() == truth
    assert sorted(problem.states().tolist()) == sorted(points[torch.tensor(truth)].tolist())
    assert problem.domain is Domain.REAL


@given(graphs(loops=True))
@settings(max_examples=60, deadline=None)
def test_spanning_trees_are_the_trees_of_networkx(graph: tuple[int, Edges]) -> None:
    num_nodes, edges = graph
    points = every_vector(len(edges))
    truth = [nx.is_tree(multigraph(num_nodes, chosen(edges, z))) for z in points]
    if not any(truth):
        with pytest.raises(InfeasibleError, match="has no spanning tree"):
            SpanningTree(num_nodes, edges)
        return
    problem = SpanningTree(num_nodes, edges)
    assert problem.contains(points).tolist() == truth
    assert sorted(problem.states().tolist()) == sorted(points[torch.tensor(truth)].tolist())


@pytest.mark.parametrize(("n", "count"), [(2, 2), (3, 4), (4, 10), (6, 76), (8, 764)])
def test_matchings_of_complete_graphs_number_the_involutions(n: int, count: int) -> None:
    problem = Matching(n, complete(n))
    assert len(problem.states()) == count
    assert problem.kappa == n // 2
    assert problem.domain is Domain.REAL


@pytest.mark.parametrize("n", [2, 4, 6, 8, 10])
def test_perfect_matchings_of_complete_graphs_number_a_double_factorial(n: int) -> None:
    problem = Matching(n, complete(n), perfect=True)
    states = problem.states()
    assert len(states) == math.prod(range(1, n, 2))
    assert (states.sum(1) == n // 2).all()
    assert problem.kappa == n / 2


def test_kappa_of_a_matching_counts_what_can_be_matched() -> None:
    assert Matching(6, [(0, leaf) for leaf in range(1, 6)]).kappa == 1
    assert Matching(7, [(0, 1), (1, 2), (2, 0), (3, 4)]).kappa == 2


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_spanning_trees_of_complete_graphs_number_as_cayley_says(n: int) -> None:
    problem = SpanningTree(n, complete(n))
    states = problem.states()
    assert len(states) == n ** (n - 2)
    assert (states.sum(1) == n - 1).all()
    assert problem.kappa == n - 1
    assert problem.domain is Domain.REAL


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_arborescences_of_complete_graphs_number_as_cayley_says(n: int) -> None:
    problem = Arborescence(n, list(itertools.permutations(range(n), 2)), n - 1)
    states = problem.states()
    assert len(states) == n ** (n - 2)
    assert (states.sum(1) == n - 1).all()
    assert problem.kappa == n - 1


@pytest.mark.parametrize("seed", range(5))
def test_spanning_trees_number_as_kirchhoff_says(seed: int) -> None:
    n, rng = 7, np.random.default_rng(seed)
    edges = [(node, node + 1) for node in range(n - 1)]
    edges += [(int(u), int(v)) for u, v in rng.integers(0, n, (6, 2))]
    laplacian = np.zeros((n, n))
    for u, v in edges:
        laplacian[[u, v, u, v], [u, v, v, u]] += (1, 1, -1, -1) if u != v else 0
    assert len(SpanningTree(n, edges).states()) == round(np.linalg.det(laplacian[1:, 1:]))


def test_parallel_edges_are_distinct_edges() -> None:
    assert Matching(2, [(0, 1), (1, 0), (0, 1)]).states().tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert SpanningTree(2, [(0, 1), (1, 0)]).states().tolist() == [[1, 0], [0, 1]]
    assert Arborescence(2, [(0, 1), (1, 0), (0, 1)], 0).states().tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("single", [lambda edges: SpanningTree(1, edges), lambda arcs: Arborescence(1, arcs, 0)])
def test_a_single_node_has_one_tree_without_edges(single: Callable[[Edges], Problem]) -> None:
    problem = single([(0, 0), (0, 0)])
    assert problem.states().tolist() == [[0, 0]]
    assert problem.contains(torch.tensor([[0, 0], [1, 0]])).tolist() == [True, False]
    assert problem.kappa == 1


def test_long_sparse_graphs_need_no_recursion() -> None:
    chain = [(node, node + 1) for node in range(800)]
    assert SpanningTree(801, chain).states().tolist() == [[1.0] * 800]
    assert Arborescence(801, chain, 0).states().tolist() == [[1.0] * 800]
    assert Matching(800, chain[:-1], perfect=True).states().tolist() == [[1.0, 0.0] * 399 + [1.0]]


def test_large_sets_are_refused() -> None:
    with pytest.raises(ProblemError, match=r"cardinality=None\) has more than 100,000 states: too many to enumerate"):
        Matching(12, complete(12)).states()


@pytest.mark.parametrize(
    "problem",
    [
        Matching(14, complete(14)),
        Matching(14, complete(14), perfect=True),
        Matching(13, complete(13), cardinality="maximum"),
        SpanningTree(9, complete(9)),
        Arborescence(9, complete(9), 0),
    ],
    ids=["matching", "perfect", "maximum", "tree", "arborescence"],
)
def test_long_searches_are_refused(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapgrad.problems._base._STATES_STEPS", 12_345)
    with pytest.raises(ProblemError, match=r"×2 array>.* takes more than 12,345 steps to enumerate: make it smaller"):
        problem.states()
