"""Arrays that processes share: memory without a name, which is gone with the last process that uses it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ALIGNMENT: Final = 64
_PAGE: Final = 1 << 16


class Shape(NamedTuple):
    """One array: its dtype, as `numpy.dtype.str`, and its dimensions."""

    dtype: str
    dimensions: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Shape:
        """Return that of an array."""
        return cls(array.dtype.str, array.shape)

    @property
    def size(self) -> int:
        """Bytes, rounded up so that the next array is aligned."""
        return -(-np.dtype(self.dtype).itemsize * math.prod(self.dimensions) // _ALIGNMENT) * _ALIGNMENT


class SharedMemory:
    """Memory that another process can map, too.

    Args:
        file: Descriptor of an open file, which this object closes, at the latest when it is gone itself.
        size: How many bytes of it.
    """

    def __init__(self, file: int, size: int) -> None:
        self.file = file
        self.size = size
        self._map = mmap.mmap(file, size)
        self._closing = weakref.finalize(self, _close, file)
        self._closing.atexit = False

    @classmethod
    def of_size(cls, size: int) -> SharedMemory:
        """Return new memory of at least so many bytes."""
        size = -(-max(size, 1) // _PAGE) * _PAGE
        file = _unnamed_file()
        try:
            os.ftruncate(file, size)
            return cls(file, size)
        except BaseException:
            os.close(file)
            raise

    def arrays(self, shapes: Sequence[Shape]) -> list[NDArray[Any]]:
        """Return arrays that lie in the memory one behind the other."""
        found: list[NDArray[Any]] = []
        start = 0
        for shape in shapes:
            found.append(np.ndarray(shape.dimensions, shape.dtype, self._map, start))
            start += shape.size
        return found

    def close(self) -> None:
        """Give the memory up; arrays of this process keep it until they are gone."""
        self._closing()


def _close(file: int) -> None:
    with suppress(OSError):  # in a worker, a solver may have closed it
        os.close(file)


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mapgrad", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
