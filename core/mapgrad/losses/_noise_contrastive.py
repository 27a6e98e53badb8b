"""Noise-contrastive estimation over a pool of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.losses._pooled import PooledLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.losses._pooled import Scores
    from mapgrad.problems import Problem


class NoiseContrastive(PooledLoss):
    """NCE: true states against all that the pool holds (Mulamba, Mandi, Diligenti, Lombardi, Bucarey and Guns 2021).

    (1/P) Σ_z ⟨θ, z − z*⟩ over the P states of the pool (IJCAI 2021, arXiv 2011.05354), with the gradient z̄ − z*, where
    z̄ is the pool's mean. It is linear in θ and has no least value; θ − t in place of θ adds a constant alone. Arguments
    as for `PooledLoss`.
    """

    def forward(
        self, pred: Tensor, z_true: Tensor, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            problems: Refused, as a pool is of one problem.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units of θ.

        Raises:
            TypeError: there are `problems`.
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry; or the pool is empty.
            RowsError: a row that is solved has no acceptable answer.
        """
        theta = self.utilities(pred, problems)
        return self.over_pool(theta, self.true_states(z_true, theta))

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        weights = scores.allowed / scores.allowed.sum(dim=1, keepdim=True).to(scores.pred)
        values = (weights * (scores.pred - scores.pred_best)).sum(dim=1)
        return values, weights, -weights.sum(dim=1, keepdim=True)
