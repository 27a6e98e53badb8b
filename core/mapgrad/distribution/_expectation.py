# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
"""Expectations from draws, whose gradient is that of the draws' log-densities: the score function's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor

from mapgrad.arguments import whole_number
from mapgrad.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

Baseline = Literal["loo"] | None

_EQUAL: Final = 1e-6
"""Costs that differ by less, relative to the largest, aren't told apart where they are standardised."""


def require_draws(samples: object, baseline: object) -> int:
    """Return a number of draws as an int, and refuse one, or a baseline, that can't be.

    Raises:
        TypeError: `samples` isn't an int.
        ValueError: it is too small for the baseline, or there is no such baseline.
    """
    if baseline not in ("loo", None):
        raise ValueError(f"baseline must be 'loo' or None, got {baseline!r}")
    return whole_number("samples", samples, 1 if baseline is None else 2, also=f" with baseline={baseline!r}")


def weights_of(log_density: Tensor, baseline: Baseline) -> Tensor:
    """Return the weight 1/S of each draw, with the gradient of the law's chance of such a draw.

    Σ_s w_s f_s is then the mean of f_s, and its gradient (1/S) Σ_s (f_s − baseline_s) ∇ log p_s.

    Args:
        log_density: [S, *batch], that of the draws, of which only the gradient counts.
        baseline: "loo" for the mean of the other draws' f, None for none.

    Returns:
        [S, *batch] float64.
    """
    scores = log_density.double()
    scores = scores - scores.detach()
    samples = len(scores)
    if baseline is not None:  # the same as to subtract the others' mean, but f's constants cancel before they are cast
        scores = (scores - scores.mean(dim=0)) * (samples / (samples - 1))
    return (1 + scores) / samples


def mean_of(weights: Tensor, values: Tensor, *, standardize: bool = False) -> Tensor:
    """Return Σ_s w_s f_s.

    Args:
        weights: [S, *batch], from `weights_of`.
        values: [S, *batch], f_s, which may have gradients of their own.
        standardize: Whether the weights' gradient is divided by the standard deviation of each row's values.

    Returns:
        [*batch] of the values' dtype.
    """
    if not standardize:
        return (weights * values).sum(dim=0).to(values.dtype)
    fixed = values.detach().double()
    squares = (fixed - fixed.mean(dim=0)).square().sum(dim=0)
    spread = (squares / (len(fixed) - 1)).sqrt()  # std() warns where there are no rows
    spread = torch.where(spread > _EQUAL * fixed.abs().amax(dim=0), spread, torch.inf)
    return values.mean(dim=0) + ((weights - weights.detach()) * fixed / spread).sum(dim=0).to(values.dtype)


def values_of(f: Callable[..., Any], z: Tensor, *rest: Tensor, batch: tuple[int, ...]) -> Tensor:
    """Return f of draws z [S, *batch, *shape] as a tensor [S, *batch] of a floating dtype, on z's device.

    Raises:
        TypeError: f returns what torch can't make a tensor of.
        ShapeError: f returns another shape, or complex numbers.
    """
    found: Any = f(z, *rest)
    try:
        values = torch.as_tensor(found, device=z.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"f must return numbers, got {type(found).__name__}") from error
    if values.shape != (len(z), *batch) or values.is_complex():
        raise ShapeError(
            f"f must return a real number for each draw and row, [S, *batch] = {(len(z), *batch)}, got {values.dtype} "
            f"{tuple(values.shape)}: it gets z of shape {tuple(z.shape)}"
        )
    return values if values.is_floating_point() else values.to(z.dtype)
