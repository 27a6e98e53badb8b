"""What is solved: frozen, solver-neutral descriptions of feasible sets."""

from mapgrad.problems._arborescences import Arborescence
from mapgrad.problems._assignment import Assignment
from mapgrad.problems._base import STATES_LIMIT, Domain, Problem, batch_shape, box_points, may_be_continuous
from mapgrad.problems._budget import Budget
from mapgrad.problems._graphs import Matching, SpanningTree
from mapgrad.problems._grid import GridShortestPath
from mapgrad.problems._knapsack import Knapsack
from mapgrad.problems._nesting import columns_of
from mapgrad.problems._paths import ShortestPath
from mapgrad.problems._portfolio import Portfolio
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._row_facts import RowFacts
from mapgrad.problems._sparse import SparseRows
from mapgrad.problems._subsets import KSubset, Ranking
from mapgrad.problems._tours import AsymmetricTravelingSalesman, TravelingSalesman

__all__ = [
    "STATES_LIMIT",
    "Arborescence",
    "Assignment",
    "AsymmetricTravelingSalesman",
    "Budget",
    "Domain",
    "GridShortestPath",
    "IntegerProgram",
    "KSubset",
    "Knapsack",
    "Matching",
    "Portfolio",
    "Problem",
    "Ranking",
    "RowFacts",
    "ShortestPath",
    "SpanningTree",
    "SparseRows",
    "TravelingSalesman",
    "batch_shape",
    "box_points",
    "columns_of",
    "may_be_continuous",
]
