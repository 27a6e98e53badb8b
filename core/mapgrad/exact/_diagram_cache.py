"""Compiled diagrams on disk, whose every index is checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad import disk_cache
from mapgrad.exact._compiler import Nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_KIND: Final = "diagrams"

_VERSION: Final = 1
"""Of the file's contents, and of the way in which a program becomes a diagram."""


def load(key: str, num_priced: int) -> Nodes | None:
    """Return a diagram that was kept under a key, and has so many layers; None if there is none that can be used."""
    return disk_cache.load(_KIND, key, lambda file: _checked(file, num_priced))


def save(key: str, nodes: Nodes) -> None:
    """Keep a diagram under a key, as far as there is a folder that can be written to."""
    disk_cache.save(_KIND, key, {"version": _VERSION, **nodes._asdict()})


def _checked(file: Mapping[str, NDArray[Any]], num_priced: int) -> Nodes:
    """Return the diagram in a file, if it is one.

    Raises:
        ValueError: it isn't.
        KeyError: an array is missing.
    """
    if file["version"] != _VERSION:
        raise ValueError("it was written by another version")
    order, ends = (_array(file, name, np.int64) for name in ("order", "ends"))
    low, high = (_array(file, name, np.int32) for name in ("low", "high"))
    leaf_values = _array(file, "leaf_values", np.float64)
    sizes = len(order) == num_priced and len(ends) == num_priced + 1 and len(low) == len(high) == ends[0]
    if not sizes or not np.array_equal(np.sort(order), np.arange(num_priced)) or len(leaf_values) != ends[-1]:
        raise ValueError("its arrays don't fit together")
    firsts = [*ends.tolist(), 1]
    if firsts != sorted(firsts, reverse=True) or not np.isfinite(leaf_values[1:]).all() or leaf_values[0] != -np.inf:
        raise ValueError("its layers don't follow each other")
    for layer in range(num_priced):
        part, below = slice(firsts[layer + 1], firsts[layer]), (firsts[layer + 2], firsts[layer + 1])
        for children in (low[part], high[part]):
            if not ((children == 0) | ((children >= below[0]) & (children < below[1]))).all():
                raise ValueError("a node leads out of its next layer")
    if len(low) > 1 and firsts[0] - firsts[1] != 1:
        raise ValueError("it hasn't one root")
    return Nodes(order, ends, low, high, leaf_values)


def _array(file: Mapping[str, NDArray[Any]], name: str, dtype: type) -> NDArray[Any]:
    array = file[name]
    if array.ndim != 1 or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    return array
