"""Learning to rank a pool of states as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.gradients._arguments import positive
from mapgrad.losses._ranking import RankingLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._pooled import Scores
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import StatePool


class ListwiseRanking(RankingLoss):
    """The cross-entropy of Gibbs' laws over a pool (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    −Σ_z p(z) log q(z) over the states of the pool, in nats, with p(z) ~ exp(⟨t, z⟩/T) and q(z) ~ exp(⟨θ, z⟩/T). Its
    gradient is the difference of their means, (E_q z − E_p z)/T, and its least value p's entropy. (The paper divides by
    P, too.)

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
