"""Checks of constructor arguments, so that each kind of mistake is worded in one place."""

from __future__ import annotations

import reprlib
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._arrays import frozen_array, is_array, without_torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    EdgeList: TypeAlias = NDArray[Any] | Tensor | Iterable[Sequence[int]]


def integer(name: str, value: object, low: int, high: int | None = None, hint: str = "") -> int:
    """Return an argument as a Python int, so that equal problems have equal digests whatever int type came in.

    Raises:
        ProblemError: value is no integer (bool and float aren't), or not in low..high.
    """
    number = None if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if number is None or number < low or (high is not None and number > high):
        wanted = f"an integer ≥ {low}" if high is None else f"an integer from {low} to {high}"
        raise ProblemError(f"{name} must be {wanted}, got {value!r} ({type(value).__name__}){hint and f': {hint}'}")
    return number


def flag(name: str, value: object) -> bool:
    """Return an argument as a Python bool.

    Raises:
        ProblemError: value is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise ProblemError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return bool(cast("bool", value))


def grid_cell(name: str, value: object, height: int, width: int) -> tuple[int, int]:
    """Return an argument as the (row, column) of a cell of a grid.

    Raises:
        ProblemError: value isn't a pair of integers, or lies outside the grid.
    """
    try:
        row, column = cast("Iterable[object]", value)
    except (TypeError, ValueError):
        raise ProblemError(f"{name} must be a pair (row, column), got {value!r}") from None
    hint = f"{name} must lie in the {height}×{width} grid"
    return integer(f"{name}'s row", row, 0, height - 1, hint), integer(f"{name}'s column", column, 0, width - 1, hint)


def edge_array(edges: EdgeList, num_nodes: int, kind: str = "edge") -> NDArray[np.int64]:
    """Return a list of edges, or of what else a kind of them is called, as a read-only int64 array [E, 2].

    Raises:
        ProblemError: edges aren't pairs of integers, there are none, or an endpoint isn't in 0..num_nodes - 1.
    """
    given: Any = without_torch("edges", edges)
    try:
        array = np.asarray(given if is_array(given) else list(given))
    except (TypeError, ValueError):  # not iterable, or ragged
        raise ProblemError(
            f"{kind}s must be pairs of nodes, as an array [E, 2] or a list of pairs, got {reprlib.repr(given)}"
        ) from None
    if array.size == 0:
        raise ProblemError(f"{kind}s must hold at least one {kind}, got none: θ and z have one entry for each {kind}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ProblemError(
            f"{kind}s must have shape [E, 2], one pair of nodes for each {kind}, got shape {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise ProblemError(f"{kind}s must hold integers, got dtype {array.dtype}: number the nodes 0..{num_nodes - 1}")
    outside = ((array < 0) | (array >= num_nodes)).any(axis=1)
    if outside.any():
        number = int(outside.argmax())
        raise ProblemError(
            f"{kind} {number} is {tuple(array[number].tolist())}, but the nodes of a graph with num_nodes={num_nodes} "
            f"are 0..{num_nodes - 1}"
        )
    return frozen_array(array, np.int64)
