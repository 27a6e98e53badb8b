"""Plugin ``rustworkx``: matchings of general graphs by rustworkx.

It is written in Rust and holds the GIL: threads don't speed it up.
"""

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="matching",
            factory="mapgrad_rustworkx._matching:Blossom",
            accepts=(mapgrad.Matching,),
            requires=("rustworkx",),
            install="pip install 'mapgrad[rustworkx]'",
            cost=_cost,
        )
    ]


# Seconds a row, fitted to the best of many runs on one core of an AMD EPYC server, for up to some thousand edges.


def _cost(problem: mapgrad.Matching) -> float:
    return 1e-5 + 1.5e-6 * problem.num_nodes + 6e-9 * problem.num_nodes * len(problem.edges)
