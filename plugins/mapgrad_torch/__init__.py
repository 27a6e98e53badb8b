"""Plugin ``torch``: shortest paths for whole batches on θ's own device, by torch's operations alone."""

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver; it declares no cost, as what a row takes depends on θ's device."""
    return [
        mapgrad.SolverSpec(
            name="shortest_path",
            factory="mapgrad_torch._paths:ShortestPaths",
            accepts=(mapgrad.GridShortestPath, mapgrad.ShortestPath),
        )
    ]
