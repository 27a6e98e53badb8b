"""Learning to rank the best state of a pool before the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.arguments import non_negative
from mapgrad.losses._ranking import RankingLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._pooled import Scores
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import StatePool


class PairwiseRanking(RankingLoss):
    """A hinge loss of the best state against each other (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    1/(P − 1) Σ_z max(0, ν + ⟨θ, z − z*⟩) over the P states of the pool that are worse than z* by the true utilities,
    and as many zeros as others are as good; in units of θ. With ν = 0, θ = 0 is one of its minima.

    It takes true values, never states in their place, which would train the wrong way.

    Args:
        solver: See `PooledLoss`, as for the others.
        pool: The states.
        margin: ν ≥ 0, in units of θ.
        solve_ratio: The probability with which a predicted row is solved.
        minimize: Whether predictions and true values are costs.
        reduction: "mean", "sum" or "none".
        return_solution: Whether the pool's best states come back too.

    Raises:
        ValueError: `margin` is negative or not finite.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        pool: StatePool | None = None,
        *,
        margin: float = 0.0,
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
        self.margin = non_negative("margin", margin)

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        is_worse = scores.allowed & (scores.true < scores.true_best - scores.rounding)
        excess = (self.margin + scores.pred - scores.pred_best).masked_fill(~is_worse, 0.0).clamp(min=0)
        others = (scores.allowed.sum(dim=1, keepdim=True) - 1).clamp(min=1)
        weights = (excess > 0) / others.to(excess)
        return (excess / others).sum(dim=1), weights, -weights.sum(dim=1, keepdim=True)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, margin={self.margin}"
