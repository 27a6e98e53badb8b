"""Arrays as parts of values: private copies that nobody can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from mapgrad.errors import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import DTypeLike, NDArray


def frozen_array(values: Iterable[Any] | NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return a private, C-contiguous, read-only copy of an array."""
    array = np.array(values, dtype=dtype, order="C")
    array.setflags(write=False)
    return array


def array_bytes(array: NDArray[Any]) -> bytes:
    """Return an array's type, shape and numbers as bytes that are the same on every machine."""
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return f"{little_endian.dtype.str}{array.shape}".encode() + little_endian.tobytes()


def without_torch(name: str, value: Any) -> Any:
    """Return a tensor's values as an array, and anything else as it is; torch isn't imported.

    Raises:
        ProblemError: value requires grad.
    """
    if getattr(value, "requires_grad", False):
        raise ProblemError(f"{name} requires grad, but gradients reach θ only: pass {name}.detach()")
    return np.asarray(value.detach().cpu()) if hasattr(value, "detach") else value


def is_array(value: object) -> TypeGuard[NDArray[Any]]:
    """Tell whether value is a numpy array, in a way that type checkers follow."""
    return isinstance(value, np.ndarray)
