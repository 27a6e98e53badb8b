"""Portfolios within a limit on the variance of their return."""

from __future__ import annotations

import math
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._arguments import numbers
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import flag
from mapgrad.problems._membership import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

_ROUNDING: Final = 1e-10
"""Of the largest entry or eigenvalue: what asymmetry and negative eigenvalues may come from."""


class Portfolio(Problem):
    """All ways to share a budget of 1 among n assets within a limit on risk: z ≥ 0, Σ z ≤ 1 and zᵀ Σ z ≤ risk.

    The Markowitz problem (Journal of Finance 1952) without short sales, as Elmachtoub and Grigas state it (Smart
    «Predict, then Optimize», Management Science 2022, section 6.2); θ are the returns. z is real-valued: `contains`
    allows a millionth of the budget and of the risk. The set is convex but no polyhedron, so that it stands for no
    integer program and can't be enumerated.

    Args:
        covariance: [n, n] finite numbers, symmetric and positive semidefinite: Σ, the covariance of the returns. Kept
            as a read-only float64 array.
        risk: The largest variance, finite and > 0.
        fully_invested: Whether all of the budget must be spent: Σ z = 1. There may then be no state.

    Raises:
        ProblemError: an argument isn't as said.
    """

    covariance: NDArray[np.float64]
    risk: float
    fully_invested: bool

    def __init__(self, covariance: ArrayLike, risk: float, *, fully_invested: bool = False) -> None:
        given = numbers("covariance", covariance)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or given.size == 0:
            raise ProblemError(f"covariance must have shape [assets, assets], at least [1, 1], got {given.shape}")
        entries = given.astype(np.float64)
        if np.isinf(entries).any():
            raise ProblemError(f"covariance must be finite, got {entries[np.isinf(entries)][0]}")
        apart = np.abs(entries - entries.T).max()
        if apart > _ROUNDING * np.abs(entries).max():
            raise ProblemError(f"covariance must be symmetric, but entries differ by {apart:g} from those across")
        entries = (entries + entries.T) / 2
        eigenvalues = np.linalg.eigvalsh(entries)
        if eigenvalues[0] < -_ROUNDING * max(eigenvalues[-1], 0):
            raise ProblemError(f"covariance must be positive semidefinite, but has the eigenvalue {eigenvalues[0]:g}")
        if isinstance(risk, bool) or not isinstance(risk, Real) or not 0 < risk < math.inf:
            raise ProblemError(f"risk must be a finite number > 0, the largest variance of the return, got {risk!r}")
        self.covariance = frozen_array(entries + 0.0, np.float64)
        self.risk = float(risk)
        self.fully_invested = flag("fully_invested", fully_invested)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,), one entry for each asset: its share of the budget."""
        return (len(self.covariance),)

    @property
    def kappa(self) -> float:
        """1, the budget."""
        return 1.0

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """Σ z = 1 where all of the budget must be spent."""
        return {(0,): 1.0} if self.fully_invested else {}

    @cached_property
    def exposures(self) -> NDArray[np.float64]:
        """R [m, n], read-only, with ‖R z‖² = zᵀ Σ z / risk: the limit is ‖R z‖ ≤ 1.

        Of the two that are tried, the one with fewer entries: an upper triangle, or, where few factors drive the
        returns, √(σ / risk) I with the least eigenvalue σ of Σ, over an eigenvector for each of the larger ones.
        """
        eigenvalues, vectors = np.linalg.eigh(self.covariance)
        eigenvalues = np.maximum(eigenvalues, 0)
        above = eigenvalues - eigenvalues[0]
        least = _ROUNDING**1.5 * eigenvalues[-1]
        is_factor = above > least
        # where what isn't told apart is nothing beside each asset's own variance
        if 2 * (is_factor.sum() + 1) < len(vectors) and least <= _ROUNDING * self.covariance.diagonal().min():
            factors = vectors[:, is_factor] * np.sqrt(above[is_factor])
            root = np.concatenate((np.sqrt(eigenvalues[0]) * np.eye(len(vectors)), factors.T))
        else:
            deviations = np.sqrt(np.diagonal(self.covariance).clip(min=0))
            deviations[deviations == 0] = 1
            # of correlations, as a covariance's eigenvectors have no digits left for assets of far smaller deviations
            eigenvalues, vectors = np.linalg.eigh(self.covariance / deviations / deviations[:, None])
            root = np.linalg.qr((vectors * np.sqrt(np.maximum(eigenvalues, 0))).T * deviations).R
        return frozen_array(root / math.sqrt(self.risk), np.float64)

    def in_box(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, n] are within 0 and 1, up to a millionth: bool [N]."""
        return np.logical_and.reduce((z >= -TOLERANCE) & (z <= 1 + TOLERANCE), axis=1)

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, n] keep the budget and the limit on risk, up to a millionth: bool [N]."""
        spent = z.sum(axis=1)
        is_within = spent <= 1 + TOLERANCE
        if self.fully_invested:
            is_within &= spent >= 1 - TOLERANCE
        variance = np.einsum("ij,ij->i", z @ self.covariance, z)
        return is_within & (variance <= self.risk * (1 + TOLERANCE))
