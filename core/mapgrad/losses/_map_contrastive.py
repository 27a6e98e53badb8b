"""The contrastive loss of the best state of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.losses._pooled import PooledLoss
from mapgrad.losses._true_states import rounding_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.losses._pooled import Scores
    from mapgrad.problems import Problem


class MAPContrastive(PooledLoss):
    """The true state against the best of the pool (Mulamba, Mandi, Diligenti, Lombardi, Bucarey and Guns 2021).

    max_z ⟨θ, z − z*⟩ over the pool and z* (IJCAI 2021, arXiv 2011.05354), with the subgradient z − z*: the perceptron's
    loss, whose best state the pool gives. θ = 0 is one of its minima. With true utilities t it is, as in that paper,
    max_z ⟨θ − t, z − z*⟩: the structured hinge loss over the pool, whose margin is the regret, so that predictions keep
    the scale of t. Arguments as for `PooledLoss`.
    """

    def forward(
        self, pred: Tensor, z_true: Tensor, true: Tensor | None = None, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            true: Of the same shape, the true utilities; None for the loss without them.
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
        best = self.true_states(z_true, theta)
        if true is None:
            return self.over_pool(theta, best)
        return self.over_pool(theta, best, self.true_utilities(true, theta), rounding_of(true, z_true))

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        margins = (scores.pred - scores.true) - (scores.pred_best - scores.true_best)
        values, places = margins.masked_fill(~scores.allowed, -torch.inf).max(dim=1, keepdim=True)
        is_wrong = (values > 0).to(margins)
        weights = torch.zeros_like(margins).scatter_(1, places, is_wrong)
        return values.clamp(min=0).squeeze(1), weights, -is_wrong
