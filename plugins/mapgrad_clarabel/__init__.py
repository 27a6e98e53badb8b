"""Plugin ``clarabel``: portfolios within a limit on risk, by Clarabel's interior-point method.

It is written in Rust and holds the GIL: threads don't speed it up.
"""

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="portfolio",
            factory="mapgrad_clarabel._portfolio:InteriorPoint",
            accepts=(mapgrad.Portfolio,),
            requires=("clarabel", "scipy"),
            install="pip install 'mapgrad[clarabel]'",
            cost=_cost,
        )
    ]


# Seconds a row, fitted to the best of many runs on one core of an AMD EPYC server, for up to two hundred assets.


def _cost(problem: mapgrad.Portfolio) -> float:
    return 1e-4 + 5e-6 * int((problem.exposures != 0).sum())
