"""What losses share that hold a ranking of a pool's states to the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.losses._pooled import PooledLoss
from mapgrad.losses._true_states import rounding_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.problems import Problem


class RankingLoss(PooledLoss):
    """A loss over a pool that compares what its states are worth by predictions and by true values."""

    def forward(
        self, pred: Tensor, true: Tensor, z_true: Tensor | None = None, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones, which are values and not states; no gradient flows there.
            z_true: Of the same shape, their best states; None solves for them, which takes as many solves again.
            problems: Refused, as a pool is of one problem.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units that the class says.

        Raises:
            TypeError: there are `problems`.
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: `true`, which is solved, lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry; or the pool is empty.
            RowsError: a row that is solved has no acceptable answer.
        """
        theta = self.utilities(pred, problems)
        t = self.true_utilities(true, theta)
        best = self.solve(t, "true") if z_true is None else self.true_states(z_true, theta)
        return self.over_pool(theta, best, t, None if z_true is None else rounding_of(true, z_true))
