"""The table by which an op, whose arguments are tensors and numbers, finds the live object it works for."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

_objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def new_handle(target: object) -> int:
    """Return a number, never used before in this process, under which `find` gives the object while it lives."""
    handle = next(_numbers)
    _objects[handle] = target
    return handle


def find(handle: int) -> Any:
    """Return the object of a handle."""
    try:
        return _objects[handle]
    except KeyError:
        raise RuntimeError(
            f"the layer behind handle {handle} is gone: keep a reference to it until backward has run"
        ) from None
