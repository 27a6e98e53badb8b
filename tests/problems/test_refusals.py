"""Bad arguments are refused at construction, in words that say what was expected, what came and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from mapgrad.errors import InfeasibleError, MapgradError, ProblemError
from mapgrad.problems import (
    Arborescence,
    Assignment,
    AsymmetricTravelingSalesman,
    GridShortestPath,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    Problem,
    Ranking,
    ShortestPath,
    SpanningTree,
    SparseRows,
    TravelingSalesman,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES = [(0, 1), (1, 2), (2, 0)]
ASKING = torch.ones(2, 2, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KSubset(0, 1), "n must be an integer ≥ 1, got 0 (int)"),
        (lambda: KSubset(5.0, 1), "n must be an integer ≥ 1, got 5.0 (float)"),
        (lambda: KSubset("5", 1), "n must be an integer ≥ 1, got '5' (str)"),
        (lambda: KSubset(True, 1), "n must be an integer ≥ 1, got True (bool)"),
        (lambda: KSubset(np.bool_(True), 1), "n must be an integer ≥ 1, got "),
        (
            lambda: KSubset(5, 6),
            "k must be an integer from 1 to 5, got 6 (int): a subset of n = 5 items has at least 1 and at most 5",
        ),
        (lambda: KSubset(5, 0), "k must be an integer from 1 to 5, got 0 (int): a subset of n = 5 items"),
        (lambda: KSubset(5, -1), "k must be an integer from 1 to 5, got -1 (int)"),
        (lambda: KSubset(5, None), "k must be an integer from 1 to 5, got None (NoneType)"),
        (lambda: KSubset(5, np.float64(2)), "k must be an integer from 1 to 5, got "),
        (lambda: Ranking(0), "n must be an integer ≥ 1, got 0 (int)"),
        (lambda: Ranking(2.5), "n must be an integer ≥ 1, got 2.5 (float)"),
        (lambda: Assignment(0), "rows must be an integer ≥ 1, got 0 (int)"),
        (lambda: Assignment(3, 0), "cols must be an integer ≥ 1, got 0 (int)"),
        (lambda: Assignment(3, False), "cols must be an integer ≥ 1, got False (bool)"),
        (lambda: GridShortestPath(0, 3), "height must be an integer ≥ 1, got 0 (int)"),
        (lambda: GridShortestPath(3, 3.0), "width must be an integer ≥ 1, got 3.0 (float)"),
        (lambda: GridShortestPath(3, 3, neighbors=6), "neighbors must be 4 or 8, got 6"),
        (
            lambda: GridShortestPath(3, 3, neighbors="8"),
            "neighbors must be an integer from 4 to 8, got '8' (str): use 4 or 8",
        ),
        (lambda: GridShortestPath(3, 3, neighbors=[8]), "neighbors must be an integer from 4 to 8, got [8] (list)"),
        (lambda: GridShortestPath(3, 3, neighbors=8.0), "neighbors must be an integer from 4 to 8, got 8.0 (float)"),
        (
            lambda: GridShortestPath(3, 4, goal=(3, 0)),
            "goal's row must be an integer from 0 to 2, got 3 (int): goal must lie in the 3×4 grid",
        ),
        (
            lambda: GridShortestPath(3, 4, goal=(0, -1)),
            "goal's column must be an integer from 0 to 3, got -1 (int): goal must lie in the 3×4 grid",
        ),
        (lambda: GridShortestPath(3, 4, start=(0, 4)), "start's column must be an integer from 0 to 3, got 4 (int)"),
        (lambda: GridShortestPath(3, 4, start=(0.0, 1)), "start's row must be an integer from 0 to 2, got 0.0 (float)"),
        (lambda: GridShortestPath(3, 4, start=(0, 1, 2)), "start must be a pair (row, column), got (0, 1, 2)"),
        (lambda: GridShortestPath(3, 4, goal=7), "goal must be a pair (row, column), got 7"),
        (lambda: SpanningTree(0, EDGES), "num_nodes must be an integer ≥ 1, got 0 (int)"),
        (lambda: Matching(3.0, EDGES), "num_nodes must be an integer ≥ 1, got 3.0 (float)"),
        (
            lambda: SpanningTree(3, [(0, 1), (1, 3)]),
            "edge 1 is (1, 3), but the nodes of a graph with num_nodes=3 are 0..2",
        ),
        (lambda: Matching(3, [(-1, 1)]), "edge 0 is (-1, 1), but the nodes of a graph with num_nodes=3 are 0..2"),
        (lambda: Matching(3, np.array([[2**63, 0]], dtype=np.uint64)), "edge 0 is (9223372036854775808, 0), but"),
        (lambda: SpanningTree(3, [(0, 1, 2)]), "edges must have shape [E, 2], one pair of nodes for each edge, got"),
        (lambda: SpanningTree(3, [0, 1]), "one pair of nodes for each edge, got shape (2,)"),
        (lambda: Matching(3, torch.zeros(2, 3, dtype=torch.int64)), "edges must have shape [E, 2], one pair of nodes"),
        (lambda: ShortestPath(3, [(0, 1), (1,)], 0, 1), "edges must be pairs of nodes, as an array [E, 2] or a list"),
        (lambda: ShortestPath(3, 5, 0, 1), "as an array [E, 2] or a list of pairs, got 5"),
        (lambda: Matching(3, [(0.0, 1.0)]), "edges must hold integers, got dtype float64: number the nodes 0..2"),
        (lambda: Matching(3, np.ones((2, 2), dtype=bool)), "edges must hold integers, got dtype bool"),
        (lambda: Matching(3, [("a", "b")]), "edges must hold integers, got dtype <U1"),
        (lambda: SpanningTree(3, ASKING), "edges requires grad, but gradients reach θ only: pass edges.detach()"),
        (lambda: Knapsack(ASKING, [1, 1]), "weights requires grad, but gradients reach θ only: pass weights.detach()"),
        (lambda: Knapsack([[1, 1]], ASKING[0, :1]), "capacities requires grad, but gradients reach θ only"),
        (
            lambda: Knapsack(list(ASKING), [1, 1]),
            "weights must hold numbers: Can't call numpy() on Tensor that requires",
        ),
        (lambda: IntegerProgram(A_ub=ASKING, b_ub=[1, 1]), "A_ub requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram(A_ub=[[1], [1]], b_ub=ASKING[0]), "b_ub requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram.from_rows(ASKING, 0, 1), "matrix requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram.from_rows([[1], [1]], ASKING[0], 1), "row_lower requires grad, but gradients reach"),
        (lambda: IntegerProgram(upper=[1, 1]).replace(upper=ASKING[0]), "upper requires grad, but gradients reach θ"),
        (lambda: IntegerProgram(A_ub=[[1]], b_ub=[1]).replace(b_ub=ASKING[0][:1]), "b_ub requires grad, but gradien"),
        (lambda: IntegerProgram(A_eq=[[1], [1]], b_eq=ASKING[0]), "b_eq requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram(lower=ASKING[0]), "lower requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram(lower=[0, 0], upper=ASKING.sum()), "upper requires grad, but gradients reach θ only"),
        (lambda: IntegerProgram(lower=[0, 0], decision=[0], fixed=ASKING[0, :1]), "fixed requires grad, but gradients"),
        (lambda: SparseRows(ASKING[0], [0, 1], [0, 2], (1, 2)), "data requires grad, but gradients reach θ only"),
        (lambda: SparseRows.from_entries([0, 0], [0, 1], ASKING[0], (1, 2)), "values requires grad, but gradients"),
        (lambda: SpanningTree(3, torch.zeros(2, 2)), "edges must hold integers, got dtype float32"),
        (lambda: SpanningTree(1, []), "edges must hold at least one edge, got none: θ and z have one entry for each"),
        (lambda: SpanningTree(1, np.empty((0, 2), dtype=int)), "edges must hold at least one edge, got none"),
        (lambda: Matching(3, [(0, 1), (2, 2)]), "edge 1 joins node 2 to itself, and a matching has no such"),
        (lambda: Matching(3, EDGES, perfect=1), "perfect must be True or False, got 1 (int)"),
        (
            lambda: Matching(3, EDGES, cardinality="minimum"),
            "cardinality must be \"maximum\", or None for matchings of any size, got 'minimum'",
        ),
        (lambda: Arborescence(3, [(0, 3)], 0), "arc 0 is (0, 3), but the nodes of a graph with num_nodes=3 are 0..2"),
        (lambda: Arborescence(3, [], 0), "arcs must hold at least one arc, got none: θ and z have one entry for each"),
        (lambda: Arborescence(3, EDGES, 3), "root must be an integer from 0 to 2, got 3 (int): a node of the graph"),
        (lambda: ShortestPath(3, EDGES, 3, 0), "source must be an integer from 0 to 2, got 3 (int): a node"),
        (lambda: ShortestPath(3, EDGES, 0, -1), "target must be an integer from 0 to 2, got -1 (int): a node"),
        (lambda: ShortestPath(3, EDGES, 0, True), "target must be an integer from 0 to 2, got True (bool)"),
        (lambda: ShortestPath(3, EDGES, 0, 1, directed=None), "directed must be True or False, got None (NoneType)"),
        (lambda: Knapsack([[1, 2], [3]], [1, 1]), "weights must be numbers in a rectangular array, got [[1, 2], [3]]"),
        (lambda: Knapsack(["a"], 1), "weights must hold real numbers, got dtype <U1"),
        (lambda: Knapsack([1, float("nan")], 1), "weights must hold numbers, got NaN at [1]"),
        (lambda: Knapsack([], 1), "weights must have shape [constraints, items], both at least 1, got (1, 0)"),
        (lambda: Knapsack(np.ones((1, 1, 2)), 1), "weights must have shape [constraints, items], both at least 1"),
        (lambda: Knapsack(np.ones((2, 3)), 1), "capacities must hold one number for each of 2 constraints, got (1,)"),
        (
            lambda: Knapsack([1, -2], 1),
            "weights must be finite and ≥ 0, got -2; an IntegerProgram takes any coefficients",
        ),
        (lambda: Knapsack([1, 2], float("inf")), "capacities must be finite and ≥ 0, got inf"),
        (
            lambda: TravelingSalesman(2),
            "n must be an integer ≥ 3, got 2 (int): a tour of fewer nodes would use an edge twice",
        ),
        (
            lambda: AsymmetricTravelingSalesman(1),
            "n must be an integer ≥ 2, got 1 (int): a tour leads from a node to another one and back",
        ),
    ],
)
def test_malformed_arguments_are_refused(make: Callable[[], Problem], message: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ShortestPath(3, [(0, 1), (2, 1)], 0, 2),
            "directed=True) has no path from node 0 to node 2 (every edge leads from its first node to its second; ",
        ),
        (
            lambda: ShortestPath(3, [(0, 1)], 0, 2, directed=False),
            "source=0, target=2, directed=False) has no path from node 0 to node 2; add edges",
        ),
        (
            lambda: Matching(4, [(0, 1), (0, 2), (0, 3)], perfect=True),
            "has no perfect matching: at most 2 of 4 nodes can be matched; add edges or use perfect=False",
        ),
        (lambda: Matching(3, EDGES, perfect=True), "has no perfect matching: at most 2 of 3 nodes can be matched"),
        (
            lambda: SpanningTree(4, EDGES),
            "has no spanning tree: no path joins the nodes 0 and 3; add edges between them",
        ),
        (
            lambda: Arborescence(4, [(0, 1), (2, 0), (3, 2), (2, 2)], 0),
            "has no spanning arborescence: no path leads from the root, node 0, to node 2 (every arc leads from its",
        ),
    ],
)
def test_empty_feasible_sets_are_refused(make: Callable[[], Problem], message: str) -> None:
    with pytest.raises(InfeasibleError, match=re.escape(message)):
        make()


def test_both_kinds_of_refusal_are_value_errors_of_this_library() -> None:
    for error in (ProblemError, InfeasibleError):
        assert issubclass(error, MapgradError)
        assert issubclass(error, ValueError)


def test_a_problem_class_must_say_what_its_members_are() -> None:
    class Unfinished(KSubset):
        are_states = Problem.are_states

    with pytest.raises(NotImplementedError, match="Unfinished must implement is_state or are_states"):
        Unfinished(3, 1).contains(torch.tensor([1, 0, 0]))
