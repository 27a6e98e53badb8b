"""Times of candidates that take turns on one thread."""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from mapgrad.bench._report import Row

Work: TypeAlias = "Callable[[], Any]"
Clock: TypeAlias = "Callable[[], float]"

_PASSES: Final = 1_000
YARDSTICK: Final = f"{_PASSES:,} passes of a Python loop"
"""What figures are ratios of where nothing else stays the same from run to run."""

_SHORTEST: Final = 2e-3
_SHARE_OF_SLOWEST: Final = 0.02
_SLOW: Final = 0.1
_MOST_ROUNDS: Final = 301


@dataclass(frozen=True)
class Effort:
    """How long to measure, and what.

    Attributes:
        seconds: CPU time for the candidates of one measurement together.
        rounds: The smallest number of rounds, however long they take.
        is_quick: Whether figures may be rough, and large cases are left out.
        methods: Beginnings of the names of methods, where a suite has some; none of them for all.
        seeds: What random numbers are drawn from, where a figure is a mean over several.
        known: Rows of an earlier run by their keys, which aren't measured again.
    """

    seconds: float = 2.0
    rounds: int = 3
    is_quick: bool = False
    methods: Sequence[str] = ()
    seeds: Sequence[int] = ()
    known: Mapping[str, Row] = field(default_factory=dict[str, "Row"])


QUICK: Final = Effort(0.02, 2, is_quick=True)


@dataclass(frozen=True)
class Times:
    """Seconds of one call, a number for each round.

    Attributes:
        cpu: CPU time of the process, all threads, and of its children that have ended; or what another clock counts.
        wall: Wall-clock time.
    """

    cpu: tuple[float, ...]
    wall: tuple[float, ...]


def cpu_clock() -> float:
    """Return the CPU seconds of this process, all threads, and of its children that have ended."""
    if sys.platform == "win32":  # where children aren't counted
        return time.process_time()
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleave(candidates: Mapping[str, Work], effort: Effort, clock: Clock = cpu_clock) -> dict[str, Times]:
    """Measure candidates that take turns, in changing order.

    A quick one is called as often as it takes to fill a sample of some milliseconds, or of a fiftieth of the slowest
    one's call.

    Args:
        candidates: What is measured, by name.
        effort: How long to measure.
        clock: Returns CPU seconds so far.
    """
    names = list(candidates)
    once = {name: _warm_seconds(candidates[name], clock) for name in names}
    shortest = max(_SHORTEST, _SHARE_OF_SLOWEST * max(once.values()))
    calls = {name: _calls(candidates[name], once[name], shortest, clock) for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    began, number = clock(), 0
    while number < effort.rounds or (number < _MOST_ROUNDS and clock() - began < effort.seconds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            if calls[name] > 1:
                candidates[name]()  # the one before has filled the caches with its own
            seconds, elapsed = seconds_of(candidates[name], calls[name], clock)
            cpu[name].append(seconds)
            wall[name].append(elapsed)
        number += 1
    return {name: Times(tuple(cpu[name]), tuple(wall[name])) for name in names}


def seconds_of(work: Work, calls: int = 1, clock: Clock = cpu_clock) -> tuple[float, float]:
    """Return CPU and wall-clock seconds of one call, as a mean over some calls, amid which no garbage is collected."""
    is_collected = gc.isenabled()
    gc.disable()
    try:
        cpu, wall = clock(), time.perf_counter()
        for _ in range(calls):
            work()
        return (clock() - cpu) / calls, (time.perf_counter() - wall) / calls
    finally:
        if is_collected:
            gc.enable()


def yardstick() -> None:
    """Pass through a loop of plain Python that does nothing."""
    for _ in range(_PASSES):
        pass


@contextmanager
def one_thread() -> Generator[None]:
    """Give torch one thread; afterwards it has as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _warm_seconds(work: Work, clock: Clock) -> float:
    once, _ = seconds_of(work, clock=clock)
    if once < _SLOW:  # the first call of a slow one isn't worth another
        once = min(seconds_of(work, clock=clock)[0] for _ in range(2))
    return once


def _calls(work: Work, once: float, shortest: float, clock: Clock) -> int:
    calls = 1
    while once * calls < shortest:
        calls *= 2
        once, _ = seconds_of(work, calls, clock)
    return calls
