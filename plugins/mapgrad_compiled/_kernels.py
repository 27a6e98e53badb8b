"""What all kernels share: how numba compiles them, and the types of what they are given."""

from __future__ import annotations

import itertools
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import config, njit, types

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

if config.DISABLE_JIT:  # pyright: ignore[reportAttributeAccessIssue] (set when numba reads its environment)
    raise ImportError("mapgrad's kernels don't run without numba's compiler: unset NUMBA_DISABLE_JIT")

_logger = logging.getLogger("mapgrad")

_lock: Final = threading.Lock()
_failures: Final = itertools.count()

ROWS: Final = types.Array(types.float64, 2, "C", readonly=True)
"""θ, [m, n]."""

INDICES: Final = types.Array(types.int64, 1, "C", readonly=True)
NUMBERS: Final = types.Array(types.float64, 1, "C", readonly=True)
INTEGER: Final = types.int64
STATES: Final = types.float64[:, ::1]
"""z, [m, n], which a kernel writes."""

VALUES: Final = types.float64[::1]
"""Objectives or bounds, [m], which a kernel writes."""

STATUSES: Final = types.int64[::1]
"""`mapgrad.Status` of each row, [m], which a kernel writes."""

INFEASIBLE: Final = int(mapgrad.Status.INFEASIBLE)

subroutine: Final = njit(error_model="numpy")
"""Marks a function that kernels call; it lies in their file, the only one that numba looks at for changes."""


def indices(*arrays: Any) -> tuple[NDArray[np.int64], ...]:
    """Return arrays of integers as kernels take them, of the type `INDICES`."""
    return tuple(np.ascontiguousarray(array, dtype=np.int64) for array in arrays)


class Kernel:
    """A function over a block of rows, compiled for one signature when it is first asked to be `ready`.

    It runs without the GIL. Machine code is kept on disk where numba finds a folder to write to: next to this module,
    in the user's cache, or where ``NUMBA_CACHE_DIR`` says. Where there is none, each process compiles anew.

    Args:
        function: What is compiled.
        signature: The types of its arguments. Arrays that it only reads are declared read-only and take both kinds.
    """

    def __init__(self, function: Callable[..., Any], signature: tuple[Any, ...]) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Callable[..., Any] | None = None

    def ready(self) -> Callable[..., Any]:
        """Return the compiled function, which is compiled or loaded if it wasn't yet: seconds or milliseconds."""
        with _lock:
            if self._compiled is None:
                self._compiled = self._compile()
            return self._compiled

    def _compile(self) -> Callable[..., Any]:
        try:
            return self._jit(cache=True)
        except (RuntimeError, OSError) as error:  # no folder to write to, or it is full
            if next(_failures) == 0:
                _logger.info(
                    "numba keeps no machine code of mapgrad's kernels (%s): each process compiles them, a second or "
                    "two each; set NUMBA_CACHE_DIR to a folder that can be written to",
                    error,
                )
            return self._jit(cache=False)

    def _jit(self, *, cache: bool) -> Any:
        compiled: Any = njit(nogil=True, error_model="numpy", cache=cache)(self._function)
        compiled.compile(self._signature)
        compiled.disable_compile()
        return compiled


def kernel(*signature: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Return a decorator that makes a function a `Kernel` of a signature."""
    return lambda function: Kernel(function, signature)
