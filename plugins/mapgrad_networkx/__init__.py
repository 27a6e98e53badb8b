"""Plugin ``networkx``: shortest paths, matchings, assignments and spanning trees by NetworkX.

NetworkX is pure Python and holds the GIL: threads don't speed these solvers up.
"""

import math
from functools import partial

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, requires=("networkx",), install="pip install 'mapgrad[networkx]'")
    return [
        spec(
            name="shortest_path",
            factory="mapgrad_networkx._shortest_path:Dijkstra",
            accepts=(mapgrad.GridShortestPath, mapgrad.ShortestPath),
            cost=_shortest_path_cost,
        ),
        spec(
            name="matching",
            factory="mapgrad_networkx._matching:Blossom",
            accepts=(mapgrad.Matching,),
            cost=_matching_cost,
        ),
        spec(
            name="assignment",
            factory="mapgrad_networkx._assignment:FullMatching",
            accepts=(mapgrad.Assignment,),
            requires=("networkx", "scipy"),
            cost=_assignment_cost,
        ),
        spec(
            name="spanning_tree",
            factory="mapgrad_networkx._spanning_tree:Prim",
            accepts=(mapgrad.SpanningTree,),
            cost=_spanning_tree_cost,
        ),
    ]


# Seconds a row, fitted to medians on one core of an AMD EPYC server, for up to some thousand edges or cells.


def _shortest_path_cost(problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> float:
    seconds_per_entry = 1.2e-6 if isinstance(problem, mapgrad.GridShortestPath) else 3.5e-7
    return 1e-5 + seconds_per_entry * math.prod(problem.shape)


def _matching_cost(problem: mapgrad.Matching) -> float:
    return 5e-5 + 9e-7 * problem.num_nodes * len(problem.edges)


def _assignment_cost(problem: mapgrad.Assignment) -> float:
    return 6e-5 + 6e-7 * math.prod(problem.shape)


def _spanning_tree_cost(problem: mapgrad.SpanningTree) -> float:
    return 2e-5 + 1e-6 * math.prod(problem.shape)
