# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Whether what a target returned is what it must be: a user's own may return anything."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, NoReturn

import torch
from torch import Tensor

from mapgrad.errors import ShapeError
from mapgrad.gradients._adaptive_step import AdaptiveStep
from mapgrad.gradients._targets import Combinatorial, RelativeStep, Step, Target

if TYPE_CHECKING:
    from mapgrad.gradients._context import Context

_OURS: Final = frozenset({AdaptiveStep, Combinatorial, RelativeStep, Step})


def goal_of(target: Target, theta: Tensor, gradient: Tensor, context: Context, samples: int) -> Any:
    """Return what `Target.forward` does, (θ′, divisor), once that is known to fit.

    Args:
        target: The target.
        theta: As for it, likewise gradient and context.
        gradient: See there.
        context: See there.
        samples: S.

    Raises:
        TypeError: it isn't a θ′ and a divisor.
        ShapeError: a tensor's shape, dtype or device is wrong.
        ValueError: the divisor is 0, infinite or NaN.
        RuntimeError: the target wrote to θ or g̃.
    """
    if type(target) in _OURS:
        return target.forward(theta, gradient, context)
    return _checked(target, "forward", theta, gradient, context, samples)


def goals_of(target: Target, theta: Tensor, gradient: Tensor, context: Context, samples: int) -> Any:
    """Return what `Target.both_sides` does, (θ′, θ′ for −g̃, divisor); else as `goal_of`."""
    if type(target) in _OURS:
        return target.both_sides(theta, gradient, context)
    if type(target).both_sides is not Target.both_sides:
        return _checked(target, "both_sides", theta, gradient, context, samples)
    toward, divisor = _checked(target, "forward", theta, gradient, context, samples)
    away, _ = _checked(target, "forward", theta, -gradient, context, samples)
    return toward, away, divisor


def _checked(target: Target, method: str, theta: Tensor, gradient: Tensor, context: Context, samples: int) -> Any:
    versions = theta._version, gradient._version  # noqa: SLF001 (torch's documented way to tell)
    found: Any = getattr(target, method)(theta, gradient, context)
    for name, tensor, version in zip(("theta", "gradient"), (theta, gradient), versions, strict=True):
        if tensor._version != version:  # noqa: SLF001 (as above)
            raise RuntimeError(
                f"{type(target).__qualname__}.{method} wrote to its argument `{name}`, which is needed as it is: "
                f"let it make new tensors, by operations without a trailing underscore"
            )
    names = ["θ′", "divisor"] if method == "forward" else ["θ′", "θ′ for −g̃", "divisor"]
    if not isinstance(found, tuple) or len(found) != len(names):
        _refuse(TypeError, target, method, f"a tuple ({', '.join(names)})", _told(found))
    *goals, divisor = found
    shapes = {(lead, *theta.shape[1:]) for lead in (1, samples)}
    for name, goal in zip(names, goals, strict=False):
        is_like = isinstance(goal, Tensor) and goal.dtype is theta.dtype and goal.device == theta.device
        if not is_like or tuple(goal.shape) not in shapes:
            expected = f"{theta.dtype} {' or '.join(map(str, sorted(shapes)))} on {theta.device}"
            error = ShapeError if isinstance(goal, Tensor) else TypeError
            _refuse(error, target, method, f"{name} [S or 1, B, *shape] = {expected}", _told(goal))
    _require_divisor(target, method, divisor, (samples, *theta.shape[1:]))
    return found


def _require_divisor(target: Target, method: str, divisor: Any, shape: tuple[int, ...]) -> None:
    expected = "a divisor that is finite and not 0"
    if isinstance(divisor, Tensor):
        try:
            fits = torch.broadcast_shapes(divisor.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            _refuse(
                ShapeError, target, method, f"a divisor that broadcasts to [S, B, *shape] = {shape}", _told(divisor)
            )
        if not (divisor.isfinite() & (divisor != 0)).all():
            raise ValueError(f"{type(target).__qualname__}.{method} must return {expected}, got one with such entries")
    elif not isinstance(divisor, Real):
        _refuse(TypeError, target, method, "a number or a tensor as divisor", _told(divisor))
    elif not math.isfinite(divisor) or divisor == 0:
        raise ValueError(f"{type(target).__qualname__}.{method} must return {expected}, got {divisor}")


def _refuse(error: type[Exception], target: Target, method: str, expected: str, came: str) -> NoReturn:
    raise error(f"{type(target).__qualname__}.{method} must return {expected}, got {came}")


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} on {value.device}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__
