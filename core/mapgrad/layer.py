"""A solver as a PyTorch layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mapgrad.distribution import PerturbAndMAP
from mapgrad.gradients import IMLE, Engine, Estimator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.solvers import MAPSolver

Reduction = Literal["mean", "none"]


class MAPLayer(Engine):
    """z = argmax ⟨θ, z⟩ over a feasible set, with a gradient for θ.

    In training mode θ is perturbed as the estimator says, and the output is the mean over its samples; in eval mode it
    is MAP(θ), without noise. Both have a gradient. Works under autocast, torch.compile(fullgraph=True),
    torch.func.vmap and torch.func.grad; a second derivative is refused.

    Args:
        solver: A `Solver` from `get_solver`, or any function θ [B, *shape] → z [B, *shape], which is called with whole
            batches in order, once a sample.
        estimator: The gradient estimator; None for ``IMLE()``.
        minimize: Whether the layer's input are costs, to be minimised, instead of utilities.
        reduction: "mean" over the samples, or "none" for all of them in training, [S, *batch, *shape].
        seed: None draws noise from torch's default generators; an int makes it a function of (seed, step, row, sample).

    Shape:
        θ [*batch, *shape] of any float dtype, on any device → z of the same shape, dtype and device.

    Raises:
        ShapeError, NonFiniteError, DomainError, RowsError: As for `Solver`, on the forward or the backward pass.
    """

    def __init__(
        self,
        solver: MAPSolver | Callable[[Tensor], Tensor],
        estimator: Estimator | None = None,
        *,
        minimize: bool = False,
        reduction: Reduction = "mean",
        seed: int | None = None,
    ) -> None:
        estimator = IMLE() if estimator is None else estimator
        if not isinstance(estimator, Estimator):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"estimator must be an Estimator, such as mapgrad.IMLE(), got {estimator!r}")
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
        super().__init__(solver, estimator, seed=seed)
        self.minimize = minimize
        self.reduction: Reduction = reduction

    def forward(self, theta: Tensor) -> Tensor:
        """Return z for θ [*batch, *shape] (costs if `minimize`); see the class."""
        utilities = -theta if self.minimize else theta
        if not self.training:
            return self.sample(utilities, 1, perturb=False).squeeze(0).to(theta.dtype)
        z = self.sample(utilities, self.estimator.samples)
        return (z.mean(dim=0) if self.reduction == "mean" else z).to(theta.dtype)

    def distribution(self, theta: Tensor) -> PerturbAndMAP:
        """Return the perturb-and-MAP distribution of θ [*batch, *shape] (costs if `minimize`)."""
        return PerturbAndMAP(self, -theta if self.minimize else theta)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}"

    if TYPE_CHECKING:

        def __call__(self, theta: Tensor) -> Tensor:  # noqa: D102
            ...
