"""Learning to rank the best state of a pool before the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.gradients._arguments import non_negative
from mapgrad.losses._pooled import PooledLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._pooled import Scores
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import StatePool


class PairwiseRanking(PooledLoss):
    """A hinge loss of the best state against each other (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    1/(P − 1) Σ_z max(0, ν + ⟨θ, z − z*⟩) over the P states of the pool that are worse than z* by the true utilities,
    and as many zeros as others are as good. With ν = 0, θ = 0 is one of its minima.

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

    def forward(self, pred: Tensor, true: Tensor, z_true: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones; no gradient flows there.
            z_true: Of the same shape, their best states; None solves for them, which takes as many solves again.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units of θ.

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
        is_worse = scores.allowed & (scores.true < scores.true_best - scores.rounding)
        excess = (self.margin + scores.pred - scores.pred_best).masked_fill(~is_worse, 0.0).clamp(min=0)
        others = (scores.allowed.sum(dim=1, keepdim=True) - 1).clamp(min=1)
        weights = (excess > 0) / others.to(excess)
        return (excess / others).sum(dim=1), weights, -weights.sum(dim=1, keepdim=True)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, margin={self.margin}"
