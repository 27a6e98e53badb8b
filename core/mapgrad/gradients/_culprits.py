"""What made rows that can't be solved where θ and ∂L/∂z are as they should be: asked before an error is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import Culprit, has_forbidden, name_problem
from mapgrad.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.errors import RowsError
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients.estimators import Estimator
    from mapgrad.problems import Problem

_OVERFLOW: Final[Culprit] = (
    "θ itself is fine, but θ + temperature · noise has NaN or infinite entries",
    "take a smaller temperature or a wider dtype",
)

_OURS = __name__.partition(".")[0]


def blamed(
    error: RowsError,
    problem: Problem | None,
    estimator: Estimator,
    noise: Noise | None,
    theta: Tensor,
    sampler: Sampler,
    *,
    is_backward: bool,
) -> tuple[RowsError, Culprit | None]:
    """Return a pass's error, or that of θ itself where it has one, and what made rows with NaN or infinite entries.

    Args:
        error: What a solve raised.
        problem: What was to be solved.
        estimator: Whose pass it is.
        noise: The law of the noise; None for none.
        theta: [B, *shape], utilities.
        sampler: Its noise.
        is_backward: Whether it happened in the backward pass.

    Returns:
        The error, and None where it is about something else, about θ or, in a backward pass, about a step of ours.
    """
    if not isinstance(error, NonFiniteError):
        return error, None
    try:
        has_forbidden(theta, problem)
    except NonFiniteError as of_theta:
        return of_theta, None
    return error, _culprit_of(estimator, noise, theta, sampler, is_backward=is_backward)


def _culprit_of(
    estimator: Estimator, noise: Noise | None, theta: Tensor, sampler: Sampler, *, is_backward: bool
) -> Culprit | None:
    if noise is not None:
        drawn = sampler.perturb(torch.zeros_like(theta), 1.0)
        if not drawn.isfinite().all():
            return f"the noise of {name_problem(noise)} has NaN or infinite values", "let its sample return finite ones"
        largest = estimator.largest_temperature
        if not sampler.perturb(torch.zeros_like(theta), largest).isfinite().all():
            return f"the noise times temperature={largest} overflows {theta.dtype}", "take a smaller temperature"
    if not is_backward:
        return _OVERFLOW if _is_ours(estimator, "forward") else _asked_by(estimator, "forward", "θ")
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


def _asked_by(estimator: Estimator, method: str, finite: str) -> Culprit:
    return (
        f"{type(estimator).__qualname__}.{method} asked for states of θ with NaN or infinite entries",
        f"let it ask for finite ones: those of {finite} are",
    )
