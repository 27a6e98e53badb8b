"""What made rows that can't be solved where θ and ∂L/∂z are as they should be: asked before an error is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.batching import name_problem

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients.estimators import Estimator

_OURS = __name__.partition(".")[0]


def culprit_of(
    estimator: Estimator, noise: Noise | None, theta: Tensor, sampler: Sampler, *, is_backward: bool
) -> tuple[str, str] | None:
    """Return what made rows with NaN or infinite entries, and what to do about it.

    Args:
        estimator: Whose pass it is.
        noise: The law of the noise; None for none.
        theta: [B, *shape], utilities.
        sampler: Its noise.
        is_backward: Whether it happened in the backward pass.

    Returns:
        None where it is θ or, in a backward pass, a step of ours.
    """
    if (theta.isnan() | theta.isposinf()).any():
        return None
    if noise is not None:
        drawn = sampler.perturb(torch.zeros_like(theta), 1.0)
        if not drawn.isfinite().all():
            return f"the noise of {name_problem(noise)} has NaN or infinite values", "let its sample return finite ones"
        largest = estimator.largest_temperature
        if not (drawn * largest).isfinite().all():
            return f"the noise times temperature={largest:g} overflows {theta.dtype}", "take a smaller temperature"
    if not is_backward:
        is_ours = _is_ours(estimator, "forward") or not theta.isfinite().all()
        return None if is_ours else _asked_by(estimator, "forward", "θ")
    if not _is_ours(estimator, "gradient"):
        return _asked_by(estimator, "gradient", "θ and ∂L/∂z")
    target = getattr(estimator, "target", None)
    if target is None or _is_ours(target, "forward"):
        return None
    return (
        f"the θ′ of {type(target).__qualname__}.forward has NaN or infinite entries",
        "let it return finite ones: those of θ and ∂L/∂z are",
    )


def _is_ours(owner: object, method: str) -> bool:
    return getattr(type(owner), method).__module__.partition(".")[0] == _OURS


def _asked_by(estimator: Estimator, method: str, finite: str) -> tuple[str, str]:
    return (
        f"{type(estimator).__qualname__}.{method} asked for states of θ with NaN or infinite entries",
        f"let it ask for finite ones: those of {finite} are",
    )
