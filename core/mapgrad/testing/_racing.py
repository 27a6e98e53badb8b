"""Threads that meet: several callers at once, which change turns wherever a race could hide."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from types import FrameType

    from torch import Tensor

THREADS: Final = 4
_TURNS: Final = 4000


def ask_at_once(ask: Callable[[Tensor], Tensor], rows: Tensor, packages: Collection[str]) -> list[Tensor]:
    """Have several threads solve the same rows, one a call, each in another order.

    Args:
        ask: The solver, which all threads share.
        rows: [N, *shape].
        packages: Top-level packages in whose code threads change turns at every line.

    Returns:
        Each thread's answers to all rows, [N, *shape].
    """
    together = threading.Barrier(THREADS)

    def ask_all(shift: int) -> Tensor:
        together.wait()
        return torch.cat([ask(row[None]) for row in rows.roll(shift, dims=0).unbind()]).roll(-shift, dims=0)

    with _turns_at_every_line(packages), ThreadPoolExecutor(THREADS) as callers:
        return list(callers.map(ask_all, range(THREADS)))


@contextmanager
def _turns_at_every_line(packages: Collection[str]) -> Generator[None]:
    """Make threads that are started meanwhile give way to another at every line of some packages' code.

    Left to themselves they change turns every 5 ms, which is hardly ever within a row of a solver that holds the GIL.
    """
    turns = itertools.count()

    def give_way(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in packages:
            return None
        if next(turns) < _TURNS:
            time.sleep(0)
        return give_way

    interval, tracer = sys.getswitchinterval(), threading.gettrace()
    sys.setswitchinterval(1e-6)
    threading.settrace(give_way)
    try:
        yield
    finally:
        threading.settrace(tracer)  # pyright: ignore[reportArgumentType] (None is what there was, and may be put back)
        sys.setswitchinterval(interval)
