"""A solver as a PyTorch layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from mapgrad.batching import require_float
from mapgrad.distribution import PerturbAndMAP
from mapgrad.gradients import IMLE, Engine, Estimator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.problems import Problem
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

    @overload
    def forward(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
    @overload
    def forward(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
    def forward(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None
    ) -> Tensor | list[Tensor]:
        """Return z for θ (costs if `minimize`).

        Args:
            theta: [*batch, *shape]; with `problems`, [B, *shape] or a list of B tensors of their shapes.
            problems: One problem a row, in place of the solver's own.

        Returns:
            As the class says; a list of B tensors where θ is a list.
        """
        samples = self.estimator.samples if self.training else 1
        if problems is None:
            theta = require_float(theta)
            z = self.sample(-theta if self.minimize else theta, samples, perturb=self.training)
            return self._reduced(z).to(theta.dtype)
        utilities = [-row if self.minimize else row for row in theta]
        states = self.sample_each(utilities, problems, samples, perturb=self.training)
        rows = [self._reduced(z).to(row.dtype) for z, row in zip(states, theta, strict=True)]
        if not isinstance(theta, Tensor):
            return rows
        return torch.stack(rows, dim=-1 - theta[0].ndim) if rows else theta

    def _reduced(self, z: Tensor) -> Tensor:
        if not self.training:
            return z.squeeze(0)
        return z.mean(dim=0) if self.reduction == "mean" else z

    def distribution(self, theta: Tensor) -> PerturbAndMAP:
        """Return the perturb-and-MAP distribution of θ [*batch, *shape] (costs if `minimize`)."""
        return PerturbAndMAP(self, -theta if self.minimize else theta)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}"

    if TYPE_CHECKING:

        @overload
        def __call__(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
        @overload
        def __call__(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
        def __call__(self, theta: Any, problems: Any = None) -> Any: ...  # noqa: D102 (forward has it)
