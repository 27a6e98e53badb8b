"""The dual simplex method with bounded variables on a dense tableau.

A program's rows are s = A x, with sides as bounds of s: variables 0 … n - 1 are x, n … n + m - 1 are s. The tableau T
says what the basic ones are, given the others: x_B = -T x_N. The objective is ⟨d, x_N⟩, to be maximised. As all x have
bounds, the basis of all s is dual feasible for any objective, and it stays so when bounds change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import types

from mapgrad_search._kernels import INDICES, NUMBERS, TABLE, inner, room, short, sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPTIMAL, INFEASIBLE, CUT_OFF, STALLED = 0, 1, 2, 3

_FEASIBLE = 1e-9
_ROUNDING = 2e-15
"""By so much of the sizes of its terms a sum may be off."""

_REMAINDER = 1e-12
"""By so much a row must be missed, so that it isn't by rounding."""

PIVOT = 1e-7
"""Smaller entries are no pivots."""


class Tableau(NamedTuple):
    """T [m, n], d and x_N [n], x_B [m], bounds [n + m], the variables of x_B [m] and of x_N [n], and room [n]."""

    entries: NDArray[np.float64]
    costs: NDArray[np.float64]
    values: NDArray[np.float64]
    basic_values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    basis: NDArray[np.int64]
    others: NDArray[np.int64]
    candidates: NDArray[np.int64]
    ratios: NDArray[np.float64]

    @classmethod
    def of_size(cls, height: int, width: int) -> Tableau:
        """Return an empty one."""
        return cls(
            room(height, width),
            room(width),
            room(width),
            room(height),
            room(width + height),
            room(width + height),
            room(height, dtype=np.int64),
            room(width, dtype=np.int64),
            room(width, dtype=np.int64),
            room(width),
        )


TABLEAU: Final = types.NamedTuple((TABLE, *[NUMBERS] * 5, *[INDICES] * 3, NUMBERS), Tableau)


@inner
def reset(tableau, matrix, theta):
    """Return to the basis of all s."""
    height, width = matrix.shape
    for i in range(height):
        tableau.basis[i] = width + i
        for j in range(width):
            tableau.entries[i, j] = -matrix[i, j]
    for j in range(width):
        tableau.others[j] = j
        tableau.costs[j] = theta[j]
        tableau.values[j] = tableau.lower[j]
    settle(tableau)


@sums
def settle(tableau):
    """Put each variable outside of the basis to the bound that its reduced cost prefers, and compute the others."""
    entries, values = tableau.entries, tableau.values
    height, width = entries.shape
    for k in range(width):
        variable = tableau.others[k]
        low, high = tableau.lower[variable], tableau.upper[variable]
        is_high = tableau.costs[k] > 0 or (tableau.costs[k] == 0 and values[k] >= high)
        if low == -np.inf or (is_high and high < np.inf):
            values[k] = high
        else:
            values[k] = low
    for i in range(height):
        total = 0.0
        row = entries[i]
        for k in range(width):
            total += row[k] * values[k]
        tableau.basic_values[i] = -total


@short
def _pivot(entries, costs, i, k):
    """Exchange the basic variable of row i for that of column k; return how many entries were touched."""
    height, width = entries.shape
    inverse = 1.0 / entries[i, k]
    row = entries[i]
    for q in range(width):
        row[q] *= inverse
    row[k] = inverse
    changed = 2
    for r in range(height):
        factor = entries[r, k]
        if r == i or factor == 0.0:
            continue
        other = entries[r]
        for q in range(width):
            other[q] -= factor * row[q]
        other[k] = -factor * inverse
        changed += 1
    factor = costs[k]
    if factor != 0.0:
        for q in range(width):
            costs[q] -= factor * row[q]
        costs[k] = -factor * inverse
    return changed * width


@short
def _leaving(tableau):
    """Return the row that misses a bound by most, for its length, by how much, whether the upper one; -1 for none."""
    basic, basis = tableau.basic_values, tableau.basis
    height, width = tableau.entries.shape
    chosen, missed, is_above, best = -1, 0.0, False, 0.0
    for i in range(height):
        over, under = basic[i] - tableau.upper[basis[i]], tableau.lower[basis[i]] - basic[i]
        miss = max(over, under)
        if miss > _FEASIBLE:
            norm = 1.0
            row = tableau.entries[i]
            for k in range(width):
                norm += row[k] * row[k]
            score = miss * miss / norm
            if score > best:
                chosen, missed, is_above, best = i, miss, over > under, score
    return chosen, missed, is_above


