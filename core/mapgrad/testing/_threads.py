"""Several callers at once, which change turns wherever a race could hide; and a thread that notes its turns."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from types import FrameType

    from torch import Tensor

THREADS: Final = 4
_TURNS: Final = 4000
_NEVER: Final = 30.0

T = TypeVar("T")


def ask_at_once(ask: Callable[[Tensor], Tensor], rows: Tensor, packages: Collection[str]) -> list[Tensor]:
    """Have several threads solve the same rows, one a call, each in another order.

    Args:
        ask: The solver, which all threads share.
        rows: [N, *shape].
        packages: Top-level packages in whose code threads change turns at every line.

    Returns:
        Each thread's answers to all rows, [N, *shape].
    """

    def ask_all(shift: int) -> Tensor:
        return torch.cat([ask(row[None]) for row in rows.roll(shift, dims=0).unbind()]).roll(-shift, dims=0)

    return run_at_once([partial(ask_all, shift) for shift in range(THREADS)], packages)


def run_at_once(tasks: Sequence[Callable[[], T]], packages: Collection[str]) -> list[T]:
    """Call functions at once, each in a thread of its own, and return what they return.

    Args:
        tasks: The functions.
        packages: As for `ask_at_once`.
    """
    together = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        together.wait()
        return task()

    with _turns_at_every_line(packages), ThreadPoolExecutor(len(tasks)) as callers:
        return list(callers.map(run, tasks))


def both_clocks() -> tuple[float, float]:
    """Return wall-clock time, and the CPU time of the process, in seconds.

    A busy machine makes threads wait, whoever has the GIL: then wall-clock time passes alone. CPU time grows in steps
    of milliseconds where several threads run.
    """
    return time.perf_counter(), time.process_time()


@contextmanager
def times_of_turns() -> Generator[list[tuple[float, float]]]:
    """Note when another Python thread, which asks again and again, has the GIL while none is made to give it up.

    Python takes the GIL from a thread every 5 ms, so that others get on beside a solver that never releases it. Here it
    doesn't: whoever computes in Python stops the turns.

    Yields:
        Times by `both_clocks`, which grow in number meanwhile.
    """
    times: list[tuple[float, float]] = []
    ended, interval = threading.Event(), sys.getswitchinterval()

    def take_turns() -> None:
        while not ended.is_set():
            times.append(both_clocks())
            time.sleep(1e-4)

    other = threading.Thread(target=take_turns, daemon=True)
    sys.setswitchinterval(_NEVER)
    try:
        other.start()
        yield times
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)


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
