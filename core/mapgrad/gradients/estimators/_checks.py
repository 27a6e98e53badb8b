"""Whether an estimator fits its layer, and what it returned is what it must be: a user's own may return anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor

from mapgrad.batching import name_problem
from mapgrad.errors import ShapeError, UnsupportedProblemError
from mapgrad.gradients.estimators._estimator import Forward

if TYPE_CHECKING:
    from mapgrad.gradients.estimators._estimator import Estimator
    from mapgrad.problems import Problem


def require_same_problem(estimator: Estimator, problem: Problem | None) -> None:
    """Refuse an estimator for one problem in a layer that solves another.

    Raises:
        UnsupportedProblemError: it is so.
    """
    own: Problem | None = getattr(estimator, "problem", None)
    if own is not None and problem is not None and own != problem:
        raise UnsupportedProblemError(
            f"this {type(estimator).__name__} is for {name_problem(own)}, but the layer solves "
            f"{name_problem(problem)}: take {type(estimator).__name__}(solver.problem)"
        )


def require_forward(estimator: Estimator, forward: Any, theta: Tensor, samples: int) -> None:
    """Refuse what `Estimator.forward` must not return.

    Args:
        estimator: The estimator.
        forward: What it returned.
        theta: [B, *shape], what it was given.
        samples: S.

    Raises:
        TypeError: it isn't a `Forward` of tensors.
        ShapeError: a tensor's shape, dtype or device is wrong.
    """
    if not isinstance(forward, Forward):
        raise TypeError(
            f"{type(estimator).__qualname__}.forward must return a Forward, got {_told(forward)}: "
            f"end it with return mapgrad.Forward(z, status)"
        )
    shape, dtype = (samples, *theta.shape), theta.dtype
    if not _is_like(forward.z, shape, dtype, theta):
        _refuse(estimator, "forward", "z", f"[S, B, *shape] = {_kind(shape, dtype, theta)}", forward.z)
    if not _is_like(forward.status, shape[:2], torch.int64, theta):
        _refuse(estimator, "forward", "status", f"[S, B] = {_kind(shape[:2], torch.int64, theta)}", forward.status)
    if forward.rows is not None and not _is_like(forward.rows, shape, dtype, theta):
        _refuse(estimator, "forward", "rows", f"None or [S, B, *shape] = {_kind(shape, dtype, theta)}", forward.rows)
    variables: Any = forward.variables
    rows = samples * len(theta)
    if variables is not None and not (isinstance(variables, Tensor) and len(variables) == rows):
        _refuse(estimator, "forward", "variables", f"None or [S · B, num_vars] = [{rows}, num_vars]", variables)
    _require_state(estimator, "forward", forward.state, theta)


def require_gradient(estimator: Estimator, gradient: Any, theta: Tensor) -> None:
    """Refuse what `Estimator.gradient` must not return.

    Args:
        estimator: The estimator.
        gradient: What it returned.
        theta: [B, *shape], what it is the gradient for.

    Raises:
        TypeError: it isn't a tensor.
        ShapeError: its shape, dtype or device isn't θ's.
    """
    if not _is_like(gradient, theta.shape, theta.dtype, theta):
        expected = f"[B, *shape] = {_kind(tuple(theta.shape), theta.dtype, theta)}"
        _refuse(estimator, "gradient", "the gradient for θ", expected, gradient)


def require_state_like(
    estimator: Estimator, theta: Tensor, state: tuple[Tensor, ...] | None = None
) -> tuple[Tensor, ...]:
    """Return what `Estimator.state_like` says, by which compilers make room for the state.

    Args:
        estimator: The estimator.
        theta: [B, *shape].
        state: What `Estimator.forward` gave, as for the whole batch; None where that isn't known yet.

    Raises:
        TypeError: it isn't a tuple of tensors.
        ShapeError: their number, shapes or dtypes aren't those of `state`, or can't be a state's.
    """
    like = estimator.state_like(theta)
    _require_state(estimator, "state_like", like, theta)
    if state is not None and _kinds(like) != _kinds(state):
        raise ShapeError(
            f"{type(estimator).__qualname__}.state_like must return tensors of the shapes and dtypes of Forward.state, "
            f"which torch.compile and torch.func need: forward gave {_kinds(state)}, but it returned {_kinds(like)}"
        )
    return like


def _require_state(estimator: Estimator, method: str, state: Any, theta: Tensor) -> None:
    if not isinstance(state, tuple):
        _refuse(estimator, method, "state", "a tuple of tensors", state)
    for number, tensor in enumerate(cast("tuple[object, ...]", state)):
        if not isinstance(tensor, Tensor) or (tensor.ndim > 0 and tensor.shape[0] != theta.shape[0]):
            expected = (
                f"a tensor without dimensions, or with one entry a row in its first dimension, B = {theta.shape[0]},"
            )
            _refuse(estimator, method, f"state[{number}]", expected, tensor)


def _is_like(value: Any, shape: tuple[int, ...], dtype: torch.dtype, theta: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == shape and value.dtype is dtype and value.device == theta.device


def _refuse(estimator: Estimator, method: str, name: str, expected: str, value: Any) -> NoReturn:
    error = ShapeError if isinstance(value, Tensor) else TypeError
    raise error(
        f"{type(estimator).__qualname__}.{method} returned {_told(value)} as {name}, where {expected} was expected"
    )


def _kinds(state: tuple[Tensor, ...]) -> str:
    return f"({', '.join(f'{tensor.dtype} {tuple(tensor.shape)}' for tensor in state)})"


def _told(value: Any) -> str:
    return _kind(tuple(value.shape), value.dtype, value) if isinstance(value, Tensor) else type(value).__name__


def _kind(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> str:
    return f"{dtype} {shape} on {like.device}"
