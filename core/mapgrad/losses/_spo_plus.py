"""The smart predict-then-optimize loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.losses._loss import Loss
from mapgrad.losses._true_states import beaten_rows, rounding_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.problems import Problem


class SPOPlus(Loss):
    """SPO+, a convex upper bound of the regret (Elmachtoub and Grigas, Management Science 2022, arXiv 1710.08005).

    With true utilities t: max_z ⟨2θ − t, z⟩ − 2⟨θ, z*⟩ + ⟨t, z*⟩, where z* = MAP(t), of which 2 (MAP(2θ − t) − z*) is a
    subgradient. It is at least the regret ⟨t, z* − z⟩ of each z in argmax ⟨θ, z⟩.

    2θ − t leaves the domain of a problem that is defined for θ ≤ 0 alone wherever a cost is predicted at less than half
    of its true value: such rows are refused.

    Args:
        solver: See `Loss`, as for the others.
        minimize: Whether predictions and true values are costs.
        reduction: "mean", "sum" or "none".
        return_solution: Whether MAP(2θ − t) comes back too.
    """

    takes_nan = True

    def forward(
        self, pred: Tensor, true: Tensor, z_true: Tensor | None = None, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones; no gradient flows there.
            z_true: Of the same shape, their best states; None solves for them, which takes as many solves again.
            problems: One problem a row, in place of the solver's own; pred is then [B, *shape].

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in the same units as `true`.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: 2θ − t, or t, lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state.
            RowsError: a row has no acceptable answer.
        """
        theta = self.utilities(pred, problems)
        t = self.true_utilities(true, theta)
        best = self.solve(t, "true", problems) if z_true is None else self.true_states(z_true, theta, problems)
        # an entry that both forbid is forbidden here too
        rows = (2 * theta - t).masked_fill(theta.detach().isneginf(), -torch.inf)
        z = self.solve(rows, "2 pred − true", problems)
        if z_true is not None and not self.has_warned:
            split = self.split(theta, problems)
            self.warn_of_beaten(beaten_rows(t, z, best, split, rounding_of(true, z_true)), tuple(theta.shape[:split]))
        return self.result(self.excess(rows, z, best, problems), z)
