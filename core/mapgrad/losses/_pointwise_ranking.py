"""Learning to rank a pool of states one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.losses._pooled import PooledLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._pooled import Scores


class PointwiseRanking(PooledLoss):
    """Regression of what each state of a pool is worth (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    (1/P) Σ_z ⟨θ − t, z⟩² over the P states of the pool. Arguments as for `PooledLoss`.
    """

    def forward(self, pred: Tensor, true: Tensor, z_true: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones; no gradient flows there.
            z_true: Of the same shape, their best states; None solves for them, which takes as many solves again.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in squared units of θ.

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
        weights = scores.allowed / scores.allowed.sum(dim=1, keepdim=True).to(scores.pred)
        errors = (scores.pred - scores.true).masked_fill(~scores.allowed, 0.0)
        return (weights * errors.square()).sum(dim=1), 2 * weights * errors, errors.new_zeros(len(errors), 1)
