"""Ctrl-C, kept for Python."""

from __future__ import annotations

import ctypes
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_get_handler: Final = ctypes.pythonapi.PyOS_getsig
_get_handler.argtypes, _get_handler.restype = (ctypes.c_int,), ctypes.c_void_p
_set_handler: Final = ctypes.pythonapi.PyOS_setsig
_set_handler.argtypes, _set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

_lock = threading.Lock()
_inside: list[int | None] = []  # for each thread at work, the handler that was there before the first of them


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Put the process's handler of SIGINT back after a call of CBC.

    CBC swaps it for its own and back, which threads at the same time turn into for good: the one that comes second
    takes the first one's handler for the one to restore. `signal.signal` would work in the main thread only.
    """
    with _lock:
        _inside.append(_inside[0] if _inside else _get_handler(signal.SIGINT))
    try:
        yield
    finally:
        with _lock:
            _set_handler(signal.SIGINT, _inside.pop())
