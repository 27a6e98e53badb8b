"""Learning to rank a pool of states as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.gradients._arguments import positive
from mapgrad.losses._pooled import PooledLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._pooled import Scores
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import StatePool


class ListwiseRanking(PooledLoss):
    """The cross-entropy of Gibbs' laws over a pool (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    −Σ_z p(z) log q(z) over the states of the pool, with p(z) ~ exp(⟨t, z⟩/T) and q(z) ~ exp(⟨θ, z⟩/T). Its gradient is
    the difference of their means, (E_q z − E_p z)/T, and its least value p's entropy. (The paper divides by P, too.)

    Args:
        solver: See `PooledLoss`, as for the others.
        pool: The states.
        temperature: T > 0, in units of θ.
        solve_ratio: The probability with which a predicted row is solved.
        minimize: Whether predictions and true values are costs.
        reduction: "mean", "sum" or "none".
        return_solution: Whether the pool's best states come back too.

    Raises:
        ValueError: `temperature` isn't positive and finite.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        pool: StatePool | None = None,
        *,
        temperature: float = 1.0,
        solve_ratio: float = 1.0,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
    ) -> None:
        super().__init__(
            solver,
            pool,
            solve_ratio=solve_ratio,
            minimize=minimize,
            reduction=reduction,
            return_solution=return_solution,
        )
        self.temperature = positive("temperature", temperature)

    def forward(self, pred: Tensor, true: Tensor, z_true: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones; no gradient flows there.
            z_true: Of the same shape, their best states; None solves for them, which takes as many solves again.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: `true`, which is solved, lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry; or the pool is empty.
            RowsError: a row that is solved has no acceptable answer.
        """
        theta = self.utilities(pred)
        t = self.true_utilities(true, theta)
        z_true = self.solve(t, "true") if z_true is None else self.true_states(z_true, theta)
        return self.over_pool(theta, z_true, t)

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        log_q, log_p = (
            (each.masked_fill(~scores.allowed, -torch.inf) / self.temperature).log_softmax(dim=1)
            for each in (scores.pred, scores.true)
        )
        p = log_p.exp()
        values = -(p * log_q.masked_fill(~scores.allowed, 0.0)).sum(dim=1)
        return values, (log_q.exp() - p) / self.temperature, p.new_zeros(len(p), 1)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, temperature={self.temperature}"
