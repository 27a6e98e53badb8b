"""Results of a function that are kept, as many as a budget of bytes allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from mapgrad.workers import new_lock

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_EACH: Final = 1 << 12
"""What a key takes, about: a problem and its place here."""


class ByteCache(Generic[_K, _V]):
    """A function whose last used results are kept, as many as fit into a budget; the last one is, whatever it takes.

    Threads may share it. Where two ask for what isn't there, both make it.

    Args:
        make: Returns the result for a key.
        size_of: Returns what a result takes, in bytes; asked once, when it is made.
        max_bytes: The budget.
    """

    def __init__(self, make: Callable[[_K], _V], size_of: Callable[[_V], int], max_bytes: int) -> None:
        self._make, self._size_of, self._max_bytes = make, size_of, max_bytes
        self._kept: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = new_lock()

    def __call__(self, key: _K) -> _V:
        """Return the result for a key, made anew where it isn't kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = self._make(key)
        size = self._size_of(made) + _EACH
        with self._lock:
            _, before = self._kept.pop(key, (made, 0))
            self._kept[key] = made, size
            self._bytes += size - before
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, (_, gone) = self._kept.popitem(last=False)
                self._bytes -= gone
        return made

    def clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)
