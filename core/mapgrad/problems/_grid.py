"""Simple paths on a grid, as sets of cells."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.errors import ProblemError, UndecidedError
from mapgrad.problems._base import Domain, Problem
from mapgrad.problems._budget import Budget
from mapgrad.problems._checks import grid_cell, integer
from mapgrad.problems._graphs import fewest_steps
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_MOVES: Final = {
    4: ((-1, 0), (0, -1), (0, 1), (1, 0)),
    8: ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
}
_MEMBERSHIP_STEPS: Final = 500_000
_PAIR_STEPS: Final = 10  # a pair of `iterate_states` takes as much time and memory as some ten steps elsewhere
_DETOUR: Final = 1.3
"""Expected cells of a shortest path over the fewest possible, as in the Warcraft experiments of the I-MLE paper."""


class GridShortestPath(Problem):
    """All simple paths of a grid between two cells, as sets of cells: 0/1 matrices of shape (height, width).

    A state holds every cell of a path, both ends included, and not the order in which the path visits them: the 235
    paths across a 3×3 grid with 8 neighbours make 62 states. θ prices cells and must be ≤ 0 (costs ≥ 0).

    Args:
        height: Number of rows, ≥ 1.
        width: Number of columns, ≥ 1.
        start: (row, column) where paths begin.
        goal: (row, column) where they end; None means the bottom right corner. Where it is the start, the only path is
            that one cell.
        neighbors: 8 lets a path move to all cells around, 4 to those that share a side.

    Raises:
        ProblemError: an argument is malformed, or start or goal lies outside the grid.
    """

    height: int
    width: int
    start: tuple[int, int]
    goal: tuple[int, int]
    neighbors: int

    def __init__(
        self,
        height: int,
        width: int,
        *,
        start: Sequence[int] = (0, 0),
        goal: Sequence[int] | None = None,
        neighbors: int = 8,
    ) -> None:
        self.height, self.width = integer("height", height, 1), integer("width", width, 1)
        self.neighbors = integer("neighbors", neighbors, 4, 8, hint="use 4 or 8")
        if self.neighbors not in _MOVES:
            raise ProblemError(f"neighbors must be 4 or 8, got {neighbors}")
        self.start = grid_cell("start", start, height, width)
        self.goal = (self.height - 1, self.width - 1) if goal is None else grid_cell("goal", goal, height, width)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width)."""
        return (self.height, self.width)

    @property
    def domain(self) -> Domain:
        """θ ≤ 0: a grid has cycles, so that a positive θ would ask for a longest path."""
        return Domain.NONPOSITIVE

    @property
    def kappa(self) -> float:
        """Expected number of cells: 1.3 times the fewest possible, rounded down, and at most the whole grid.

        From corner to corner of a square grid with 8 neighbours this is int(1.3 · side), as in the experiments of
        Niepert, Minervini and Franceschi (NeurIPS 2021).
        """
        rows, columns = (abs(a - b) for a, b in zip(self.start, self.goal, strict=True))
        fewest = 1 + (max(rows, columns) if self.neighbors == 8 else rows + columns)
        return float(min(int(_DETOUR * fewest), self.height * self.width))

    def _adjacency(self, cells: list[tuple[int, int]]) -> list[list[int]]:
        """Return for each of some cells the positions of its neighbours among them."""
        position = {cell: number for number, cell in enumerate(cells)}
        around = [[(row + down, column + right) for down, right in _MOVES[self.neighbors]] for row, column in cells]
        return [[position[cell] for cell in ring if cell in position] for ring in around]

    @cached_property
    def _neighbors(self) -> list[list[int]]:
        """For each cell, numbered row by row, the cells around."""
        return self._adjacency(list(np.ndindex(self.shape)))

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """Numbers of start and goal."""
        (start_row, start_column), (goal_row, goal_column) = self.start, self.goal
        return start_row * self.width + start_column, goal_row * self.width + goal_column

    def to_ilp(self) -> IntegerProgram:
        """Return the flow program: one unit flows from start to goal, at most once through each cell.

        Its solutions are paths, with cycles apart from them: of positive utility never in this domain, and of utility 0
        to be dropped by `repair`.
        """
        cell, (start, goal) = np.arange(self.height * self.width), self._ends
        moves = np.array([(a, b) for a, around in enumerate(self._neighbors) for b in around]).reshape(-1, 2)
        arc, (tails, heads) = len(cell) + np.arange(len(moves)), moves.T
        equal = Rows(len(cell) + len(moves))
        for end, one in ((heads, start), (tails, goal)):  # what comes in, but for the start, and what leaves
            equal.add(-1.0 * (cell == one), (end, arc, 1), (cell, cell, -1))
        lower = np.isin(np.arange(equal.num_vars), self._ends)
        return IntegerProgram(A_eq=equal.left, b_eq=equal.right, lower=lower, decision=cell, shape=self.shape)

    def repair(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the cells of a path of as few steps as possible through the cells that each row of z chooses.

        As θ ≤ 0, leaving cells out makes no row worse: what was optimal for the program becomes an optimal set of
        cells. A row whose cells hold no path comes back as it is.
        """
        start, goal = self._ends
        moves = [[(cell, cell) for cell in around] for around in self._neighbors]
        sets = z.reshape(len(z), self.height * self.width).copy()
        for cells in sets:
            steps = fewest_steps(moves, start, goal, set(np.flatnonzero(cells > 0.5).tolist()))
            if steps is not None:
                cells[:] = 0
                cells[[start, *steps]] = 1
        return sets.reshape(z.shape)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        # Level by level: which pairs (last cell, set of cells visited) some path of so many cells makes. Paths that
        # differ in their order only are one pair.
        budget = self.enumeration_budget()
        adjacency, (start, goal) = self._neighbors, self._ends
        level = {(start, 1 << start): None}
        while level:
            longer: dict[tuple[int, int], None] = {}
            for last, visited in level:
                if last == goal:
                    yield np.array([visited >> number & 1 for number in range(len(adjacency))]).reshape(self.shape)
                    continue
                for following in adjacency[last]:
                    if not visited >> following & 1:
                        budget.spend(_PAIR_STEPS)
                        longer[following, visited | 1 << following] = None
            level = longer

    def is_state(self, z: NDArray[np.float64]) -> bool:
        cells = [(row, column) for row, column in np.argwhere(z).tolist()]
        if self.start not in cells or self.goal not in cells:
            return False
        undecided = UndecidedError(
            f"whether one simple path covers these {len(cells)} cells isn't known after {_MEMBERSHIP_STEPS:,} steps "
            f"of search: {self!r}.contains decides sets that look like paths, not large filled areas"
        )
        budget = Budget(_MEMBERSHIP_STEPS, undecided)
        return _path_covers(self._adjacency(cells), cells.index(self.start), cells.index(self.goal), budget)


def _path_covers(adjacency: list[list[int]], start: int, goal: int, budget: Budget) -> bool:
    """Tell whether a simple path from start to goal visits every node of an undirected graph."""
    tried: set[tuple[int, int]] = set()
    stack = [(start, (1 << len(adjacency)) - 1 & ~(1 << start))]
    while stack:
        node, left = stack.pop()
        if node == goal and not left:
            return True
        if node == goal or (node, left) in tried:
            continue
        tried.add((node, left))
        budget.spend(1 + len(adjacency[node]))
        moves = [following for following in adjacency[node] if left >> following & 1]
        if len(moves) > 1:
            moves = _promising(adjacency, moves, left, goal, budget)
        stack.extend((following, left & ~(1 << following)) for following in moves)
    return False


def _promising(adjacency: list[list[int]], moves: list[int], left: int, goal: int, budget: Budget) -> list[int]:
    """Return those moves that may lead through all nodes left, the narrowest last."""
    free: dict[int, list[int]] = {}
    queue = [goal]
    while queue:
        node = queue.pop()
        if node not in free:
            budget.spend(1 + len(adjacency[node]))
            free[node] = [other for other in adjacency[node] if left >> other & 1]
            queue.extend(free[node])
    if len(free) < left.bit_count():
        return []
    # A path leaves such a node by its only free neighbour, and so must come to it from here.
    forced = [node for node, others in free.items() if len(others) == 1 and node != goal]
    if forced:
        moves = forced if len(forced) == 1 and forced[0] in moves else []
    return sorted(moves, key=lambda node: len(free[node]), reverse=True)
