"""The table by which an op, whose arguments are tensors and numbers, finds the live object it works for."""

from __future__ import annotations

import secrets
import weakref
from typing import Any

_objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def new_handle(target: object) -> int:
    """Return a number under which `find` gives the object while it lives.

    It is a random one: compilers take it for a constant and keep their code on disk, for other processes too.
    """
    handle = secrets.randbits(62)
    _objects[handle] = target
    return handle


def find(handle: int) -> Any:
    """Return the object of a handle."""
    try:
        return _objects[handle]
    except KeyError:
        raise RuntimeError(
            f"what stood behind handle {handle} is gone: keep a reference to the layer or solver as long as its "
            f"results are used. A program of torch.export that another process loads has none: export a layer in eval "
            f"mode with a solver of tensor operations, such as topk, or call the layer outside of the program"
        ) from None
