"""Branch and bound over integer variables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import mapgrad
from mapgrad_search import refusal
from mapgrad_search._form import Form
from mapgrad_search._knapsack import pack
from mapgrad_search._memory import BEST, POSITION, SAVED, Memory
from mapgrad_search._simplex import Tableau
from mapgrad_search._tree import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_CONSTRAINTS: Final = 8
"""Up to so many, one row that stands for all of them bounds knapsacks well."""

_NODES: Final = (300, 10_000)
"""That a knapsack may take with a first sum of its constraints, and with the prices of its linear program."""

_PORTIONS: Final = (1024, 32)
"""Rows that these searches solve before Python looks whether they are to stop: some hundredths of a second."""

_ALLOWANCE: Final = 2e7
"""Entries of tableaus that the last search touches before that."""

_LEAST_ALLOWANCE: Final = 2e4
"""As many take as long as it takes to call it."""

_SECONDS_PER_ENTRY: Final = 1e-9
_SECONDS_PER_NODE: Final = 2e-8
_OPEN: Final = -1

_LEAST: Final = 2.0**-10


@dataclass(eq=False)
class _State:
    tableau: Tableau
    memory: Memory


class _Task:
    """Rows [m, n] with bounds [1 or m, n] and sides [1 or m, h], and where answers go."""

    def __init__(self, block: mapgrad.Block, form: Form) -> None:
        limits = mapgrad.Limits.of(form.program) if block.limits is None else block.limits
        lower, upper, row_lower, row_upper = (np.atleast_2d(each) for each in limits)
        if block.forbidden is not None:
            lower, upper = np.where(block.forbidden, 0.0, lower), np.where(block.forbidden, 0.0, upper)
        self.bounds = np.array(lower, order="C"), np.array(upper, order="C")
        self.form, self.given = form, (row_lower, row_upper)
        self.sides = form.own_sides if block.limits is None else form.sides(*self.given, is_wide=True)
        self.theta, self.z, self.status = block.theta, block.z, block.status
        self.left = np.full(len(block), np.inf if block.seconds is None else block.seconds)

    @property
    def is_packing(self) -> bool:
        lower, upper = self.bounds
        return bool((lower >= 0).all() and (upper <= 1).all() and (self.sides[0] <= 0).all())

    def keep(self, rows: NDArray[np.int64], known: NDArray[np.float64]) -> None:
        """Return to states [len(rows), n] that were known, where a search among better ones found none."""
        theta, found = self.theta[rows], self.z[rows]
        is_better = (theta * found).sum(axis=1) > (theta * known).sum(axis=1)  # never where found is NaN
        self.z[rows] = np.where(is_better[:, None], found, known)
        self.status[rows[self.status[rows] == int(mapgrad.Status.INFEASIBLE)]] = int(mapgrad.Status.OPTIMAL)

    def spend(self, rows: NDArray[np.int64], began: float) -> None:
        """Take the time since then from what is left for rows, in equal parts."""
        self.left[rows] -= (time.monotonic() - began) / max(len(rows), 1)

    def reopen(self) -> bool:
        """Open rows again whose states break a row of the program, for narrow sides; tell whether there are any."""
        known = np.flatnonzero(np.isfinite(self.z).all(axis=1))
        broken = known[self.form.breaks(self.z[known], *(_of(side, known) for side in self.given))]
        self.z[broken], self.status[broken] = np.nan, _OPEN
        self.sides = self.form.sides(*self.given, is_wide=False)
        return len(broken) > 0

    @property
    def steps(self) -> int:
        """How often bounds may be tightened on the way to a leaf."""
        lower, upper = self.bounds
        return int(np.maximum(upper - lower, 0).sum(axis=1).max(initial=0)) + 1


class Search(mapgrad.InstanceSolver[Any, _State]):
    """Branch and bound in numba, for programs of integer variables within small bounds.

    Knapsacks are searched depth first in the order of utility per weight, bounded by a sum of their constraints. What
    takes longer, and all other programs, are searched with linear programs as bounds, by the dual simplex method from
    node to node; a node is left only by a bound that its prices prove without the tableau's rounding.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True, limits=True, gives_up=True, stoppable=True)

    def __init__(self, problem: mapgrad.Knapsack | mapgrad.IntegerProgram, **options: Any) -> None:
        super().__init__(problem, **options)
        self._form = Form.of(problem.to_ilp())
        matrix = self._form.rows.matrix
        is_packing = bool((matrix >= 0).all()) and 0 < len(matrix) <= _CONSTRAINTS
        self._weights = np.ascontiguousarray(matrix.T) if is_packing else None

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        """Tell whether another program's variables keep within the limits of this search, too."""
        return refusal(other) is None

    def init(self) -> _State:
        """Make room for a tableau, and the kernels ready."""
        search.ready()
        if self._weights is not None:
            pack.ready()
        height, width = self._form.rows.matrix.shape
        return _State(Tableau.of_size(height, width), Memory.of_size(height, width, 0))

    def solve_rows(self, state: _State, block: mapgrad.Block) -> None:
        """Write a best state of each row."""
        task = _Task(block, self._form)
        if task.steps > len(state.memory.trail):
            height, width = self._form.rows.matrix.shape
            state.memory = Memory.of_size(height, width, task.steps)
        if block.start is not None:
            task.z[:] = np.rint(block.start)
        task.status[:] = _OPEN
        if self._weights is not None and task.is_packing:
            self._pack(state, task, block)
        self._search(state, task, block)
        if self._form.is_rough.any() and task.reopen():
            self._search(state, task, block)
        task.z += 0.0  # no negative zeros
        is_open = task.status == _OPEN
        task.z[is_open], task.status[is_open] = np.nan, int(mapgrad.Status.TIME_LIMIT)

    def _pack(self, state: _State, task: _Task, block: mapgrad.Block) -> None:
        """Search rows as knapsacks; those that are left keep the best states found."""
        rows = self._form.rows
        capacities = np.minimum(task.sides[1], 1 + rows.matrix.sum(axis=1))
        multipliers = 1 / np.maximum(capacities, _LEAST)
        most = np.inf if block.seconds is None else block.seconds / _SECONDS_PER_NODE
        nodes = [int(min(each, most)) for each in _NODES]
        for portion in _portions(np.arange(len(task.theta)), _PORTIONS[0], block):
            began = time.monotonic()
            pack(
                *(task.theta, portion, *task.bounds, self._weights, capacities, multipliers),
                *(nodes[0], task.z, task.status),
            )
            task.spend(portion, began)
        multipliers = np.zeros((len(task.theta), len(rows.matrix)))
        low, high = np.empty((2, *task.theta.shape))
        for portion in _portions(np.flatnonzero(task.status == _OPEN), _PORTIONS[1], block):
            began = time.monotonic()
            state.memory.restart()
            search(
                *(task.theta, portion, *task.bounds, *task.sides, rows, state.tableau, state.memory),
                *(np.inf, np.inf, task.z, task.status, multipliers, low, high),
            )
            known = task.z[portion]
            pack(
                *(task.theta, portion, low, high, self._weights, capacities, multipliers),
                *(nodes[1], task.z, task.status),
            )
            task.keep(portion, known)
            task.spend(portion, began)

    def _search(self, state: _State, task: _Task, block: mapgrad.Block) -> None:
        """Search the rows that are left."""
        rows, tableau, memory = self._form.rows, state.tableau, state.memory
        budget = np.inf if block.patience is None else block.patience / _SECONDS_PER_ENTRY
        todo = np.flatnonzero(task.status == _OPEN)
        memory.work[SAVED] = 0.0
        nothing = np.empty((0, len(rows.matrix))), *np.empty((2, 0, task.theta.shape[1]))
        for portion in _portions(todo, len(todo) if block.seconds is None else 1, block):
            memory.restart()
            while True:
                began, left = time.monotonic(), task.left[portion].min(initial=np.inf)
                search(
                    *(task.theta, portion, *task.bounds, *task.sides, rows, tableau, memory),
                    *(budget, min(_ALLOWANCE, max(left / _SECONDS_PER_ENTRY, _LEAST_ALLOWANCE)), task.z, task.status),
                    *nothing,
                )
                task.spend(portion, began)
                if memory.counts[POSITION] == len(portion) or block.stopped:
                    break
                if task.left[portion].min() <= 0:
                    task.status[portion] = int(mapgrad.Status.TIME_LIMIT)
                    if memory.work[BEST] == -np.inf:
                        task.z[portion] = np.nan
                    break


def _of(sides: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return sides if len(sides) == 1 else sides[rows]


def _portions(rows: NDArray[np.int64], size: int, block: mapgrad.Block) -> Iterator[NDArray[np.int64]]:
    """Yield some rows after the other, once an empty portion where there are none, until a block is stopped."""
    for start in range(0, max(len(rows), 1), max(size, 1)):
        if block.stopped:
            return
        yield rows[start : start + size]
