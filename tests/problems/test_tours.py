from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch

from mapgrad.errors import ProblemError
from mapgrad.problems import AsymmetricTravelingSalesman, Domain, TravelingSalesman


@pytest.mark.parametrize("n", [3, 4, 5, 7, 8])
def test_tours_number_half_a_factorial(n: int) -> None:
    problem = TravelingSalesman(n)
    states = problem.states()
    assert problem.shape == (math.comb(n, 2),)
    assert states.shape == (math.factorial(n - 1) // 2, math.comb(n, 2))
    assert problem.contains(states).all()
    assert problem.kappa == n
    assert problem.domain is Domain.REAL


def test_edges_are_in_the_order_of_the_upper_triangle() -> None:
    problem = TravelingSalesman(4)
    assert problem.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert sorted(problem.states().tolist()) == [[0, 1, 1, 1, 1, 0], [1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        problem.edges[0] = 0


def test_contains_decides_every_set_of_five_edges_or_six() -> None:
    for n in (5, 6):
        problem = TravelingSalesman(n)
        points = np.zeros((math.comb(math.comb(n, 2), n), *problem.shape))
        truth = []
        for row, chosen in zip(points, itertools.combinations(range(len(problem.edges)), n), strict=True):
            row[list(chosen)] = 1
            graph = nx.Graph(problem.edges[list(chosen)].tolist())
            truth.append(len(graph) == n and nx.is_connected(graph) and {d for _, d in graph.degree} == {2})
        assert problem.contains(torch.as_tensor(points)).tolist() == truth
        assert sum(truth) == math.factorial(n - 1) // 2


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_directed_tours_number_a_factorial(n: int) -> None:
    problem = AsymmetricTravelingSalesman(n)
    states = problem.states()
    assert states.shape == (math.factorial(n - 1), n, n)
    assert problem.contains(states).all()
    assert problem.kappa == n
    assert problem.domain is Domain.REAL
    assert (states.sum(1) == 1).all()
    assert (states.sum(2) == 1).all()
    assert not states.diagonal(dim1=1, dim2=2).any()
    assert not any(bound.diag().any() for bound in problem.bounds)


def test_contains_decides_every_permutation_of_five_nodes() -> None:
    problem = AsymmetricTravelingSalesman(5)
    for order in itertools.permutations(range(5)):
        z = torch.eye(5)[list(order)]
        is_tour = len(next(iter(nx.simple_cycles(nx.DiGraph(enumerate(order)))))) == 5
        assert problem.contains(z).item() is is_tour
        z[0] = 1 - z[0]
        assert not problem.contains(z)


def test_large_sets_are_refused() -> None:
    with pytest.raises(ProblemError, match=r"TravelingSalesman\(n=10\) has more than 100,000 states"):
        TravelingSalesman(10).states()
    with pytest.raises(ProblemError, match=r"AsymmetricTravelingSalesman\(n=10\) has more than 100,000 states"):
        AsymmetricTravelingSalesman(10).states()
