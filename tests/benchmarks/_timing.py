"""What the benchmarks share: CPU time of candidates that take turns, on one thread, and tables of figures.

Import it before NumPy and torch: they read the number of threads when they are loaded.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

torch.set_num_threads(1)

Work = Callable[[], Any]

SHORTEST_SAMPLE = 2e-3
"""Seconds: a quick candidate is called as often as it takes to fill a sample of this length."""
MOST_ROUNDS = 301


def medians(candidates: Mapping[str, Work], *, seconds: float = 1.0, least: int = 5) -> dict[str, float]:
    """Return the median CPU seconds of one call of each candidate.

    Args:
        candidates: Work by name. They take turns, in changing order.
        seconds: CPU time to spend on all of them together.
        least: Smallest number of rounds, however long they take.
    """
    names = list(candidates)
    calls = {name: _calls_a_sample(candidates[name]) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    started, number = time.process_time(), 0
    while number < least or (number < MOST_ROUNDS and time.process_time() - started < seconds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            if calls[name] > 1:
                candidates[name]()  # the one before has filled the caches with its own
            samples[name].append(cpu_seconds(candidates[name], calls[name]))
        number += 1
    return {name: median(values) for name, values in samples.items()}


def cpu_seconds(work: Work, calls: int = 1) -> float:
    """Return the CPU seconds of one call, all threads of the process together, as a mean over some calls."""
    started = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - started) / calls


def _calls_a_sample(work: Work) -> int:
    """Warm up, and return how many calls fill a sample."""
    once, calls = cpu_seconds(work), 1
    if once < 0.1:
        once = min(cpu_seconds(work) for _ in range(2))
    while once * calls < SHORTEST_SAMPLE:
        calls *= 2
        once = cpu_seconds(work, calls)
    return calls


def busy_loop(count: int) -> None:
    """Do nothing, a number of times."""
    for _ in range(count):
        pass


def load() -> str:
    """Say how busy the machine is: beside other work a long road loses more of its caches than a tight loop does."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"


def show(title: str, header: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Print a table: text in the first column, numbers aligned to the right in the others, but for the last."""
    widths = [max(map(len, column)) for column in zip(header, *table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *table)
    ]
    sys.stdout.write("\n".join([title, "", *lines, "", ""]))
    sys.stdout.flush()
