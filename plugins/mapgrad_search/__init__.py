"""Plugin ``search``: exact branch and bound in numba for small integer programs, in microseconds a row.

It is meant for many rows of one program with up to some hundred variables. Rows that turn out to be hard go to another
installed solver, so that no row takes much longer than there.
"""

from __future__ import annotations

from typing import Final

import mapgrad

__all__ = ["LARGEST", "mapgrad_solvers", "refusal"]

_MOST_ENTRIES: Final = 500_000
_MOST_STEPS: Final = 10_000

LARGEST: Final = 10_000
"""A variable's largest size."""


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solver."""
    return [
        mapgrad.SolverSpec(
            name="search",
            factory="mapgrad_search._search:Search",
            accepts=(mapgrad.Knapsack, mapgrad.IntegerProgram),
            supports=refusal,
            requires=("numba",),
            install="pip install 'mapgrad[compiled]'",
            cost=_cost,
        ),
    ]


def refusal(problem: mapgrad.Knapsack | mapgrad.IntegerProgram) -> str | None:
    """Say why a program can't be searched here, or return None."""
    program = problem.to_ilp()
    if not program.integrality.all():
        return "it takes integer variables alone, and the program has continuous ones"
    largest = float(max(abs(program.lower).max(), abs(program.upper).max()))
    if largest > LARGEST:
        return f"its variables reach {largest:g}, more than {LARGEST}"
    steps = float((program.upper - program.lower).sum())
    if steps > _MOST_STEPS:
        return f"its variables have {steps:g} steps from their lower to their upper bounds, more than {_MOST_STEPS}"
    rows, columns = program.matrix.shape
    if rows * columns > _MOST_ENTRIES:
        return f"its {rows} rows of {columns} variables make a tableau of more than {_MOST_ENTRIES} entries"
    from mapgrad_search._sums import lost_digits  # imports NumPy

    return lost_digits(program)


# Seconds a row: medians of processor time on one core of an AMD EPYC server, for programs that branch little.


def _cost(problem: mapgrad.Knapsack | mapgrad.IntegerProgram) -> float:
    rows, columns = problem.to_ilp().matrix.shape
    return 1e-6 + 2e-7 * columns + 1e-9 * rows**2 * columns
