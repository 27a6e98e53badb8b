"""Suite `workers`: what a row costs in threads, in worker processes and on local clusters, beside the caller itself."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.batching import get_solver
from mapgrad.bench._cases import Case, cover
from mapgrad.bench._clock import Effort, interleave, seconds_of
from mapgrad.bench._faulty import crews
from mapgrad.bench._machine import QUIET, idle_share, processes
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.errors import MapgradError
from mapgrad.problems import KSubset
from mapgrad.solvers import InstanceSolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from mapgrad.batching import Solver
    from mapgrad.bench._clock import Times
    from mapgrad.solvers import Request
    from mapgrad.workers import Workers

WORKERS: Final = "inline", "threads:2", "processes:2", "dask:2", "ray:2"
_WORKERS: Final = 2
PYTHON: Final = Case("Python, 100 µs a row", partial(KSubset, 144, 1))

_ENGINE: Final = "highs"
ENGINE: Final = replace(cover(30, 60), name=f"cover 30×60, {_ENGINE}")
_SECONDS_A_ROW: Final = 1e-4
_PASSES: Final = 100_000
_ROUNDS: Final = 11
_START: Final = 60.0
"""Seconds that a cluster may take until all of its workers are there."""

_PAUSE: Final = 0.1

_SEEN: Final = 0.5
"""Of the CPU time inline, what must be found in all processes together: else the workers are none of them."""

_UNSEEN: Final = "the CPU time of its workers can't be read, as they are no children of this process"
_UNIT: Final = "µs CPU a row"
_WALL: Final = "µs wall"


class Holding(InstanceSolver[KSubset, None]):
    """Holds the GIL for some passes of a loop, then chooses the largest entry.

    Args:
        problem: Subsets of one.
        passes: How many.
    """

    def __init__(self, problem: KSubset, passes: int) -> None:
        super().__init__(problem)
        self._passes = passes

    def solve(self, state: None, theta: NDArray[Any], request: Request) -> NDArray[Any]:
        """Return the largest entry's indicator."""
        _pass(self._passes)
        z = np.zeros_like(theta)
        z[theta.argmax()] = 1.0
        return z


class ProcessClock:
    """CPU seconds of processes so far, all threads, while they run; one that ends stays where it was.

    Args:
        numbers: The processes, on Linux.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._seconds = dict.fromkeys(numbers, 0.0)

    def __call__(self) -> float:
        for number in self._seconds:
            with suppress(OSError):  # it has ended
                self._seconds[number] = time.clock_gettime(~number << 3 | 2)  # clock_getcpuclockid(3)
        return sum(self._seconds.values())


def _pass(passes: int) -> None:
    for _ in range(passes):
        pass


def python(effort: Effort) -> Iterator[Row]:
    """Yield rows of a kernel in Python, which has as many passes as are made here in a tenth of a millisecond."""
    pace = min(seconds_of(partial(_pass, _PASSES))[0] for _ in range(5)) / _PASSES
    make = partial(get_solver, Holding, passes=round(_SECONDS_A_ROW / pace))
    yield from measure(PYTHON, make, 32 if effort.is_quick else 512, effort)


def engine(effort: Effort) -> Iterator[Row]:
    """Yield rows of an engine that takes some milliseconds, and releases the GIL."""
    yield from measure(ENGINE, partial(get_solver, _ENGINE), 8 if effort.is_quick else 64, effort)


def measure(
    case: Case, make: Callable[..., Solver], count: int, effort: Effort, names: Sequence[str] = WORKERS
) -> Iterator[Row]:
    """Yield a row for each kind of worker.

    Args:
        case: What is solved.
        make: Makes the solver of a problem, with ``workers=``.
        count: How many rows a call has.
        effort: How long to measure.
        names: The workers, as `get_solver` takes them, but "inline" for None, and "threads:n" for n.
    """
    if sys.platform != "linux":
        yield Row(case.name, "", note="the CPU time of other processes can be read on Linux only", judged=False)
        return
    for name in names:
        try:
            for _, crew in crews(name):
                yield _measured(case, name, make, crew, count, effort)
        except MapgradError as error:
            yield Row(case.name, name, note=str(error), judged=False)


def _measured(case: Case, name: str, make: Callable[..., Solver], crew: Workers, count: int, effort: Effort) -> Row:
    problem, theta = case.make(), case.utilities(count)
    rounds = effort if effort.is_quick else replace(effort, rounds=_ROUNDS)
    with make(problem) as inline, make(problem, workers=crew) as solver:
        works = {"inline": partial(inline, theta), name: partial(solver, theta)}
        works[name]()  # starts the workers
        _require(crew, 1 if name == "inline" else _WORKERS)
        works[name]()
        share = idle_share()
        times = interleave(works, rounds, ProcessClock(processes()))
        share = min(share, idle_share())
    return row_of(case.name, name, {"B": count, "n": theta[0].numel()}, times, share)


def _require(crew: Workers, count: int) -> None:
    """Wait until all workers of a cluster are there.

    Raises:
        MapgradError: They don't come.
    """
    until = time.monotonic() + _START
    while crew.count < count:
        if time.monotonic() > until:
            raise MapgradError(f"only {crew.count} of {count} workers are there after {_START:g} s")
        time.sleep(_PAUSE)


def row_of(case: str, name: str, size: dict[str, int], times: dict[str, Times], share: float) -> Row:
    """Return the row of a kind of workers beside "inline".

    Args:
        case: The case.
        name: The workers.
        size: Its sizes, "B" among them.
        times: Of both, with the CPU time of all processes.
        share: What two busy threads got of two cores, before or after.
    """

    def micros(values: Sequence[float]) -> Spread:
        return Spread.of(values).times(1e6 / size["B"])

    inline, found = times["inline"], times[name]
    cpu, wall = micros(found.cpu), micros(found.wall)
    if name == "inline":
        return Row(case, name, size, cpu, _UNIT, extra={_WALL: wall.median}, judged=False)
    more = micros([one - other for one, other in zip(found.cpu, inline.cpu, strict=True)])
    ratio, quiet = Spread.of_ratios(found.wall, inline.wall), share >= QUIET
    notes = [] if quiet else [f"not quiet: two busy threads got {share:.0%} of two cores"]
    beside = micros(inline.cpu).median
    extra = {_WALL: wall.median, "inline, µs CPU": beside, "µs CPU more": more.median}
    if cpu.median < _SEEN * beside:
        notes, cpu, extra = [_UNSEEN, *notes], None, {_WALL: wall.median}
    return Row(case, name, size, cpu, _UNIT, ratio, "inline, wall", extra, "; ".join(notes), judged=quiet)


SUITE: Final = Suite(
    "Rows in two threads, in two processes and on local clusters of two workers, beside the calling thread",
    {PYTHON.name: python, ENGINE.name: engine},
    quick=(PYTHON.name,),
)
