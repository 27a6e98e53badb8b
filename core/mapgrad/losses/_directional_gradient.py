"""Perturbation gradient losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.arguments import positive
from mapgrad.batching import require_bool
from mapgrad.losses._loss import Loss
from mapgrad.losses._values import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem


class DirectionalGradient(Loss):
    """PG: a finite difference of the optimal value along the true costs (Gupta and Huang, NeurIPS 2024).

    With costs, V(c) = min_z ⟨c, z⟩ and h = `width`, predicted costs ĉ and true ones c: the central difference
    (V(ĉ + hc) − V(ĉ − hc)) / 2h, or that to one side, (V(ĉ) − V(ĉ − hc)) / h. Both approach the decision's true cost
    ⟨c, z(ĉ)⟩ as h goes to 0, and the second one is never below it. The gradient is (z(ĉ + hc) − z(ĉ − hc)) / 2h, or
    that of the one side. With utilities t it is the same of ĉ = −θ and c = −t, so the loss is −⟨t, z(θ)⟩ in the limit:
    lower is better in either case.

    The step has the length h‖c‖: it is relative to that of the true costs, whatever their units. The prediction should
    be about as large; a width well below 1 leaves many rows without a gradient. Where predictions begin near 0, as
    those of a fresh linear layer do, z(ĉ + hc) is near the best state from the first step on, and z(ĉ) is anything:
    the central difference learns much faster, with as many solves.

    Args:
        solver: See `Loss`, as for the others.
        width: h > 0.
        central: Whether to step to both sides, or to ĉ − hc alone.
        minimize: Whether predictions and true values are costs.
        reduction: "mean", "sum" or "none".
        return_solution: Whether z(ĉ + hc) comes back too, or z(ĉ) unless `central`.

    Raises:
        TypeError: `central` isn't a bool.
        ValueError: `width` isn't positive and finite.
    """

    takes_nan = True

    def __init__(
        self,
        solver: SolverOrFunction,
        *,
        width: float = 1.0,
        central: bool = True,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
    ) -> None:
        super().__init__(solver, minimize=minimize, reduction=reduction, return_solution=return_solution)
        self.width = positive("width", width)
        self.central = require_bool("central", central)

    def forward(
        self, pred: Tensor, true: Tensor, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            true: Of the same shape, the true ones, which are values and not states; no gradient flows there.
            problems: One problem a row, in place of the solver's own; pred is then [B, *shape].

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in the same units as `true`.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: a row that is solved lies outside of the problem's domain.
            RowsError: a row has no acceptable answer.
        """
        theta = self.utilities(pred, problems)
        step = self.width * self.true_utilities(true, theta)
        split = self.split(theta, problems)
        near, name = (theta + step, "pred + width · true") if self.central else (theta, "pred")
        far = theta - step
        z = self.solve(near, name, problems)
        z_far = self.solve(far, "pred − width · true", problems)
        z, z_far = self.dropped(torch.stack((z, z_far)), theta, split)
        values = (inner(far, z_far, split) - inner(near, z, split)) / ((1 + self.central) * self.width)
        return self.result(values, z)
