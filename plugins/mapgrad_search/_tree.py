"""Branch and bound over integer variables: depth first, with linear programs as bounds."""

from __future__ import annotations

import numpy as np
from numba import types

import mapgrad
from mapgrad_search._kernels import GIVEN, INDICES, TABLE, TODO, inner, once, short
from mapgrad_search._memory import AGE, BEST, DEPTH, HAS_BEGUN, LENGTH, MEMORY, POSITION, ROWS, SAVED, WORK
from mapgrad_search._simplex import (
    CUT_OFF,
    INFEASIBLE,
    OPTIMAL,
    PIVOT,
    STALLED,
    TABLEAU,
    excludes,
    optimise,
    prices,
    reset,
    settle,
)

TOLERANCE = 2.0**-31
"""What a bound must promise beyond the best value found, where max |θ| is about 1."""

_INTEGRAL = 1e-7
_NODE = 500
"""What a node costs beside the entries of its tableau, in entries."""

_ANEW = 1000
"""Nodes, after which the tableau is made anew: it loses digits."""

PROVED, EMPTY, GIVEN_UP = int(mapgrad.Status.OPTIMAL), int(mapgrad.Status.INFEASIBLE), int(mapgrad.Status.TIME_LIMIT)


@short
def _tighten(tableau, memory, variable, low, high):
    length = memory.counts[LENGTH]
    memory.trail[length] = variable
    memory.trail_lower[length], memory.trail_upper[length] = tableau.lower[variable], tableau.upper[variable]
    memory.counts[LENGTH] = length + 1
    tableau.lower[variable], tableau.upper[variable] = low, high


@inner
def _backtrack(tableau, memory):
    """Go to the second side of the deepest branch that has one left; tell whether there is one."""
    counts = memory.counts
    depth = counts[DEPTH] - 1
    while depth >= 0 and memory.branches[depth, 2]:
        depth -= 1
    if depth < 0:
        return False
    mark = memory.branches[depth, 1]
    for entry in range(counts[LENGTH] - 1, mark - 1, -1):
        variable = memory.trail[entry]
        tableau.lower[variable], tableau.upper[variable] = memory.trail_lower[entry], memory.trail_upper[entry]
    counts[LENGTH] = mark
    memory.branches[depth, 2] = 1
    _tighten(tableau, memory, memory.branches[depth, 0], memory.sides[depth, 0], memory.sides[depth, 1])
    counts[DEPTH] = depth + 1
    settle(tableau)
    return True


@short
def _branch(tableau, memory, variable, value, up):
    """Split the values of a variable at a fraction or, where it is an integer, above it."""
    depth = memory.counts[DEPTH]
    low, high = tableau.lower[variable], tableau.upper[variable]
    below = min(max(np.floor(value), low), high - 1)
    branch = memory.branches[depth]
    branch[0], branch[1], branch[2] = variable, memory.counts[LENGTH], 0
    if up:
        memory.sides[depth, 0], memory.sides[depth, 1] = low, below
        _tighten(tableau, memory, variable, below + 1, high)
    else:
        memory.sides[depth, 0], memory.sides[depth, 1] = below + 1, high
        _tighten(tableau, memory, variable, low, below)
    memory.counts[DEPTH] = depth + 1


@inner
def _choose(tableau):
    """Return the fractional variable whose two sides lose most by one pivot, its value, and whether up loses less.

    The variable is -1 where all are integer. Driebeek (1966), An algorithm for the solution of mixed integer
    programming problems, Management Science 12(7), 576-587.
    """
    height, width = tableau.entries.shape
    best, chosen, at, up = -1.0, -1, 0.0, False
    for i in range(height):
        variable, value = tableau.basis[i], tableau.basic_values[i]
        if variable >= width or abs(value - np.rint(value)) <= _INTEGRAL:
            continue
        down_ratio = up_ratio = 1e6
        row = tableau.entries[i]
        for k in range(width):
            other = tableau.others[k]
            if abs(row[k]) <= PIVOT or tableau.lower[other] == tableau.upper[other]:
                continue
            ratio = abs(tableau.costs[k] / row[k])
            if (row[k] > 0) == (tableau.values[k] == tableau.lower[other]):
                down_ratio = min(down_ratio, ratio)
            else:
                up_ratio = min(up_ratio, ratio)
        fraction = value - np.floor(value)
        down, up_loss = fraction * down_ratio, (1 - fraction) * up_ratio
        score = max(down, 1e-6) * max(up_loss, 1e-6)
        if score > best:
            best, chosen, at, up = score, variable, value, up_loss < down
    return chosen, at, up


