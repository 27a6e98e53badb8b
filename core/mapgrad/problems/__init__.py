"""What is solved: frozen, solver-neutral descriptions of feasible sets."""

from mapgrad.problems._assignment import Assignment
from mapgrad.problems._base import STATES_LIMIT, Domain, Problem, batch_shape
from mapgrad.problems._graphs import Matching, SpanningTree
from mapgrad.problems._grid import GridShortestPath
from mapgrad.problems._paths import ShortestPath
from mapgrad.problems._subsets import KSubset, Ranking

__all__ = [
    "STATES_LIMIT",
    "Assignment",
    "Domain",
    "GridShortestPath",
    "KSubset",
    "Matching",
    "Problem",
    "Ranking",
    "ShortestPath",
    "SpanningTree",
    "batch_shape",
]
