"""The identity with projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from mapgrad.gradients._constant_sums import allowed_in, without_sums
from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature

Projection = Literal["centre", "normalise", "both"]


class Identity(Estimator):
    """The identity with projection (Sahoo et al., ICLR 2023, arXiv 2205.15213).

    The solver counts as the identity after a projection P of θ + τε that leaves its answer as it is: the gradient is
    (1/S) Σ_s P′(θ + τε_s)ᵀ g̃_s. So it has no part that the answer can't follow; else it is `StraightThrough`, and as
    biased towards no particular objective. It costs no backward solve.

    Args:
        projection: ``"centre"`` is orthogonal to all `Problem.constant_sums`: in θ they move no answer, and none
            leaves out anything where a problem has no such sum. ``"normalise"`` divides by ‖θ + τε‖, so that the
            gradient is orthogonal to θ + τε and shrinks as that grows; it is 0 where that is 0. ``"both"`` centres,
            then normalises.
        noise: See `Estimator`; none by default.
        samples: S.
        temperature: τ; see `Estimator`.

    Raises:
        ValueError: `projection` is none of these.
    """

    def __init__(
        self,
        projection: Projection = "both",
        noise: Noise | Literal["auto"] | None = None,
        *,
        samples: int = 1,
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        if projection not in get_args(Projection):
            raise ValueError(
                f"projection must be one of {', '.join(map(repr, get_args(Projection)))}, got {projection!r}"
            )
        self.projection = projection

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s P′(θ + τε_s)ᵀ g̃_s."""
        theta = forward.theta
        allowed = allowed_in(theta)
        if allowed is not None:
            theta = theta.masked_fill(allowed == 0, 0.0)
        centres = self.projection != "normalise"
        if self.projection != "centre":
            rows = forward.sampler.perturb(theta, self.temperature)
            rows = rows if allowed is None else rows * allowed
            gradient = _tangent(without_sums(rows, allowed, forward.problem) if centres else rows, gradient)
        if centres:
            gradient = without_sums(gradient, allowed, forward.problem)
        return gradient.mean(dim=0) if gradient.shape[0] > 1 else gradient[0].clone()

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"projection={self.projection!r}, noise={self.noise}, samples={self.samples}, "
            f"temperature={self.temperature}"
        )


def _tangent(rows: Tensor, gradient: Tensor) -> Tensor:
    """Return the transposed Jacobian of rows ↦ rows / ‖rows‖, both [S or 1, B, *shape], times a gradient; 0 at 0."""
    every = tuple(range(2, rows.ndim))
    peak = rows.abs().amax(dim=every, keepdim=True)
    direction = rows / torch.where(peak > 0, peak, 1)  # first, as the square of a peak may be no number
    norm = direction.square().sum(dim=every, keepdim=True).sqrt()
    direction = direction / torch.where(norm > 0, norm, 1)
    along = (direction * gradient).sum(dim=every, keepdim=True)
    length, most = norm * peak, torch.finfo(rows.dtype).max * 2.0**-16
    tangent = (gradient - along * direction) / torch.where(length > 0, length, 1)
    return torch.where(length > 0, tangent.clamp(-most, most), 0)
