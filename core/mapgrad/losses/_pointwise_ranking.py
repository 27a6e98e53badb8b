"""Learning to rank a pool of states one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.losses._ranking import RankingLoss

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.losses._pooled import Scores


class PointwiseRanking(RankingLoss):
    """Regression of what each state of a pool is worth (Mandi, Bucarey, Mulamba and Guns, ICML 2022).

    (1/P) Σ_z ⟨θ − t, z⟩² over the P states of the pool, in squared units of θ. Arguments as for `PooledLoss`.

    It takes true values, never states in their place, which would train the wrong way.
    """

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        weights = scores.allowed / scores.allowed.sum(dim=1, keepdim=True).to(scores.pred)
        errors = (scores.pred - scores.true).masked_fill(~scores.allowed, 0.0)
        weighted = weights * errors
        return (weighted * errors).sum(dim=1), 2 * weighted, errors.new_zeros(len(errors), 1)