@inner
def _try(tableau, rows, memory, theta, low, high, sides_low, sides_high, z):
    """Round x, improve it step by step, and keep it in z if it is the best state so far."""
    x, activity = memory.x, memory.activity
    height, width = rows.matrix.shape
    for j in range(width):
        if abs(x[j] - np.rint(x[j])) <= _INTEGRAL:
            x[j] = np.rint(x[j])
        elif rows.up_locks[j] == 0:
            x[j] = np.ceil(x[j])
        elif rows.down_locks[j] == 0:
            x[j] = np.floor(x[j])
        else:
            x[j] = np.rint(x[j])
        x[j] = min(max(x[j], low[j]), high[j])
    for i in range(height):
        total = 0.0
        for e in range(rows.starts[i], rows.starts[i + 1]):
            total += rows.data[e] * x[rows.columns[e]]
        if total > sides_high[i] or total < sides_low[i]:
            return
        activity[i] = total
    for j in range(width):
        step = 1.0 if theta[j] > 0 else -1.0
        if theta[j] == 0.0:
            continue
        while low[j] <= x[j] + step <= high[j]:
            fits = True
            for e in range(rows.column_starts[j], rows.column_starts[j + 1]):
                i = rows.column_rows[e]
                total = activity[i] + step * rows.column_data[e]
                fits &= sides_low[i] <= total <= sides_high[i]
            if not fits:
                break
            x[j] += step
            for e in range(rows.column_starts[j], rows.column_starts[j + 1]):
                activity[rows.column_rows[e]] += step * rows.column_data[e]
    value = 0.0
    for j in range(width):
        value += theta[j] * x[j]
    if value > memory.work[BEST]:
        memory.work[BEST] = value
        for j in range(width):
            z[j] = x[j]


@once
def _begin(tableau, rows, memory, theta, low, high, sides_low, sides_high, z):
    """Begin a row; tell whether its bounds and sides leave values. z may hold a state to start from."""
    width = len(theta)
    counts = memory.counts
    counts[HAS_BEGUN] = 1
    counts[DEPTH] = counts[LENGTH] = counts[AGE] = 0
    memory.work[WORK], memory.work[BEST] = 0.0, -np.inf
    can_start = True
    for j in range(width):
        can_start &= np.isfinite(z[j])
        if low[j] > high[j]:
            return False
        tableau.lower[j], tableau.upper[j], memory.x[j] = low[j], high[j], z[j]
    for i in range(len(sides_low)):
        if sides_low[i] > sides_high[i]:  # between which there is no multiple of the row's unit
            return False
        tableau.lower[width + i], tableau.upper[width + i] = sides_low[i], sides_high[i]
    if can_start:
        _try(tableau, rows, memory, theta, low, high, sides_low, sides_high, z)
    reset(tableau, rows.matrix, theta)
    return True


@once
def _look(tableau, rows, memory, theta):
    """Solve a node's linear program; return how it ended, a bound, and whether the node can be left."""
    height, width = tableau.entries.shape
    cutoff, lowest = memory.work[BEST] + TOLERANCE, memory.work[BEST] + TOLERANCE
    end, bound = STALLED, np.inf
    for _ in range(3):
        end, row, work = optimise(tableau, lowest, 50 + 3 * (height + width))
        memory.work[WORK] += work + len(rows.data)
        if end == INFEASIBLE and excludes(tableau, rows, row, memory.y, memory.reduced):
            return end, -np.inf, True
        bound = prices(tableau, rows, theta, memory.y, memory.reduced)
        if end == OPTIMAL or bound <= cutoff:
            break
        if end == CUT_OFF:  # by rounding alone
            lowest = -np.inf
        else:
            reset(tableau, rows.matrix, theta)
            memory.work[WORK] += height * width
    return end, bound, bound <= cutoff


@short
def _fix(tableau, memory, gap, chosen):
    """Fix variables but the chosen one at bounds that no better state leaves, as their reduced costs say."""
    reduced = memory.reduced
    for j in range(len(reduced)):
        if tableau.lower[j] < tableau.upper[j] and abs(reduced[j]) >= gap and j != chosen:
            bound = tableau.upper[j] if reduced[j] > 0 else tableau.lower[j]
            _tighten(tableau, memory, j, bound, bound)


@once
def _report(tableau, memory, bound, multipliers, low, high):
    """Write a row's prices in its linear program, and the bounds that the best state so far allows."""
    _fix(tableau, memory, bound - memory.work[BEST] - TOLERANCE, len(low))  # but none; -1 would be a type of its own
    for i in range(len(multipliers)):
        multipliers[i] = max(memory.y[i], 0.0)
    for j in range(len(low)):
        low[j], high[j] = tableau.lower[j], tableau.upper[j]


