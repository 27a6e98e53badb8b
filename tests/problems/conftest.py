from __future__ import annotations

import numpy as np
import pytest

from mapgrad.problems import (
    Assignment,
    GridShortestPath,
    KSubset,
    Matching,
    Problem,
    Ranking,
    ShortestPath,
    SpanningTree,
)

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
    SpanningTree(1, [(0, 0)]),
    SpanningTree(4, KNOTTED),
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
]


@pytest.fixture(params=PROBLEMS, ids=[f"{number}-{type(problem).__name__}" for number, problem in enumerate(PROBLEMS)])
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param
