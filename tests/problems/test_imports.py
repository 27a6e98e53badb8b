"""Problems need neither torch nor anything else that is slow to import."""

import subprocess
import sys

SCRIPT = """
import sys

sys.modules["torch"] = None  # importing it raises
import numpy as np

before = set(sys.modules)
import mapgrad.errors, mapgrad.problems

assert not {"networkx", "scipy", "gzip"} & (set(sys.modules) - before)

import pickle
from mapgrad.problems import *

edges = [(0, 1), (1, 2), (2, 3), (3, 0)]
for problem in (
    KSubset(4, 2),
    Ranking(3),
    Assignment(2),
    Matching(4, edges, perfect=True),
    SpanningTree(4, edges),
    ShortestPath(4, edges, 0, 2, directed=False),
    GridShortestPath(2, 2),
    Knapsack([1, 2, 3], 4),
    TravelingSalesman(4),
    AsymmetricTravelingSalesman(4),
    Arborescence(4, edges, 1),
    IntegerProgram(A_ub=[[1, 1, -2]], b_ub=[0], decision=[0, 1], fixed=[-1]),
):
    assert pickle.loads(pickle.dumps(problem)) == problem and hash(problem) and repr(problem) and problem.kappa
    states, (lower, upper) = problem.state_rows(), problem.box
    assert problem.contains_rows(states).all() and lower.min() == 0 and upper.max() == problem.largest
    assert problem.domain.contains(problem.domain.clip(np.ones(problem.shape))).all()
    assert problem.to_ilp().shape == problem.shape and len(problem.repair(states)) == len(states)
    assert problem.completion_values(states).max() == 0
assert sys.modules["torch"] is None
"""


def test_problems_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
