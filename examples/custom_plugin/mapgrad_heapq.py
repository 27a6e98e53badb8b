"""Plugin ``heapq``: shortest paths on grids by Dijkstra's algorithm, in pure Python."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Dijkstra(mapgrad.InstanceSolver[mapgrad.GridShortestPath, list[list[int]]]):
    """Dijkstra's algorithm, stopped at the goal. It holds the GIL: threads don't speed it up."""

    def init(self) -> list[list[int]]:
        """List the neighbours of each cell; cells are numbered row by row."""
        problem = self.problem
        steps = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if abs(down) + abs(right) == 1 or (problem.neighbors == 8 and down and right)
        ]
        return [
            [
                (row + down) * problem.width + column + right
                for down, right in steps
                if 0 <= row + down < problem.height and 0 <= column + right < problem.width
            ]
            for row in range(problem.height)
            for column in range(problem.width)
        ]

    def solve(
        self, state: list[list[int]], theta: NDArray[np.float64], request: mapgrad.Request
    ) -> NDArray[np.float64]:
        """Return the cells of a path of the largest sum of θ ≤ 0, which is the smallest sum of costs -θ."""
        width, start, goal = self.problem.width, self.problem.start, self.problem.goal
        first, last = (row * width + column for row, column in (start, goal))
        cost = (-theta).ravel().tolist()
        distance = [math.inf] * len(cost)
        previous = [first] * len(cost)
        distance[first] = cost[first]
        heap = [(cost[first], first)]
        while heap:
            reached, cell = heappop(heap)
            if cell == last:
                break
            if reached > distance[cell]:
                continue
            for neighbor in state[cell]:
                length = reached + cost[neighbor]
                if length < distance[neighbor]:
                    distance[neighbor] = length
                    previous[neighbor] = cell
                    heappush(heap, (length, neighbor))
        z = np.zeros(theta.shape)
        while last != first:
            z.flat[last] = 1
            last = previous[last]
        z.flat[first] = 1
        return z


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="heapq",
            factory="mapgrad_heapq:Dijkstra",
            accepts=(mapgrad.GridShortestPath,),
            cost=lambda problem: 6e-7 * math.prod(problem.shape),
        )
    ]
