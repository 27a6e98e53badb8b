"""Suite `faults`: what a row costs that raises, hangs or kills its process, and which other rows it takes with it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from mapgrad.batching import get_solver
from mapgrad.bench._fault_peers import FAULTS, rows_lost
from mapgrad.bench._faulty import DIES, HANGS, RAISES, crews, faulty
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.problems import KSubset
from mapgrad.recording import record
from mapgrad.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.bench._clock import Effort

_ROWS: Final = 64
_ENTRIES: Final = 16
_ROUNDS: Final = 31
_RECORDED: Final = 16
_DEADLINE: Final = 0.2
_MOMENT: Final = 0.01  # in which the system ends a process
_SOLVES: Final = 16
"""After how many rows a process is replaced, so that a batch has about four replaced."""

_BATCH: Final = "the batch without it, wall"


def _theta(first: float | None = None) -> Tensor:
    """Return rows of which one in the middle begins with a number."""
    theta = torch.rand((_ROWS, _ENTRIES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if first is not None:
        theta[_ROWS // 2, 0] = first
    return theta


def _batch(solver: Solver, theta: Tensor, lost: list[int], faults: int = 1) -> float:
    """Return the wall-clock seconds of a batch, and count the rows that failed beside those at fault."""
    began = time.perf_counter()
    solutions = solver.solve(theta)
    seconds = time.perf_counter() - began
    lost.append(int((~solutions.mask).sum()) - faults)
    return seconds


def _compared(
    case: str,
    name: str,
    batches: tuple[Callable[[], float], Callable[[], float]],
    lost: list[int],
    effort: Effort,
    *,
    less: float = 0.0,
    of: int = 1,
    note: str = "",
) -> Row:
    """Return the row of a fault: batches with it and without take turns.

    Args:
        case: The fault.
        name: Who solves.
        batches: Two functions that solve a batch and return the seconds: one without the fault, and one with it.
        lost: What `_batch` counted.
        effort: How long to measure.
        less: Seconds that are meant to pass.
        of: How many faults there are in a batch.
        note: For the table.
    """
    healthy, faulty = batches
    for warm_up in (healthy, faulty, healthy):  # what is started and imported once
        warm_up()
    lost.clear()
    pairs = [(healthy(), faulty()) for _ in range(2 if effort.is_quick else _ROUNDS)]
    added = Spread.of((bad - good - less) / of * 1e3 for good, bad in pairs)
    ratio = Spread.of_ratios([bad for _, bad in pairs], [good for good, _ in pairs])
    size = {"B": _ROWS, "n": _ENTRIES}
    extra = {"other rows lost": sum(map(abs, lost))}
    return Row(case, name, size, added, "ms more, wall", ratio, _BATCH, extra, note, judged=False)


def _solver(kind: Any, crew: Workers, **named: Any) -> Solver:
    return get_solver(kind, KSubset(_ENTRIES, 1), workers=crew, on_error="nan", **named)


def a_row_that_raises(effort: Effort) -> Iterator[Row]:
    """A row whose solver raises, under each kind of worker."""
    with faulty() as kind:
        for name, crew in crews("inline", "threads:2", "processes:2"):
            solver, lost = _solver(kind, crew), list[int]()
            batches = partial(_batch, solver, _theta(), lost, 0), partial(_batch, solver, _theta(RAISES), lost)
            yield _compared("a row that raises", name, batches, lost, effort)


def a_row_that_is_recorded(effort: Effort) -> Iterator[Row]:
    """Rows that raise while they are written to files, each time other ones."""
    with faulty() as kind, tempfile.TemporaryDirectory() as folder:
        solver, lost, count = _solver(kind, Workers()), list[int](), iter(range(1, 1_000))

        def batch() -> float:
            theta = _theta()
            theta[:_RECORDED, 0] = RAISES - next(count) / 10_000
            return _batch(solver, theta, lost, _RECORDED)

        def recorded() -> float:
            with record(folder):
                return batch()

        note = f"for each of {_RECORDED} rows of a batch"
        yield _compared("a row that is recorded", "inline", (batch, recorded), lost, effort, of=_RECORDED, note=note)


def a_row_that_kills(effort: Effort) -> Iterator[Row]:
    """A row that ends its process: it is tried twice, so that two processes are replaced."""
    with faulty() as kind:
        for name, crew in crews("processes:2"):
            solver, lost = _solver(kind, crew), list[int]()
            batches = partial(_batch, solver, _theta(), lost, 0), partial(_batch, solver, _theta(DIES), lost)
            yield _compared("a row that kills its process", name, batches, lost, effort, note="two processes die of it")


def a_process_killed(effort: Effort) -> Iterator[Row]:
    """A process that somebody else kills between two batches, with what the two after it take."""
    with faulty() as kind:
        for name, crew in crews("processes:2"):
            solver, lost = _solver(kind, crew), list[int]()

            def two(solver: Solver = solver, lost: list[int] = lost) -> float:
                return sum(_batch(solver, _theta(), lost, 0) for _ in range(2))

            def two_after_a_kill(solver: Solver = solver, two: Callable[[], float] = two) -> float:
                os.kill(int(solver(_theta())[0, 0]), signal.SIGKILL)
                time.sleep(_MOMENT)
                return two()

            note = "in the two batches after it"
            yield _compared("a process killed from outside", name, (two, two_after_a_kill), lost, effort, note=note)


def a_row_that_hangs(effort: Effort) -> Iterator[Row]:
    """A row that never ends, under a deadline: what the batch takes beyond that."""
    with faulty() as kind:
        for name, crew in crews("threads:2", "processes:2"):
            solver, lost = _solver(kind, crew, deadline=_DEADLINE), list[int]()
            batches = partial(_batch, solver, _theta(), lost, 0), partial(_batch, solver, _theta(HANGS), lost)
            note = f"beyond the deadline of {_DEADLINE:g} s"
            yield _compared("a row that hangs", name, batches, lost, effort, less=_DEADLINE, note=note)


def a_recycled_process(effort: Effort) -> Iterator[Row]:
    """A process that is replaced after so many rows."""
    with faulty() as kind:
        name, lost = "processes:2", list[int]()
        crews = [Workers(name), Workers(name, solves=_SOLVES)]
        kept, replaced = (partial(_batch, _solver(kind, crew), _theta(), lost, 0) for crew in crews)
        note = f"replaced after {_SOLVES} rows"
        yield _compared("a recycled process", name, (kept, replaced), lost, effort, of=_ROWS // _SOLVES, note=note)
        for crew in crews:
            crew.close()


SUITE: Final = Suite(
    "What a fault costs, and which other rows it takes with it",
    {
        "a row that raises": a_row_that_raises,
        "a row that is recorded": a_row_that_is_recorded,
        "a row that kills its process": a_row_that_kills,
        "a process killed from outside": a_process_killed,
        "a row that hangs": a_row_that_hangs,
        "a recycled process": a_recycled_process,
        **{f"elsewhere: a row that {fault}": partial(rows_lost, fault) for fault in FAULTS},
    },
    quick=("a row that raises", "a row that kills its process"),
)
