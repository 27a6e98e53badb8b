"""Plugin ``search``: exact branch and bound in numba for small integer programs, in microseconds a row.

It is meant for many rows of one program with up to some hundred variables. Rows that turn out to be hard go to another
installed solver, so that no row takes much longer than there.
"""

from __future__ import annotations

from typing import Final

import numpy as np

import mapgrad

__all__ = ["EXACT", "LARGEST", "mapgrad_solvers", "refusal"]

_MOST_ENTRIES: Final = 500_000
_MOST_STEPS: Final = 10_000

LARGEST: Final = 10_000
"""A variable's largest size."""

EXACT: Final = 2.0**50
"""Multiples of a unit up to here are added up without rounding, also by a tableau."""


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
    return _lost_digits(program)


def _lost_digits(program: mapgrad.IntegerProgram) -> str | None:
    """Say which row comes to sums in which its unit, or its smallest coefficient, is lost; None where none does."""
    matrix, facts, size = program.matrix, program.row_facts, np.maximum(np.abs(program.lower), np.abs(program.upper))
    finest = facts.units if facts.units.all() else np.where(facts.units > 0, facts.units, facts.smallest)
    with np.errstate(over="ignore"):
        terms = np.abs(matrix.data) * size[matrix.indices]
        if terms.sum() <= EXACT * finest.min(initial=np.inf):
            return None
        sums = np.bincount(matrix.row_of_entry, terms, minlength=len(finest)) / finest
    if not (sums > EXACT).any():
        return None
    row = int(sums.argmax())
    kind = "its unit" if facts.units[row] > 0 else "its smallest coefficient"
    return (
        f"row {row} may come to {sums[row]:.3g} times {kind}, {finest[row]:g}, more than 2^50, so that sums are rounded"
    )


# Seconds a row: medians of processor time on one core of an AMD EPYC server, for programs that branch little.


def _cost(problem: mapgrad.Knapsack | mapgrad.IntegerProgram) -> float:
    rows, columns = problem.to_ilp().matrix.shape
    return 1e-6 + 2e-7 * columns + 1e-9 * rows**2 * columns
