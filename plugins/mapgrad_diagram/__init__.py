"""Plugin ``diagram``: programs of 0/1 variables, compiled once into decision diagrams and then solved in microseconds.

On the CPU eight rows lie side by side in a kernel in numba, where that is installed; else NumPy, and on a GPU torch,
take many rows layer by layer.
"""

import mapgrad

__all__ = ["mapgrad_solvers"]


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="diagram",
            factory="mapgrad_diagram._diagram:Diagram",
            accepts=(mapgrad.IntegerProgram, mapgrad.Knapsack, mapgrad.Matching),
            supports=_refusal,
            cost=_cost,
            setup=_setup,
        )
    ]


def _refusal(problem: mapgrad.IntegerProgram | mapgrad.Knapsack | mapgrad.Matching) -> str | None:
    from mapgrad_diagram import _size

    return _size.refusal(problem.to_ilp())


def _cost(problem: mapgrad.IntegerProgram | mapgrad.Knapsack | mapgrad.Matching) -> float:
    from mapgrad_diagram import _size

    return _size.cost(problem.to_ilp())


def _setup(problem: mapgrad.IntegerProgram | mapgrad.Knapsack | mapgrad.Matching) -> float:
    from mapgrad_diagram import _size

    return _size.setup(problem.to_ilp())
