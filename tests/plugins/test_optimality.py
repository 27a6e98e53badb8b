"""Every solver of our plugins finds the optimum that enumeration finds, on rows of every kind."""

import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

import mapgrad
import mapgrad_compiled
import mapgrad_highs
import mapgrad_networkx
import mapgrad_ortools
import mapgrad_rustworkx
import mapgrad_scipy
import mapgrad_search
import mapgrad_topk

SPECS = {
    "topk": mapgrad_topk.mapgrad_solvers()[0],
    **{f"compiled.{spec.name}": spec for spec in mapgrad_compiled.mapgrad_solvers()},
    **{f"highs.{spec.name}": spec for spec in mapgrad_highs.mapgrad_solvers()},
    **{f"networkx.{spec.name}": spec for spec in mapgrad_networkx.mapgrad_solvers()},
    **{f"ortools.{spec.name}": spec for spec in mapgrad_ortools.mapgrad_solvers()},
    **{f"rustworkx.{spec.name}": spec for spec in mapgrad_rustworkx.mapgrad_solvers()},
    "search": mapgrad_search.mapgrad_solvers()[0],
    **{f"scipy.{spec.name}": spec for spec in mapgrad_scipy.mapgrad_solvers()},
}


def solver_class(name: str) -> type:
    module, _, attribute = str(SPECS[name].factory).partition(":")
    return getattr(importlib.import_module(module), attribute)


K4 = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
PARALLEL = [(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (1, 3)]
DAG = [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (0, 4), (4, 5), (3, 5)]
PETERSEN = [
    *((node, (node + 1) % 5) for node in range(5)),
    *((node, node + 5) for node in range(5)),
    *((node + 5, (node + 2) % 5 + 5) for node in range(5)),
]

PROBLEMS = [
    *(mapgrad.KSubset(n, k) for n, k in [(1, 1), (5, 1), (7, 3), (7, 6), (4, 4)]),
    *(mapgrad.Ranking(n) for n in [1, 2, 6]),
    *(
        mapgrad.GridShortestPath(*size, start=start, goal=goal, neighbors=neighbors)
        for neighbors in (4, 8)
        for size, start, goal in [
            ((1, 1), (0, 0), None),
            ((1, 5), (0, 4), (0, 1)),
            ((3, 3), (0, 0), None),
            ((3, 4), (2, 0), (0, 3)),
            ((3, 4), (1, 1), (1, 2)),
            ((3, 3), (1, 1), (1, 1)),
        ]
    ),
    mapgrad.ShortestPath(6, DAG, 0, 5),
    mapgrad.ShortestPath(6, DAG, 1, 1),
    mapgrad.ShortestPath(6, DAG, 3, 1, directed=False),
    mapgrad.ShortestPath(4, PARALLEL, 0, 3),
    mapgrad.ShortestPath(4, PARALLEL, 3, 2, directed=False),
    mapgrad.ShortestPath(3, [(0, 0), (0, 1), (1, 1), (1, 2), (0, 2)], 0, 2),
    mapgrad.Matching(2, [(0, 1)]),
    mapgrad.Matching(4, PARALLEL),
    mapgrad.Matching(4, PARALLEL, perfect=True),
    mapgrad.Matching(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)]),
    mapgrad.Matching(10, PETERSEN),
    mapgrad.Matching(10, PETERSEN, perfect=True),
    mapgrad.Matching(5, [(0, 1), (0, 2), (0, 3), (3, 4), (1, 0)], cardinality="maximum"),
    *(mapgrad.Assignment(*size) for size in [(1, 1), (4, 4), (2, 5), (5, 3), (1, 4), (4, 1)]),
    mapgrad.SpanningTree(4, K4),
    mapgrad.SpanningTree(4, [*PARALLEL, (2, 2)]),
    mapgrad.SpanningTree(10, [*PETERSEN, (0, 1)]),
    mapgrad.SpanningTree(1, [(0, 0)]),
    mapgrad.Arborescence(4, [*K4, *((v, u) for u, v in K4)], 2),
    mapgrad.Arborescence(4, [*PARALLEL, (2, 2)], 0),
    mapgrad.Arborescence(1, [(0, 0)], 0),
    *(mapgrad.TravelingSalesman(n) for n in [3, 4, 6]),
    *(mapgrad.AsymmetricTravelingSalesman(n) for n in [2, 3, 5]),
    mapgrad.Knapsack([[4, 3, 2, 2, 5]], [7]),
    mapgrad.Knapsack([[3, 1, 2, 2], [0.5, 2, 0, 1.5]], [5, 3]),
    mapgrad.IntegerProgram(upper=[1, 1, 3]),
    mapgrad.IntegerProgram(A_ub=[[5, 4, 3, 7, 2], [1, 6, 4, 2, 3]], b_ub=[11, 9]),
    mapgrad.IntegerProgram(
        A_ub=[[0.7, -1.3, 2.1], [0, 1, 1]], b_ub=[1.9, 2], A_eq=[[1, 1, 1]], b_eq=[2], lower=[-2, -1, 0], upper=3
    ),
]
PAIRS = [(name, problem) for name, spec in SPECS.items() for problem in PROBLEMS if isinstance(problem, spec.accepts)]

ROWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "negative": lambda rng, shape: -rng.random(shape),
    "positive": lambda rng, shape: rng.random(shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
    "non-positive ties": lambda rng, shape: rng.integers(-2, 1, shape).astype(float),
    "near ties": lambda rng, shape: rng.integers(-2, 1, shape) / 3 + 1e-8 * rng.integers(-2, 3, shape),
    "rounding ties": lambda rng, shape: rng.choice([-0.1, -0.2, -0.3, 0.1, 0.2, 0.3], shape),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-16, 1, shape),
    "tiny": lambda rng, shape: 1e-12 * rng.standard_normal(shape),
    "large": lambda rng, shape: -1e12 * rng.random(shape),
}


@pytest.mark.parametrize(("name", "problem"), PAIRS, ids=lambda value: str(value))
def test_a_solver_is_as_good_as_enumeration(name: str, problem: mapgrad.Problem) -> None:
    rng = np.random.default_rng(0)
    states = problem.states().flatten(start_dim=1)
    solver = mapgrad.get_solver(solver_class(name), problem)
    for kind, draw in ROWS.items():
        theta = torch.as_tensor(draw(rng, (25, *problem.shape)))
        z = solver(theta)
        assert problem.contains(z).all(), kind
        rows = problem.domain.clip(theta).flatten(start_dim=1)
        reached, best = (rows * z.flatten(start_dim=1)).sum(dim=1), (rows @ states.T).amax(dim=1)
        assert (best - reached <= 1e-9 * rows.abs().amax(dim=1)).all(), kind


def test_every_problem_that_a_solver_accepts_is_in_the_table() -> None:
    taken = {each for spec in SPECS.values() for each in spec.accepts}
    assert taken == {mapgrad_ortools.CpModelProblem, *(type(problem) for problem in PROBLEMS)}


@pytest.mark.parametrize(("name", "problem"), PAIRS, ids=lambda value: str(value))
def test_a_declared_cost_is_a_plausible_number_of_seconds(name: str, problem: mapgrad.Problem) -> None:
    cost = SPECS[name].cost
    assert cost is not None
    assert 1e-9 < cost(problem) < 1e-1


