from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mapgrad.errors import InfeasibleError, ProblemError
from mapgrad.problems import Domain, ShortestPath

Edges = list[tuple[int, int]]


def multigraph(num_nodes: int, edges: Edges, directed: bool) -> nx.MultiDiGraph | nx.MultiGraph:
    graph = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.add_nodes_from(range(num_nodes))
    for number, (tail, head) in enumerate(edges):
        graph.add_edge(tail, head, key=number)
    return graph


def every_vector(length: int) -> Tensor:
    return torch.tensor(list(itertools.product((0, 1), repeat=length)))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Edges]:
    num_nodes = draw(st.integers(2, 5))
    node = st.integers(0, num_nodes - 1)
    return num_nodes, draw(st.lists(st.tuples(node, node), min_size=1, max_size=9))


@given(graphs(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_states_are_the_simple_paths_of_networkx(graph: tuple[int, Edges], directed: bool) -> None:
    num_nodes, edges = graph
    reference = multigraph(num_nodes, edges, directed)
    paths = [[key for *_, key in path] for path in nx.all_simple_edge_paths(reference, 0, 1)]
    if not paths:
        with pytest.raises(InfeasibleError, match="has no path from node 0 to node 1"):
            ShortestPath(num_nodes, edges, 0, 1, directed=directed)
        return
    truth = {tuple(float(edge in path) for edge in range(len(edges))) for path in paths}
    problem = ShortestPath(num_nodes, edges, 0, 1, directed=directed)
    assert sorted(problem.states().tolist()) == sorted(map(list, truth))
    points = every_vector(len(edges))
    assert problem.contains(points).tolist() == [tuple(z) in truth for z in points.tolist()]
    assert problem.kappa == nx.shortest_path_length(reference, 0, 1)
    acyclic = directed and nx.is_directed_acyclic_graph(reference)
    assert problem.domain is (Domain.REAL if acyclic else Domain.NONPOSITIVE)


def test_a_lattice_has_binomially_many_paths() -> None:
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(6, 5))
    problem = ShortestPath(30, graph.edges, 0, 29)
    assert len(problem.states()) == math.comb(9, 4)
    assert problem.kappa == 9
    assert problem.domain is Domain.REAL


def test_a_grid_has_its_edges_row_by_row() -> None:
    """As PyEPO numbers them: those of a row to the right, then those down from it."""
    edges = [(0, 1), (1, 2), (0, 3), (1, 4), (2, 5), (3, 4), (4, 5)]
    assert ShortestPath.on_grid(2, 3) == ShortestPath(6, edges, 0, 5)
    assert len(ShortestPath.on_grid(5, 4).states()) == math.comb(7, 3)
    with pytest.raises(ProblemError, match="height must be"):
        ShortestPath.on_grid(0, 3)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_paths_of_complete_graphs_number_the_partial_permutations(n: int) -> None:
    problem = ShortestPath(n, list(itertools.combinations(range(n), 2)), 0, n - 1, directed=False)
    assert len(problem.states()) == sum(math.perm(n - 2, inner) for inner in range(n - 1))
    assert problem.domain is Domain.NONPOSITIVE


def test_parallel_edges_are_distinct_and_loops_are_on_no_path() -> None:
    edges = [(0, 1), (0, 1), (1, 1), (1, 2)]
    problem = ShortestPath(3, edges, 0, 2)
    assert problem.states().tolist() == [[1, 0, 0, 1], [0, 1, 0, 1]]
    assert problem.contains(torch.tensor([[1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 1, 1]])).tolist() == [True, False, False]
    assert problem.domain is Domain.NONPOSITIVE
    assert ShortestPath(3, [(0, 1), (0, 1), (1, 2)], 0, 2).domain is Domain.REAL


def test_an_undirected_edge_is_open_both_ways() -> None:
    assert ShortestPath(3, [(1, 0), (2, 1)], 0, 2, directed=False).states().tolist() == [[1, 1]]


def test_a_path_beside_a_cycle_is_no_path() -> None:
    edges = [(0, 1), (2, 3), (3, 4), (4, 2)]
    for directed in (True, False):
        problem = ShortestPath(5, edges, 0, 1, directed=directed)
        assert problem.contains(torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])).tolist() == [True, False]


@pytest.mark.parametrize("directed", [True, False])
def test_from_a_node_to_itself_leads_only_the_empty_path(directed: bool) -> None:
    problem = ShortestPath(3, [(0, 1), (1, 0), (1, 2)], 1, 1, directed=directed)
    assert problem.states().tolist() == [[0, 0, 0]]
    assert problem.contains(torch.tensor([[0, 0, 0], [1, 1, 0]])).tolist() == [True, False]
    assert problem.kappa == 1


def test_long_paths_need_no_recursion() -> None:
    chain = [(node, node + 1) for node in range(3_000)]
    problem = ShortestPath(3_001, chain, 0, 3_000)
    assert problem.states().tolist() == [[1.0] * 3_000]
    assert problem.contains(torch.ones(3_000)).item() is True
    assert problem.kappa == 3_000


def test_long_searches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapgrad.problems._base._STATES_STEPS", 12_345)
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(30, 30))
    with pytest.raises(ProblemError, match=r"directed=False\) takes more than 12,345 steps to enumerate"):
        ShortestPath(900, graph.edges, 0, 899, directed=False).states()


def test_a_dead_end_of_any_size_costs_no_time() -> None:
    clique = [(u + 3, v + 3) for u, v in itertools.combinations(range(20), 2)]
    problem = ShortestPath(23, [(0, 1), (1, 2), (0, 3), *clique], 0, 2, directed=False)
    assert problem.states().tolist() == [[1.0, 1.0] + [0.0] * (1 + len(clique))]
