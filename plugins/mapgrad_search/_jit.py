"""How numba compiles this plugin's kernels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

_FAST = {"reassoc", "contract", "nsz", "arcp"}

inner = njit(nogil=True, error_model="numpy")
"""For functions that kernels call."""

sums = njit(nogil=True, error_model="numpy", fastmath=_FAST)
"""For those whose sums may be added up in any order."""

short = njit(nogil=True, error_model="numpy", fastmath=_FAST, forceinline=True)
"""For those that are called so often that handing over arrays would count."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function compiled when it is first called; it runs without the GIL.

    Machine code is kept on disk where numba finds a folder to write to: next to this module, in the user's cache, or
    where ``NUMBA_CACHE_DIR`` says. Where there is none, each process compiles anew. numba looks whether the function's
    own file has changed, but not whether what it calls has: so the name of what is kept says it.
    """
    function.__qualname__ = f"{function.__name__}_{_digest()}"
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)


def _digest() -> str:
    """Return a name of what this folder's modules say."""
    texts = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]
