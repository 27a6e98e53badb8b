from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

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
    TravelingSalesman,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0)]
KNOTTED = np.array([(0, 1), (1, 2), (0, 2), (2, 1), (2, 3), (1, 3), (1, 3), (3, 3)])

PROBLEMS = [
    KSubset(1, 1),
    KSubset(6, 3),
    KSubset(5, 5),
    Ranking(1),
    Ranking(4),
    Assignment(1),
    Assignment(3),
    Assignment(2, 4),
    Assignment(4, 2),
    Matching(4, SQUARE),
    Matching(4, [*SQUARE, (2, 0), (1, 0)], perfect=True),
    Matching(4, [(0, 1), (1, 2), (1, 3), (1, 0)], cardinality="maximum"),
    SpanningTree(1, [(0, 0)]),
    SpanningTree(4, KNOTTED),
    Arborescence(1, [(0, 0)], 0),
    Arborescence(4, KNOTTED, 0),
    ShortestPath(4, SQUARE, 0, 3),
    ShortestPath(4, KNOTTED, 0, 3),
    ShortestPath(4, KNOTTED, 3, 0, directed=False),
    ShortestPath(4, SQUARE, 2, 2),
    GridShortestPath(1, 1),
    GridShortestPath(1, 5, start=(0, 3), goal=(0, 1)),
    GridShortestPath(3, 3),
    GridShortestPath(3, 4, neighbors=4),
    GridShortestPath(3, 3, start=(1, 1), goal=(0, 1)),
    GridShortestPath(2, 3, start=(1, 0), goal=(1, 0)),
    Knapsack([3, 2, 2, 0], 4),
    Knapsack([[0.1, 0.2, 0.3, 1.1], [3, 1, 1, 0]], [0.6, 4]),
    TravelingSalesman(3),
    TravelingSalesman(5),
    AsymmetricTravelingSalesman(2),
    AsymmetricTravelingSalesman(4),
    IntegerProgram(A_ub=[[2, 3, 1], [-1, 0, -1]], b_ub=[5, -1], upper=[2, 1, 3], shape=(3, 1)),
    IntegerProgram(A_eq=[[1, 1, -2]], b_eq=[0], upper=[1, 1, np.inf], integrality=[1, 1, 0], decision=[1, 0]),
    IntegerProgram(lower=[0, 0], upper=[1, 2]),
]


@pytest.fixture(params=PROBLEMS, ids=[f"{number}-{type(problem).__name__}" for number, problem in enumerate(PROBLEMS)])
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param


@pytest.fixture
def maximise() -> Callable[[IntegerProgram, np.ndarray], tuple[float, np.ndarray] | None]:
    """Solves a program in full form by SciPy: (optimum of ⟨theta, x⟩, x), or None where it is infeasible."""

    def solve(program: IntegerProgram, theta: np.ndarray) -> tuple[float, np.ndarray] | None:
        rows = LinearConstraint(program.matrix.to_scipy(), program.row_lower, program.row_upper)
        result = milp(
            -theta,
            integrality=program.integrality,
            bounds=Bounds(program.lower, program.upper),
            constraints=[rows] if len(program.row_upper) else [],
            options={"mip_rel_gap": 0},
        )
        assert result.status in (0, 2), result.message
        return None if result.x is None else (-result.fun, result.x)

    return solve
