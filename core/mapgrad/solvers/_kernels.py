"""How numba compiles kernels, and where it keeps them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("mapgrad")

_failures: Final = itertools.count()

_compiling: Final = threading.RLock()
"""Held while numba compiles. A fork waits for it: else numba's own lock would never be released in the child."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


def kernel(*signature: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Return a decorator for functions that numba compiles for one signature, late, and runs without the GIL.

    Decorate in a module that is imported on first use, and call ``ready()`` of what it returns in a solver's `init`:
    that takes seconds, or milliseconds where machine code is kept on disk, and returns the compiled function, which a
    call of the kernel calls. What the function calls is marked with `numba.njit`.

    Args:
        signature: The numba types of the function's arguments. Declare arrays that it only reads as read-only, as
            ``types.Array(types.float64, 2, "C", readonly=True)``: such a type takes both kinds.

    Raises:
        ImportError: numba isn't installed, or compiles nothing because of ``NUMBA_DISABLE_JIT``.
    """
    from numba import config

    if config.DISABLE_JIT:  # type: ignore[attr-defined] (set when numba reads its environment)
        raise ImportError("mapgrad's kernels don't run without numba's compiler: unset NUMBA_DISABLE_JIT")
    return lambda function: Kernel(function, signature)


class Kernel:
    """A function that is compiled when it is first asked to be `ready`.

    Machine code is kept on disk where numba finds a folder to write to: next to the function's module, in the user's
    cache, or where ``NUMBA_CACHE_DIR`` says. Where there is none, each process compiles anew, and once where a file is
    damaged. A kernel in a package is compiled anew when a module in the same folder has changed, too.

    Args:
        function: What is compiled. It runs on the caller's thread: numba's ``parallel`` would reset torch's threads.
        signature: As in `kernel`.
    """

    def __init__(self, function: Callable[..., Any], signature: tuple[Any, ...]) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Any = None

    def ready(self) -> Callable[..., Any]:
        """Return the compiled function, which is compiled or loaded from disk if it wasn't yet; from any thread."""
        if self._compiled is None:
            with _compiling:
                if self._compiled is None:
                    self._compiled = self._compile()
        return self._compiled

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function."""
        return self.ready()(*arguments)

    def __repr__(self) -> str:
        return f"<kernel {self._function.__module__}.{self._function.__name__}>"

    def _compile(self) -> Any:
        from numba import njit
        from numba.core.errors import NumbaError

        function = self._function
        if function.__globals__.get("__package__"):  # numba itself looks at the function's own file alone
            folder = Path(function.__code__.co_filename).parent
            function.__qualname__ = f"{function.__name__}_{_digest(folder)}"
        options: Any = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
        compiled: Any = njit(**options)(function)
        try:
            compiled.enable_caching()
            compiled.compile(self._signature)
        except NumbaError:  # what the function does
            raise
        except Exception as error:  # noqa: BLE001 (no folder, a full or damaged one, or what isn't pickled)
            if next(_failures) == 0:
                _logger.info(
                    "numba keeps no machine code of mapgrad's kernels (%s): each process compiles them, some seconds "
                    "each; set NUMBA_CACHE_DIR to a folder that can be written to",
                    error,
                )
            if not compiled.signatures:
                with suppress(OSError):
                    compiled._cache.flush()  # noqa: SLF001 (numba has no other way to have a damaged file replaced)
                compiled = njit(**options)(function)
            compiled.compile(self._signature)  # at once where all but keeping it was done
        compiled.disable_compile()
        return compiled


class Shortcut:
    """A kernel for what NumPy can do, too, and which is compiled only in processes that run numba anyway.

    That is where a compiled solver is: numba takes half a second to import.

    Args:
        function: What is compiled.
        signature: From the module `numba.types` to the types of its arguments, as in `kernel`.
    """

    def __init__(self, function: Callable[..., Any], signature: Callable[[Any], tuple[Any, ...]]) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Callable[..., Any] | None = None
        self._is_tried = False

    def ready(self) -> Callable[..., Any] | None:
        """Return the compiled function; None where numba isn't at work or can't compile it."""
        if not self._is_tried and "numba" in sys.modules:
            self._compiled = self._compile()
            self._is_tried = True
        return self._compiled

    def _compile(self) -> Callable[..., Any] | None:
        try:
            from numba import types

            return kernel(*self._signature(types))(self._function).ready()
        except Exception:
            _logger.info("NumPy does the work of %s, as numba can't compile it", self._function, exc_info=True)
            return None


@cache
def _digest(folder: Path) -> str:
    """Return a name of what a folder's modules say."""
    texts = (path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]
