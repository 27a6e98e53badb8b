"""How numba compiles kernels, and where it keeps them."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("mapgrad")

_failures: Final = itertools.count()


def compile_kernel(function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    """Return a function as machine code for one signature; it takes a second or two, or milliseconds from disk.

    It runs without the GIL. Machine code is kept on disk where numba finds a folder to write to: next to the function's
    module, in the user's cache, or where ``NUMBA_CACHE_DIR`` says. Where there is none, each process compiles anew.

    Args:
        function: The function, written for numba.
        signature: The numba types of its arguments. Declare arrays that it only reads as read-only: such a type takes
            both kinds.

    Raises:
        ImportError: numba isn't installed.
    """
    from numba import njit

    def compiled(*, cache: bool) -> Any:
        dispatcher: Any = njit(nogil=True, error_model="numpy", cache=cache)(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    try:
        return compiled(cache=True)
    except (RuntimeError, OSError) as error:  # no folder to write to, or it is full
        if next(_failures) == 0:
            _logger.info(
                "numba keeps no machine code of mapgrad's kernels (%s): each process compiles them, a second or two "
                "each; set NUMBA_CACHE_DIR to a folder that can be written to",
                error,
            )
        return compiled(cache=False)
