"""Rows of a block that one worker takes at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mapgrad.workers._traces import Portable, detach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Runner

SECONDS: Final = 5e-3
"""What a portion takes at most, in a thread: handing it out costs a thousandth of that."""


class Answers(NamedTuple):
    """What a worker elsewhere found, as in `Block` but for errors, and the seconds that it took."""

    z: NDArray[Any]
    status: NDArray[Any]
    objective: NDArray[Any]
    bound: NDArray[Any]
    causes: dict[int, Portable]
    seconds: float


def next_portion(runner: Runner, left: int, workers: int, seconds: float, *, least: float = 0.0) -> int:
    """Return how many of the rows that are left to take: one until it is known how long a row takes.

    Portions get smaller towards the end, so that workers end together though rows are uneven.

    Args:
        runner: The solver.
        left: How many rows are left.
        workers: Who share them.
        seconds: What a portion takes at most.
        least: What it takes at least, as far as rows are left.
    """
    if runner.pace is None:
        return 1
    most, fewest = (int(limit / max(runner.pace, 1e-9)) for limit in (seconds, least))
    return max(1, min(max(-(-left // (2 * workers)), fewest), most, left))


def solve_portion(runner: Runner, block: Block, start: int, stop: int, owner: object) -> None:
    """Solve some rows of a block in this thread; never raises but in the main thread, as `Runner.run` does."""
    part = block.part(start, stop)
    began = time.perf_counter()
    runner.run(part, owner)
    runner.pace = (time.perf_counter() - began) / (stop - start)
    for row, error in part.causes.items():
        block.causes[start + row] = error


def fail_rows(block: Block, start: int, stop: int, error: BaseException) -> None:
    """Note that rows got no worker, or lost it."""
    detach(error)
    for row in range(start, stop):
        block.fail(row, error)
