# pyright: reportAttributeAccessIssue=false
"""Portfolios of the largest return within a limit on risk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import clarabel  # whose names come from a compiled module that has no types
import numpy as np
from scipy import sparse

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ACCURACY: Final = 1e-12
"""Of residuals and of the gap, which the method is told to reach; it nearly does."""

_ENOUGH: Final = 1e-9
"""By how much a row's proved bound may exceed what its answer is worth."""

_SHORT: Final = 0.7
_SHORTER: Final = 0.5
"""How far to the cone's boundary a step goes, in place of 99 %: more steps, and more digits at the end."""

_DUST: Final = 1e-10
"""Shares below this are 0: an interior point has none."""

_BEYOND: Final = 2e-7
"""By how much ‖R z‖ may exceed 1: that is within the millionth of the risk which a state may exceed it by."""


class _Model(NamedTuple):
    """A native model, and the exposures R [m, n] of its assets."""

    native: Any
    exposures: NDArray[np.float64]


class InteriorPoint(mapgrad.InstanceSolver[mapgrad.Portfolio, _Model]):
    """A primal-dual interior-point method on the second-order cone program (Goulart and Chen, arXiv 2405.12762).

    max ⟨θ, z⟩ over z ≥ 0 with Σ z ≤ 1 and ‖R z‖ ≤ 1. What it finds is made feasible and proved optimal: for any u, no
    portfolio is worth more than max_i (θ + Rᵀ u)_i + ‖u‖, where the first term counts only if it is positive, or if the
    budget must be spent. u comes from the cone's dual variables.
    """

    traits = mapgrad.Traits(masks=True)

    def init(self) -> _Model:
        """Build the model of all assets."""
        return self._model(self.problem.exposures)

    def solve(self, state: _Model, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the shares of the budget, float64 [n], with their bound."""
        if request.forbidden is None:
            return self._solve(state, theta)
        allowed, z = ~request.forbidden, np.zeros(theta.shape)
        if not allowed.any():
            status = mapgrad.Status.INFEASIBLE if self.problem.fully_invested else mapgrad.Status.OPTIMAL
            return mapgrad.Solution(z, status)
        found = self._solve(self._model(self.problem.exposures[:, allowed]), theta[allowed])
        if found.z is None:
            return found
        z[allowed] = found.z
        return mapgrad.Solution(z, found.status, found.objective, found.bound)

    def _solve(self, state: _Model, theta: NDArray[np.float64]) -> mapgrad.Solution:
        best = int(theta.argmax())
        if theta[best] <= 0 and not self.problem.fully_invested:
            return mapgrad.Solution(np.zeros(theta.shape), objective=0.0, bound=0.0)
        if np.linalg.norm(state.exposures[:, best]) <= 1:
            return mapgrad.Solution(np.eye(1, len(theta), best)[0], objective=theta[best], bound=theta[best])
        found = self._iterated(state, theta)
        # now and then it stops far from the optimum; where returns are nearly equal, more often a little before it
        for is_equilibrated, step in ((False, None), (True, _SHORT), (False, _SHORTER)):
            if found.status not in (mapgrad.Status.FEASIBLE, mapgrad.Status.ERROR):
                break
            model = self._model(state.exposures, is_equilibrated=is_equilibrated, step=step)
            other = self._iterated(model, theta)
            if other.status is mapgrad.Status.INFEASIBLE and self.problem.fully_invested:
                return other
            found = _better(found, other)
        return found

    def _iterated(self, state: _Model, theta: NDArray[np.float64]) -> mapgrad.Solution:
        native, exposures = state
        native.update(q=-theta)
        found = native.solve()
        if found.status in (clarabel.SolverStatus.PrimalInfeasible, clarabel.SolverStatus.AlmostPrimalInfeasible):
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        shares, u = np.array(found.x), np.array(found.z)[-len(exposures) :]
        z = np.where(shares > _DUST, shares, 0.0)
        if self.problem.fully_invested:
            z /= z.sum()
            if np.linalg.norm(exposures @ z) > 1 + _BEYOND:
                is_proved = float((u @ exposures).max()) + float(np.linalg.norm(u)) < 0
                return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE if is_proved else mapgrad.Status.ERROR)
        else:
            z /= max(z.sum(), np.linalg.norm(exposures @ z), 1.0)
        value = float(theta @ z)
        price = float((theta + u @ exposures).max())
        bound = (price if self.problem.fully_invested else max(price, 0.0)) + float(np.linalg.norm(u))
        return mapgrad.Solution(z, _proved(value, bound), value, bound)

    def _model(
        self, exposures: NDArray[np.float64], *, is_equilibrated: bool = True, step: float | None = None
    ) -> _Model:
        m, n = exposures.shape
        rows = np.concatenate((np.ones((1, n)), -np.eye(n), np.zeros((1, n)), -exposures))
        sides = np.concatenate((np.ones(1), np.zeros(n), np.ones(1), np.zeros(m)))
        budget = clarabel.ZeroConeT(1) if self.problem.fully_invested else clarabel.NonnegativeConeT(1)
        cones = [budget, clarabel.NonnegativeConeT(n), clarabel.SecondOrderConeT(1 + m)]
        settings: Any = clarabel.DefaultSettings()
        settings.verbose, settings.max_threads = False, 1
        settings.equilibrate_enable = is_equilibrated
        settings.presolve_enable = settings.input_sparse_dropzeros = False  # else θ can't be changed
        settings.chordal_decomposition_enable = False  # likewise
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _ACCURACY
        if step is not None:
            settings.max_step_fraction = step
        costs = sparse.csc_matrix((n, n)), np.zeros(n)
        return _Model(clarabel.DefaultSolver(*costs, sparse.csc_matrix(rows), sides, cones, settings), exposures)


def _proved(value: float, bound: float) -> mapgrad.Status:
    return mapgrad.Status.OPTIMAL if bound - value <= _ENOUGH else mapgrad.Status.FEASIBLE


def _better(one: mapgrad.Solution, other: mapgrad.Solution) -> mapgrad.Solution:
    """Return the better one of two answers to the same returns, with the lower one of their bounds."""
    if one.objective is None or other.objective is None or one.bound is None or other.bound is None:
        return other if one.z is None else one
    best = max(one, other, key=lambda solution: solution.objective or 0.0)
    value, bound = max(one.objective, other.objective), min(one.bound, other.bound)
    return mapgrad.Solution(best.z, _proved(value, bound), value, bound)
