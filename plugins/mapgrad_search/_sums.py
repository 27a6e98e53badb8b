"""How large the sums of a program's rows may be before floats round them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import mapgrad

EXACT: Final = 2.0**50
"""Multiples of a unit up to here are added up without rounding, also by a tableau."""


def lost_digits(program: mapgrad.IntegerProgram) -> str | None:
    """Say which row comes to sums in which its unit, or its smallest coefficient, is lost; None where none does."""
    matrix, facts, size = program.matrix, program.row_facts, np.maximum(np.abs(program.lower), np.abs(program.upper))
    finest = facts.units if facts.units.all() else np.where(facts.units > 0, facts.units, facts.smallest)
    with np.errstate(over="ignore"):
        terms = np.abs(matrix.data) * size[matrix.indices]
        if terms.sum() / EXACT <= finest.min(initial=np.inf):
            return None
        sums = np.bincount(matrix.row_of_entry, terms, minlength=len(finest)) / finest
    if not (sums > EXACT).any():
        return None
    row = int(sums.argmax())
    kind = "its unit" if facts.units[row] > 0 else "its smallest coefficient"
    return (
        f"row {row} may come to {sums[row]:.3g} times {kind}, {finest[row]:g}, more than 2^50, so that sums are rounded"
    )
