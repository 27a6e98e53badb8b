"""Knapsacks by a search of their own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from ortools.algorithms.python import knapsack_solver

import mapgrad
from mapgrad_ortools._integers import IntegerObjective, integer_form

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEARCH: Final = knapsack_solver.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER
# Above 2⁵² the search divides by zero where an item weighs nothing under one of the constraints. Products of a profit
# and a capacity beyond 2⁶² it computes in single precision, and then may miss the optimum.
_PROFIT_BITS: Final = 52
_PRODUCT_BITS: Final = 62


class _State(NamedTuple):
    solver: Any
    weights: NDArray[np.int64]
    capacities: list[int]
    possible: NDArray[np.bool_]
    profit_bits: int


class KnapsackSearch(mapgrad.InstanceSolver[mapgrad.Knapsack, _State]):
    """OR-Tools' branch and bound for knapsacks, on θ in integers.

    Best with one constraint, or with a few and up to some fifty items; beyond, CP-SAT and MIP engines overtake it.
    What rounding θ may have cost is part of the answer's bound, as in `ortools.cp_sat`. A search ends early by its time
    limit only: OR-Tools has no call that stops it.
    """

    traits = mapgrad.Traits(releases_gil=False, masks=True)  # an item of no utility, θ = 0, is never packed

    def init(self) -> _State:
        """Write weights and capacities in integers."""
        form = integer_form(self.problem.to_ilp())
        if isinstance(form, str):
            raise mapgrad.UnsupportedProblemError(f"OR-Tools' knapsack search can't solve {self.problem!r}: {form}")
        weights = np.zeros((len(form.rows), self.problem.shape[0]), dtype=np.int64)
        for number, row in enumerate(form.rows):
            weights[number, row.columns] = row.integers
        capacities = [most for _, most in form.sides]
        possible = np.logical_and.reduce(weights <= np.array(capacities)[:, None], axis=0)
        bits = _PRODUCT_BITS - max(capacities).bit_length()
        solver = knapsack_solver.KnapsackSolver(_SEARCH, "")
        return _State(solver, weights, capacities, possible, min(bits, _PROFIT_BITS))

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the packed items as a 0/1 array [n]."""
        zeros = np.zeros(len(theta), dtype=np.int64)
        wanted = np.where(state.possible, np.maximum(theta, 0.0), 0.0)
        share = max(float(wanted.max()), 1e-300) / max(float(wanted.sum()), 1e-300)
        bits = state.profit_bits - math.frexp(share)[1]  # so that the largest profit has no more than profit_bits
        objective = IntegerObjective.of(wanted, zeros, zeros + 1, bits=bits)
        profits = objective.coefficients
        free = (state.weights == 0).all(axis=0)
        z = ((profits > 0) & free).astype(np.float64)
        items = np.flatnonzero((profits > 0) & ~free)
        status = mapgrad.Status.OPTIMAL
        if len(items):
            solver = state.solver
            solver.set_time_limit(np.inf if request.seconds is None else max(request.seconds, 0.0))
            solver.init(profits[items].tolist(), state.weights[:, items].tolist(), state.capacities)
            solver.solve()
            z[items] = [solver.best_solution_contains(place) for place in range(len(items))]
            if not solver.is_solution_optimal():
                status = mapgrad.Status.TIME_LIMIT
        proved = int(profits @ z.astype(np.int64)) if status is mapgrad.Status.OPTIMAL else None
        return objective.solution(theta, z, status, proved=proved)
