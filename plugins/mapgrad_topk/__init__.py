"""Plugin ``topk``: the k largest entries, and rankings, for whole batches in torch on any device."""

import math

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="topk",
            factory="mapgrad_topk._topk:TopK",
            accepts=(mapgrad.KSubset, mapgrad.Ranking),
            cost=_cost,
        )
    ]


def _cost(problem: mapgrad.Problem) -> float:
    # medians on one core of an AMD EPYC server: sorting a row costs more than finding its k-th entry
    seconds_per_entry = 5e-8 if isinstance(problem, mapgrad.Ranking) else 1e-8
    return seconds_per_entry * math.prod(problem.shape)
