"""Learning to rank a pool of states as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.arguments import positive
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

    It takes true values, never states in their place, which would train the wrong way.

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
        log_q, log_p = (self._log_law(each, scores.allowed) for each in (scores.pred, scores.true))
        p = log_p.exp()
        values = -(p * log_q.masked_fill(p == 0, 0.0)).sum(dim=1)
        most = torch.finfo(values.dtype).max * 2.0**-64  # of which many may be added
        return values.clamp(max=most), (log_q.exp() - p) / self.temperature, p.new_zeros(len(p), 1)

    def _log_law(self, values: Tensor, allowed: Tensor) -> Tensor:
        """Return log-probabilities [N, P] of states of these values; −inf for what isn't allowed."""
        behind = values.masked_fill(~allowed, -torch.inf)
        behind -= behind.amax(dim=1, keepdim=True)  # first, as the quotient may overflow
        return behind.div_(self.temperature).log_softmax(dim=1)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, temperature={self.temperature}"