@short
def _entering(tableau, leaving, missed, is_above):
    """Return the place that enters, -1 for none, and how many of the candidates go to their other bounds."""
    row, costs, values, others = tableau.entries[leaving], tableau.costs, tableau.values, tableau.others
    candidates, ratios = tableau.candidates, tableau.ratios
    count = 0
    for k in range(len(row)):
        a = row[k] if is_above else -row[k]
        low, high = tableau.lower[others[k]], tableau.upper[others[k]]
        if low < high and ((a > PIVOT and values[k] == low) or (a < -PIVOT and values[k] == high)):
            candidates[count] = k
            ratios[count] = abs(costs[k] / a)
            count += 1
    for flipped in range(count):
        best = flipped
        for c in range(flipped + 1, count):
            if ratios[c] < ratios[best] or (
                ratios[c] == ratios[best] and abs(row[candidates[c]]) > abs(row[candidates[best]])
            ):
                best = c
        k = candidates[best]
        candidates[best], ratios[best] = candidates[flipped], ratios[flipped]
        candidates[flipped] = k
        missed -= abs(row[k]) * (tableau.upper[others[k]] - tableau.lower[others[k]])
        if missed <= 0:
            return k, flipped
    return -1, 0


@sums
def optimise(tableau, cutoff, limit):
    """Pivot until the basis is optimal, its bound falls to a cutoff, or a row shows that there is no solution.

    Returns:
        How it ended, that row, and how many entries were touched.
    """
    entries, costs, values = tableau.entries, tableau.costs, tableau.values
    basic, lower, upper = tableau.basic_values, tableau.lower, tableau.upper
    basis, others, candidates = tableau.basis, tableau.others, tableau.candidates
    height, width = entries.shape
    work = height
    for _ in range(limit):
        leaving, missed, is_above = _leaving(tableau)
        if leaving < 0:
            return OPTIMAL, -1, work
        entering, flipped = _entering(tableau, leaving, missed, is_above)
        work += 3 * width + flipped * (height + width)
        if entering < 0:
            return INFEASIBLE, leaving, work
        for c in range(flipped):
            k = candidates[c]
            low, high = lower[others[k]], upper[others[k]]
            step = high - low if values[k] == low else low - high
            values[k] = high if values[k] == low else low
            for i in range(height):
                basic[i] -= entries[i, k] * step
        variable = basis[leaving]
        target = upper[variable] if is_above else lower[variable]
        step = (basic[leaving] - target) / entries[leaving, entering]
        for i in range(height):
            basic[i] -= entries[i, entering] * step
        reached = values[entering] + step
        work += _pivot(entries, costs, leaving, entering) + height
        basis[leaving], others[entering] = others[entering], variable
        basic[leaving], values[entering] = reached, target
        bound = 0.0
        for k in range(width):
            bound += costs[k] * values[k]
        if bound <= cutoff:
            return CUT_OFF, -1, work
    return STALLED, -1, work


@short
def _spread(tableau, row, y):
    """Write to y [m] what a row of the tableau [n] says of each s; 0 for those in the basis."""
    height, width = tableau.entries.shape
    for i in range(height):
        y[i] = 0.0
    for k in range(width):
        variable = tableau.others[k]
        if variable >= width:
            y[variable - width] = row[k]


@sums
def prices(tableau, rows, theta, y, reduced):
    """Write the multipliers y of the rows and θ - yA, and return the bound ⟨y, s⟩ + ⟨θ - yA, x⟩ at its best corner.

    It holds whatever y is, so the tableau's rounding can't cut off an optimum.
    """
    height, width = tableau.entries.shape
    _spread(tableau, tableau.costs, y)
    for j in range(width):
        reduced[j] = theta[j]
    bound = size = 0.0
    for i in range(height):
        price = y[i]
        if price == 0.0:
            continue
        side = tableau.upper[width + i] if price > 0 else tableau.lower[width + i]
        if abs(side) == np.inf:
            y[i] = 0.0
            continue
        bound += price * side
        size += abs(price * side)
        for e in range(rows.starts[i], rows.starts[i + 1]):
            term = price * rows.data[e]
            reduced[rows.columns[e]] -= term
            size += abs(term * tableau.upper[rows.columns[e]])
    for j in range(width):
        bound += reduced[j] * (tableau.upper[j] if reduced[j] > 0 else tableau.lower[j])
    return bound + _ROUNDING * size


@sums
def excludes(tableau, rows, i, y, reduced):
    """Tell whether a row of the tableau, a sum of the program's rows, can't be met within the bounds."""
    height, width = tableau.entries.shape
    _spread(tableau, tableau.entries[i], y)
    if tableau.basis[i] >= width:
        y[tableau.basis[i] - width] = 1.0
    for j in range(width):
        reduced[j] = 0.0
    least = most = size = 0.0
    for r in range(height):
        factor = y[r]
        if abs(factor) < 1e-12:
            continue
        low, high = factor * tableau.lower[width + r], factor * tableau.upper[width + r]
        least += min(low, high)
        most += max(low, high)
        for e in range(rows.starts[r], rows.starts[r + 1]):
            term = factor * rows.data[e]
            reduced[rows.columns[e]] -= term
            size += abs(term) * max(abs(tableau.lower[rows.columns[e]]), abs(tableau.upper[rows.columns[e]]), 1.0)
    for j in range(width):
        low, high = reduced[j] * tableau.lower[j], reduced[j] * tableau.upper[j]
        least += min(low, high)
        most += max(low, high)
    return least > _REMAINDER * size or most < -_REMAINDER * size