@once
def _leave_or_branch(tableau, rows, memory, theta, low, high, sides_low, sides_high, end, bound, z):
    """Go on from a node whose linear program was solved; tell whether the search goes on."""
    height, width = tableau.entries.shape
    x = memory.x
    for k in range(width):
        if tableau.others[k] < width:
            x[tableau.others[k]] = tableau.values[k]
    for i in range(height):
        if tableau.basis[i] < width:
            x[tableau.basis[i]] = tableau.basic_values[i]
    for j in range(width):
        x[j] = min(max(x[j], tableau.lower[j]), tableau.upper[j])
    chosen, at, up = _choose(tableau) if end == OPTIMAL else (-1, 0.0, False)
    _try(tableau, rows, memory, theta, low, high, sides_low, sides_high, z)
    gap = bound - memory.work[BEST] - TOLERANCE
    if gap > 0:
        length = memory.counts[LENGTH]
        _fix(tableau, memory, gap, chosen)
        j = 0
        while chosen < 0 and j < width:
            if tableau.lower[j] < tableau.upper[j]:
                chosen, at = j, tableau.lower[j]
            j += 1
        if chosen >= 0:
            _branch(tableau, memory, chosen, at, up)
            if end != OPTIMAL or abs(at - np.rint(at)) <= _INTEGRAL:
                settle(tableau)
            return True
        if memory.counts[LENGTH] > length:
            return True  # all variables are fixed now: such a point is looked at once more
    return _backtrack(tableau, memory)


@mapgrad.kernel(
    *(GIVEN, TODO, *[GIVEN] * 4, ROWS, TABLEAU, MEMORY, types.float64, types.float64),
    *(TABLE, INDICES, TABLE, TABLE, TABLE),
)
def search(
    theta,
    todo,
    lower,
    upper,
    sides_lower,
    sides_upper,
    rows,
    tableau,
    memory,
    budget,
    allowance,
    z,
    status,
    multipliers,
    low,
    high,
):
    """Solve rows until all are done or an allowance is used up; called again, it goes on where it was.

    Args:
        theta: [m, n], max |θ| of each row at most 1.
        todo: Which of them to solve.
        lower: Integer bounds of the variables, [1 or m, n].
        upper: As above.
        sides_lower: Sides, [1 or m, h].
        sides_upper: As above.
        rows: [h, n].
        tableau: Of this size.
        memory: Of this size; its position is 0 at first.
        budget: Entries that a row may touch beside those that the rows before it, in `memory`, have left over; a row
            that needs more is given up.
        allowance: Entries touched, after which to return.
        z: [m, n], states to start from, or NaN; gets the best states that were found.
        status: [m], is written.
        multipliers: [m, h], where nothing but the rows' linear programs is asked for: it gets the prices of the rows,
            none of which is negative for knapsacks; else [0, h].
        low: [m, n] or [0, n], gets bounds then that the states in z allow.
        high: As above.
    """
    counts, spent = memory.counts, 0.0
    height, width = rows.matrix.shape
    while counts[POSITION] < len(todo):
        r = todo[counts[POSITION]]
        bottom, top = lower[r % len(lower)], upper[r % len(upper)]
        sides_low, sides_high = sides_lower[r % len(sides_lower)], sides_upper[r % len(sides_upper)]
        goes_on = True
        if not counts[HAS_BEGUN]:
            memory.work[SAVED] += budget
            goes_on = _begin(tableau, rows, memory, theta[r], bottom, top, sides_low, sides_high, z[r])
        while goes_on and memory.work[WORK] <= memory.work[SAVED]:
            if spent > allowance:
                return
            before = memory.work[WORK]
            if counts[AGE] == _ANEW:
                reset(tableau, rows.matrix, theta[r])
                counts[AGE] = 0
            counts[AGE] += 1
            end, bound, is_done = _look(tableau, rows, memory, theta[r])
            if len(multipliers) > 0:
                _report(tableau, memory, bound, multipliers[r], low[r], high[r])
                break
            if is_done:
                goes_on = _backtrack(tableau, memory)
            else:
                goes_on = _leave_or_branch(
                    tableau, rows, memory, theta[r], bottom, top, sides_low, sides_high, end, bound, z[r]
                )
            memory.work[WORK] += _NODE + height * width + 2 * len(rows.data) + 4 * width
            spent += memory.work[WORK] - before
        counts[HAS_BEGUN] = 0
        counts[POSITION] += 1
        memory.work[SAVED] -= memory.work[WORK]
        if len(multipliers) > 0:
            continue
        if goes_on:
            status[r] = GIVEN_UP
        elif memory.work[BEST] == -np.inf:
            status[r] = EMPTY
        else:
            status[r] = PROVED
        if status[r] != PROVED:
            for j in range(width):
                z[r, j] = np.nan
