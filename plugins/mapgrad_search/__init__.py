"""Plugin ``search``: exact branch and bound in numba for small integer programs, in microseconds a row.

It is meant for many rows of one program with up to some hundred variables. Rows that turn out to be hard go to another
installed solver, so that no row takes much longer than there.
"""

from __future__ import annotations

from typing import Final

import mapgrad

__all__ = ["mapgrad_solvers"]

_MOST_ENTRIES: Final = 500_000  # of a dense matrix, which is changed step by step
_MOST_STEPS: Final = 10_000  # that all variables together may take from their lower bounds to their upper ones


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solver."""
    return [
        mapgrad.SolverSpec(
            name="search",
            factory="mapgrad_search._search:Search",
            accepts=(mapgrad.Knapsack, mapgrad.IntegerProgram),
            supports=_refusal,
            requires=("numba",),
            install="pip install 'mapgrad[compiled]'",
            cost=_cost,
        ),
    ]


def _refusal(problem: mapgrad.Knapsack | mapgrad.IntegerProgram) -> str | None:
    program = problem.to_ilp()
    if not program.integrality.all():
        return "it takes integer variables alone, and the program has continuous ones"
    steps = float((program.upper - program.lower).sum())
    if not steps <= _MOST_STEPS:
        return (
            f"it takes variables within bounds that are {_MOST_STEPS} apart at most, added up, but these are {steps:g}"
        )
    rows, columns = program.matrix.shape
    if rows * columns > _MOST_ENTRIES:
        return (
            f"it takes up to {_MOST_ENTRIES} places for coefficients, but {rows} rows of {columns} variables have more"
        )
    return None


def _cost(problem: mapgrad.Knapsack | mapgrad.IntegerProgram) -> float:
    program = problem.to_ilp()
    rows, columns = program.matrix.shape
    return 1e-6 + 1e-8 * columns * (rows + 1) ** 1.5