@pytest.mark.parametrize(
    ("name", "small", "big"),
    [
        ("topk", mapgrad.KSubset(10, 3), mapgrad.KSubset(100, 3)),
        ("topk", mapgrad.Ranking(10), mapgrad.Ranking(100)),
        ("compiled.assignment", mapgrad.Assignment(3), mapgrad.Assignment(3, 30)),
        ("compiled.spanning_tree", mapgrad.SpanningTree(4, K4), mapgrad.SpanningTree(10, PETERSEN)),
        ("compiled.arborescence", mapgrad.Arborescence(4, K4, 0), mapgrad.Arborescence(4, 2 * K4, 0)),
        ("compiled.shortest_path", mapgrad.GridShortestPath(3, 3), mapgrad.GridShortestPath(12, 12)),
        ("compiled.shortest_path", mapgrad.ShortestPath(4, K4[:3], 0, 3), mapgrad.ShortestPath(4, K4, 0, 3)),
        ("networkx.shortest_path", mapgrad.GridShortestPath(3, 3), mapgrad.GridShortestPath(12, 12)),
        ("networkx.shortest_path", mapgrad.ShortestPath(4, K4[:3], 0, 3), mapgrad.ShortestPath(4, K4, 0, 3)),
        ("networkx.matching", mapgrad.Matching(4, K4), mapgrad.Matching(10, PETERSEN)),
        ("networkx.assignment", mapgrad.Assignment(3), mapgrad.Assignment(3, 30)),
        ("networkx.spanning_tree", mapgrad.SpanningTree(4, K4), mapgrad.SpanningTree(10, PETERSEN)),
        ("rustworkx.matching", mapgrad.Matching(4, K4), mapgrad.Matching(10, PETERSEN)),
        ("scipy.shortest_path", mapgrad.GridShortestPath(3, 3), mapgrad.GridShortestPath(12, 12)),
        ("scipy.shortest_path", mapgrad.ShortestPath(4, K4[:3], 0, 3), mapgrad.ShortestPath(4, K4, 0, 3)),
        ("scipy.assignment", mapgrad.Assignment(3), mapgrad.Assignment(3, 30)),
        ("scipy.spanning_tree", mapgrad.SpanningTree(4, K4), mapgrad.SpanningTree(10, PETERSEN)),
        ("scipy.arborescence", mapgrad.Arborescence(4, K4, 0), mapgrad.Arborescence(4, 2 * K4, 0)),
        ("search", mapgrad.KSubset(10, 3).to_ilp(), mapgrad.Assignment(5).to_ilp()),
        ("scipy.milp", mapgrad.IntegerProgram(upper=[1]), mapgrad.IntegerProgram(A_ub=[[1, 2]], b_ub=[2])),
    ],
)
def test_a_declared_cost_grows_with_the_problem(name: str, small: mapgrad.Problem, big: mapgrad.Problem) -> None:
    cost = SPECS[name].cost
    assert cost is not None
    assert cost(small) < cost(big)


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (mapgrad.KSubset(100, 10), "topk"),
        (mapgrad.Ranking(100), "topk"),
        (mapgrad.GridShortestPath(12, 12), "compiled.shortest_path"),
        (mapgrad.ShortestPath(6, DAG, 0, 5), "compiled.shortest_path"),
        (mapgrad.ShortestPath(6, 20 * DAG, 0, 5, directed=False), "compiled.shortest_path"),
        (mapgrad.Assignment(10), "compiled.assignment"),
        (mapgrad.Assignment(300, 200), "compiled.assignment"),
        (mapgrad.TravelingSalesman(8), "highs.tsp"),
        (mapgrad.AsymmetricTravelingSalesman(6), "highs.tsp"),
        (mapgrad.Arborescence(4, K4, 0), "compiled.arborescence"),
        (mapgrad.Knapsack([range(1, 21)], [60]), "diagram"),
        (mapgrad.Matching(10, PETERSEN), "diagram"),
        (mapgrad.Matching(10, PETERSEN, perfect=True), "diagram"),
        (mapgrad.SpanningTree(10, 10 * PETERSEN), "compiled.spanning_tree"),
    ],
    ids=str,
)
def test_auto_takes_the_fastest_exact_solver(problem: mapgrad.Problem, name: str) -> None:
    assert mapgrad.get_solver("auto", problem).name == name
