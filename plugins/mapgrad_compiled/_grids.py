"""Paths on grids: sweeps over eight rows side by side, and Dijkstra's algorithm where that takes less time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INFEASIBLE, INTEGER, ROWS, STATES, STATUSES, VALUES, subroutine
from mapgrad_compiled._lanes import LANES, larger, load, minus, plus, smaller, spread, store
from mapgrad_compiled._search import UNFINISHED, Search

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEAR_CELL: Final = 20
"""A cell as near as the goal takes Dijkstra's algorithm as long as so many take that are swept to the end."""


class Grid:
    """A grid, for both algorithms.

    Attributes:
        most_sweeps: After so many sweeps, rows are left to Dijkstra's algorithm, which takes about as long.
    """

    most_sweeps = 64

    def __init__(self, problem: mapgrad.GridShortestPath) -> None:
        self._kernel = _sweeps.ready()
        self._problem = (*problem.shape, *problem.start, *problem.goal, problem.neighbors)
        cells = np.arange(problem.height * problem.width).reshape(problem.shape)
        pairs = [(cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])]
        if problem.neighbors == 8:
            pairs += [(cells[1:, 1:], cells[:-1, :-1]), (cells[1:, :-1], cells[:-1, 1:])]
        one, other = (np.concatenate([cell.ravel() for cell in side]) for side in zip(*pairs, strict=True))
        tails, heads = np.append(one, other), np.append(other, one)
        start, goal = int(cells[problem.start]), int(cells[problem.goal])
        self._search = Search(cells.size, tails, heads, heads, start, goal, own=start)
        self._is_near = _DEAR_CELL * _cells_within_reach(problem) < cells.size

    def solve(self, theta: NDArray[np.float64], block: mapgrad.Block) -> bool:
        """Write the answers of rows θ [m, n] to a block; tell whether there are rows without a path."""
        if self._is_near:
            return self._search.solve(theta, block.z, block.objective, block.status)
        failed, unfinished = self._kernel(
            theta, *self._problem, self.most_sweeps, block.z, block.objective, block.status
        )
        return (unfinished and self._search.finish(theta, block)) or failed


def _cells_within_reach(problem: mapgrad.GridShortestPath) -> int:
    """Count the cells of a square around the start that has the goal on its border."""
    ends = list(zip(problem.start, problem.goal, strict=True))
    apart = [abs(start - goal) for start, goal in ends]
    radius = max(apart) if problem.neighbors == 8 else sum(apart)
    return prod(
        min(start + radius + 1, length) - max(start - radius, 0)
        for (start, _), length in zip(ends, problem.shape, strict=True)
    )


@mapgrad.kernel(ROWS, *[INTEGER] * 8, STATES, VALUES, STATUSES)
def _sweeps(
    theta, height, width, start_row, start_column, goal_row, goal_column, neighbors, most_sweeps, z, objective, status
):
    """Lower each cell's cost by those of its neighbours, line by line from all four sides, until nothing changes.

    Any three sides in turn bring in all neighbours, so that two sweeps without a change are enough from the third sweep
    on. A border of cells that cost infinity surrounds the grid; an odd pitch spreads columns over the cache.
    """
    pitch = (width + 2) | 1
    size = (height + 2) * pitch
    cost, own = np.full((size, LANES), np.inf), np.full((size, LANES), np.inf)
    changes = np.empty((2, LANES))
    queue, following, seen = np.empty(size, np.int64), np.empty(size, np.int64), np.full(size, -1)
    if neighbors == 8:
        around = np.array([-pitch - 1, -pitch, -pitch + 1, -1, 1, pitch - 1, pitch, pitch + 1])
    else:
        around = np.array([-pitch, -1, 1, pitch])
    start, goal = (start_row + 1) * pitch + start_column + 1, (goal_row + 1) * pitch + goal_column + 1
    first_cell, last_cell = pitch + 1, height * pitch + width
    failed = unfinished = False
    for first in range(0, len(theta), LANES):
        for line in range(height):
            for column in range(width):
                cell = first_cell + line * pitch + column
                for lane in range(LANES):
                    own[cell, lane] = -theta[min(first + lane, len(theta) - 1), line * width + column]
                store(cost, cell, spread(np.inf))
        store(cost, start, load(own, start))
        count = 0
        while count < 3 or (changes.max() > 0 and count < most_sweeps):
            origin, sign = (first_cell, 1) if count % 4 < 2 else (last_cell, -1)
            lines, across, length, along = (height, pitch, width, 1) if count % 2 == 0 else (width, 1, height, pitch)
            sunk = _sweep(cost, own, origin, lines, sign * across, length, sign * along, neighbors)
            store(changes, count % 2, sunk)
            count += 1
        for lane in range(min(LANES, len(theta) - first)):
            row = first + lane
            if changes[0, lane] > 0 or changes[1, lane] > 0:
                status[row] = UNFINISHED
                unfinished = True
            elif cost[goal, lane] == np.inf:
                status[row] = INFEASIBLE
                failed = True
            else:
                objective[row] = 0.0 - cost[goal, lane]
                z[row, :] = 0.0
                _walk_back(cost, own, lane, start, goal, around, queue, following, seen, row)
                cell = start
                while cell != goal:
                    z[row, (cell // pitch - 1) * width + cell % pitch - 1] = 1.0
                    cell = following[cell]
                z[row, goal_row * width + goal_column] = 1.0
    return failed, unfinished


@subroutine
def _sweep(cost, own, origin, lines, across, length, along, neighbors):
    """Go over the lines once, from that of `origin` on, each there and back; return by how much costs sank at most."""
    sunk = spread(0.0)
    for line in range(lines):
        begin = origin + line * across
        end = begin + length * along
        reached = spread(np.inf)
        for cell in range(begin, end, along):
            before, step = load(cost, cell), load(own, cell)
            nearest = load(cost, cell - across)
            if neighbors == 8:
                diagonal = smaller(load(cost, cell - across - along), load(cost, cell - across + along))
                nearest = smaller(nearest, diagonal)
            reached = smaller(plus(reached, step), smaller(plus(nearest, step), before))
            sunk = larger(minus(before, reached), sunk)  # not where both are infinite, which makes NaN
            store(cost, cell, reached)
        reached = spread(np.inf)
        for cell in range(end - along, begin - along, -along):
            before = load(cost, cell)
            reached = smaller(plus(reached, load(own, cell)), before)
            sunk = larger(minus(before, reached), sunk)
            store(cost, cell, reached)
    return sunk


@subroutine
def _walk_back(cost, own, lane, start, goal, around, queue, following, seen, row):
    """Find the cell that follows on each, on a path of as few cells as possible among those that cost least.

    From the goal, breadth first, it goes to the neighbours whose cost and the cell's own make up the cell's cost: the
    same sums again, so they are equal to the last bit. Where cells cost nothing they may lie in a circle.
    """
    queue[0], seen[goal] = goal, row
    done, size = 0, 1
    while seen[start] != row:
        cell = queue[done]
        done += 1
        for step in around:
            other = cell + step
            if cost[other, lane] + own[cell, lane] == cost[cell, lane] and seen[other] != row:
                following[other], seen[other] = cell, row
                queue[size] = other
                size += 1
