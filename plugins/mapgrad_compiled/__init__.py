"""Plugin ``compiled``: kernels in numba for paths, assignments, trees and subsets, in microseconds a row.

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
    ]


# Seconds a row, fitted to the best of many runs on one core of an AMD EPYC server.


def _shortest_path_cost(problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> float:
    return 1e-7 + 3e-9 * math.prod(problem.shape)
