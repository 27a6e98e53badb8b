"""Tours of a complete graph, undirected and directed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Final

import numpy as np

import mapgrad
from mapgrad import Status
from mapgrad_highs._model import TOLERANCE, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE: Final = 1e-6

_CUTS_KEPT: Final = 4
"""Where there are more than four times as many cuts as nodes, the next row begins without any."""

_Problem = mapgrad.TravelingSalesman | mapgrad.AsymmetricTravelingSalesman

_Cut = tuple["NDArray[np.int64]", int]
"""Edges, and how many of them a tour has at most."""


@dataclass
class _State:
    """The relaxations, of which the integer one holds only the cuts that matter to its row, and the linear one all."""

    linear: Model
    integer: Model
    cuts: list[_Cut] = field(default_factory=list)
    stopped: Event = field(default_factory=Event)


class BranchAndCut(mapgrad.InstanceSolver[_Problem, _State]):
    """The program of Dantzig, Fulkerson and Johnson (1954), with those of its subtour constraints that are needed.

    Two edges meet at each node; a directed tour enters each node once and leaves it once. That no fewer nodes have a
    tour of their own is demanded where an optimum without the demand has one: first of linear programs, then of integer
    ones. These cuts hold for all tours, so the linear program keeps them for the rows that follow; among several
    optimal tours another one may then be found.
    """

    traits = mapgrad.Traits(releases_gil=True, history_free=False, masks=True)

    def __init__(self, problem: _Problem) -> None:
        super().__init__(problem)
        self._num_nodes = problem.n
        if isinstance(problem, mapgrad.TravelingSalesman):
            self._edges, self._num_degrees = problem.edges, problem.n
        else:
            self._edges, self._num_degrees = np.argwhere(np.ones(problem.shape)), 2 * problem.n

    def init(self) -> _State:
        """Pass the degree constraints to HiGHS, once for linear and once for integer programs."""
        tails, heads = self._edges.T
        if self._num_degrees > self._num_nodes:  # a row for each node that is left, then for each that is entered
            heads = self._num_nodes + heads
        row, column = np.concatenate((tails, heads)), np.tile(np.arange(len(tails)), 2)
        degrees = mapgrad.SparseRows.from_entries(row, column, 1, (self._num_degrees, len(tails)))
        right = np.full(self._num_degrees, 2 * self._num_nodes // self._num_degrees)
        upper = self.problem.box[1].ravel()
        linear, integer = (
            mapgrad.IntegerProgram(A_eq=degrees, b_eq=right, upper=upper, integrality=kind) for kind in (0, 1)
        )
        return _State(Model(linear), Model(integer))

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the best tour's edges as a 0/1 array of θ's shape, [n(n - 1)/2] or [n, n]."""
        state.stopped.clear()
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        if len(state.cuts) > _CUTS_KEPT * self._num_nodes:
            state.cuts.clear()
            state.linear.keep_rows(self._num_degrees)
        barred = np.zeros(0, dtype=np.int64) if request.forbidden is None else np.flatnonzero(request.forbidden)
        self._set_upper(state, barred, np.zeros(len(barred)))
        solution = self._solve(state, theta.ravel(), request, deadline)
        self._set_upper(state, barred, self.problem.box[1].ravel()[barred])
        return solution

    def _solve(
        self, state: _State, prices: NDArray[np.float64], request: mapgrad.Request, deadline: float | None
    ) -> mapgrad.Solution:
        shape = self.problem.shape
        relaxed = self._cut(state, state.linear, mapgrad.EngineCall(prices, 0, state.stopped), deadline)
        x = relaxed.x
        if relaxed.status is not Status.OPTIMAL or x is None:
            return mapgrad.Solution(None, relaxed.status)
        if np.abs(x - np.rint(x)).max() <= _TOLERANCE:
            return mapgrad.Solution(np.rint(x).reshape(shape))
        state.integer.keep_rows(self._num_degrees)
        state.integer.add_rows([cut for cut in state.cuts if x[cut[0]].sum() > cut[1] - _TOLERANCE])
        start = None if request.start is None or not request.reuse else request.start.ravel()
        call = mapgrad.EngineCall(prices, 0, state.stopped, reuse=request.reuse, start=start)
        answer = self._cut(state, state.integer, call, deadline)
        tour = None if answer.x is None else np.rint(answer.x).reshape(shape)
        bound = None if answer.status is Status.OPTIMAL else answer.bound
        return mapgrad.Solution(tour, answer.status, bound=bound)

    def stop(self, state: _State) -> None:
        """End the row that runs, with the best tour found so far."""
        state.stopped.set()

    def close(self, state: _State) -> None:
        """Free the models."""
        state.linear.close()
        state.integer.close()

    def _set_upper(self, state: _State, columns: NDArray[np.int64], upper: NDArray[np.float64]) -> None:
        if len(columns):
            for model in (state.linear, state.integer):
                model.set_bounds(columns, np.zeros(len(columns)), upper)

    def _cut(
        self, state: _State, model: Model, call: mapgrad.EngineCall, deadline: float | None
    ) -> mapgrad.EngineAnswer:
        """Return a model's optimum, once no set of nodes is found there that has a tour of its own."""
        while True:
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            answer = model.maximize(replace(call, seconds=seconds))
            if state.stopped.is_set():
                answer = replace(answer, status=Status.TIME_LIMIT)
            if call.start is not None and answer.x is not None and not _attains(call, answer):
                call = replace(call, start=None)
                continue
            cuts = [] if answer.x is None else self._subtours(answer.x)
            if not cuts:
                return answer
            if answer.status is not Status.OPTIMAL:
                return replace(answer, x=None)
            state.cuts.extend(cuts)
            for each in {state.linear, model}:
                each.add_rows(cuts)

    def _subtours(self, x: NDArray[np.float64]) -> list[_Cut]:
        """Return cuts that x violates.

        Nodes are joined by edges of ever smaller x, and each set of nodes that appears is looked at. Where x is
        integer, these are all its subtours; elsewhere a violated cut may stay unseen.
        """
        u, v = self._edges.T
        weight = np.zeros((self._num_nodes, self._num_nodes))
        weight[u, v] = x
        group = [[node] for node in range(self._num_nodes)]
        found: dict[frozenset[int], None] = {}
        for edge in np.argsort(-x, kind="stable")[: np.count_nonzero(x > _TOLERANCE)].tolist():
            first, second = group[u[edge]], group[v[edge]]
            if first is second:
                continue
            first.extend(second)
            for node in second:
                group[node] = first
            if len(first) < self._num_nodes and weight[np.ix_(first, first)].sum() > len(first) - 1 + _TOLERANCE:
                others = set(range(self._num_nodes)).difference(first)
                found[frozenset(min(first, others, key=len))] = None
        inside = np.zeros((len(found), self._num_nodes), dtype=np.bool_)
        for number, nodes in enumerate(found):
            inside[number, list(nodes)] = True
        return [(np.flatnonzero(part[u] & part[v]), int(part.sum()) - 1) for part in inside]


def _attains(call: mapgrad.EngineCall, answer: mapgrad.EngineAnswer) -> bool:
    """Tell whether a point has the objective that HiGHS gives.

    HiGHS 1.16 may take a start for another, better point of the presolved program, and return the start.
    """
    x, objective = answer.x, answer.objective
    if x is None or objective is None:
        return True
    return bool(abs(objective - call.theta @ x) <= TOLERANCE * (1 + np.abs(call.theta) @ np.abs(x)))
