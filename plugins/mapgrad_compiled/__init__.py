"""Plugin ``compiled``: kernels in numba for paths, assignments, trees and arborescences, in microseconds a row.

All run without the GIL. A kernel is compiled when its solver is first made ready, which takes a second or two, and
loaded from numba's cache afterwards.
"""

import math
from functools import partial

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, requires=("numba",), install="pip install 'mapgrad[compiled]'")
    return [
        spec(
            name="shortest_path",
            factory="mapgrad_compiled._paths:ShortestPaths",
            accepts=(mapgrad.GridShortestPath, mapgrad.ShortestPath),
            cost=_shortest_path_cost,
        ),
        spec(
            name="assignment",
            factory="mapgrad_compiled._assignment:Hungarian",
            accepts=(mapgrad.Assignment,),
            cost=_assignment_cost,
        ),
        spec(
            name="spanning_tree",
            factory="mapgrad_compiled._spanning_tree:Boruvka",
            accepts=(mapgrad.SpanningTree,),
            cost=_spanning_tree_cost,
        ),
        spec(
            name="arborescence",
            factory="mapgrad_compiled._arborescence:Edmonds",
            accepts=(mapgrad.Arborescence,),
            cost=_arborescence_cost,
        ),
    ]


# Seconds a row, fitted to batches of 64 rows on one core of an AMD EPYC server, for up to ten thousand entries.


def _shortest_path_cost(problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> float:
    if isinstance(problem, mapgrad.GridShortestPath):
        seconds_per_entry = 8e-9 if problem.neighbors == 8 else 5e-9
    else:
        seconds_per_entry = 1.3e-9 if problem.domain is mapgrad.Domain.REAL else 3e-9
    return 5e-8 + seconds_per_entry * math.prod(problem.shape)


def _assignment_cost(problem: mapgrad.Assignment) -> float:
    return 1e-7 + 6e-9 * math.prod(problem.shape)


def _spanning_tree_cost(problem: mapgrad.SpanningTree) -> float:
    return 1e-7 + 1.3e-8 * len(problem.edges)


def _arborescence_cost(problem: mapgrad.Arborescence) -> float:
    return 1e-7 + 5e-9 * len(problem.arcs) + 7e-10 * problem.num_nodes**2
