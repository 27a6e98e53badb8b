"""Knapsacks: depth first in the order of utility per weight, bounded by one row that stands for all.

Horowitz and Sahni (1974), Computing partitions with applications to the knapsack problem, Journal of the ACM 21(2),
277-292; with several constraints, a sum of them bounds: Glover (1965), A multiphase-dual algorithm for the zero-one
integer programming problem, Operations Research 13(6), 879-919.
"""

from __future__ import annotations

import numpy as np
from numba import types

import mapgrad
from mapgrad_search._kernels import GIVEN, INDICES, TABLE, TODO, short
from mapgrad_search._tree import EMPTY, PROVED, TOLERANCE

_ROUNDING = 1e-12


@short
def _sort(items, ratios):
    """Sort items by falling ratios, equal ones by their numbers (Shell's sort)."""
    count, gap = len(items), 1
    while 3 * gap < count:
        gap = 3 * gap + 1
    while gap > 0:
        for a in range(gap, count):
            ratio, item, b = ratios[a], items[a], a - gap
            while b >= 0 and (ratios[b] < ratio or (ratios[b] == ratio and items[b] > item)):
                ratios[b + gap], items[b + gap] = ratios[b], items[b]
                b -= gap
            ratios[b + gap], items[b + gap] = ratio, item
        gap //= 3


@mapgrad.kernel(GIVEN, TODO, *[GIVEN] * 5, types.int64, TABLE, INDICES)
def pack(theta, todo, lower, upper, weights, capacities, multipliers, nodes, z, status):
    """Pack some rows; those that take more than some nodes are left, with the best that was found in z.

    Args:
        theta: [m, n].
        todo: Which rows to pack.
        lower: Bounds, 0 or 1, [1 or m, n]: items that must be packed have 1.
        upper: Items that mustn't be packed have 0.
        weights: [n, h], at least 0.
        capacities: [1 or m, h].
        multipliers: [1 or m, h], at least 0: what the constraints count in the one that bounds.
        nodes: How many a row may take.
        z: [m, n], is written.
        status: [m], is written but where rows are left.
    """
    width, height = weights.shape
    items, ratios = np.empty(width, dtype=np.int64), np.empty(width)
    loads = np.zeros(width)
    # over the items in their order: sums of θ and of loads, to find in one place what fits, and weights
    values, heavy, packed = np.zeros(width + 1), np.zeros(width + 1), np.empty((width, height))
    # by depth: value, room, where the room ends, and slack of each constraint; nothing is undone, so nothing drifts
    value, room, ends = np.zeros(width + 1), np.empty(width + 1), np.empty(width + 1, dtype=np.int64)
    slack = np.empty((width + 1, height))
    chosen, best_chosen = np.empty(width, dtype=np.bool_), np.empty(width, dtype=np.bool_)
    for number in range(len(todo)):
        r = todo[number]
        low, high, capacity = lower[r % len(lower)], upper[r % len(upper)], capacities[r % len(capacities)]
        factors = multipliers[r % len(multipliers)]
        if number == 0 or len(multipliers) > 1:
            for j in range(width):
                loads[j] = 0.0
                for i in range(height):
                    loads[j] += factors[i] * weights[j, i]
        is_feasible = True
        for i in range(height):
            slack[0, i] = capacity[i]
        for j in range(width):
            is_feasible &= low[j] <= high[j]
            z[r, j] = low[j]
            if low[j] > 0:
                for i in range(height):
                    slack[0, i] -= weights[j, i]
        room[0] = 0.0
        for i in range(height):
            is_feasible &= slack[0, i] >= 0
            room[0] += factors[i] * slack[0, i]
        if not is_feasible:
            for j in range(width):
                z[r, j] = np.nan
            status[r] = EMPTY
            continue
        count = 0
        for j in range(width):
            if theta[r, j] > 0 and low[j] < high[j]:
                fits = True
                for i in range(height):
                    fits &= weights[j, i] <= slack[0, i]
                if fits:
                    items[count], ratios[count] = j, theta[r, j] / loads[j]
                    count += 1
        _sort(items[:count], ratios[:count])
        for a in range(count):
            j = items[a]
            values[a + 1], heavy[a + 1] = values[a] + theta[r, j], heavy[a] + loads[j]
            chosen[a] = best_chosen[a] = False
            for i in range(height):
                packed[a, i] = weights[j, i]
        room[0] += _ROUNDING * (room[0] + heavy[count])
        ends[0], best, a, visited = 0, -1.0, 0, 0
        goes_back = is_left = False
        while True:
            if goes_back:
                a -= 1
                while a >= 0 and not chosen[a]:
                    a -= 1
                if a < 0:
                    break
            elif a == count:
                if value[a] > best:
                    best = value[a]
                    for b in range(count):
                        best_chosen[b] = chosen[b]
                goes_back = True
                continue
            else:
                fits = True
                for i in range(height):
                    fits &= packed[a, i] <= slack[a, i]
                if fits:
                    chosen[a] = True
                    for i in range(height):
                        slack[a + 1, i] = slack[a, i] - packed[a, i]
                    value[a + 1] = value[a] + (values[a + 1] - values[a])
                    room[a + 1] = room[a] - (heavy[a + 1] - heavy[a])
                    ends[a + 1] = ends[a]
                    a += 1
                    continue
            # without item a
            chosen[a] = False
            end, a = ends[a], a + 1
            for i in range(height):
                slack[a, i] = slack[a - 1, i]
            value[a], room[a] = value[a - 1], room[a - 1]
            visited += 1
            if visited > nodes:
                is_left = True
                break
            end = max(end, a)
            limit = room[a] + heavy[a]
            while end < count and heavy[end + 1] <= limit:
                end += 1
            ends[a] = end
            bound = value[a] + values[end] - values[a]
            if end < count:
                bound += (limit - heavy[end]) * ((values[end + 1] - values[end]) / (heavy[end + 1] - heavy[end]))
            goes_back = bound <= best + TOLERANCE
        for a in range(count):
            if best_chosen[a]:
                z[r, items[a]] = 1.0
        if not is_left:
            status[r] = PROVED
