"""A block on its way through workers: which rows are handed out, which are answered, who still waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from mapgrad.errors import SolveTimeoutError
from mapgrad.workers._portions import fail_rows, next_portion
from mapgrad.workers._traces import Portable

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._portions import Answers
    from mapgrad.workers._runner import Job, Runner

START: Final = 60.0
"""Seconds that workers may take to start, which don't count against a deadline."""


class Batch:
    """A block whose rows are handed out.

    Args:
        runner: The solver, used in this process.
        job: The same for workers elsewhere.
        block: The rows.
        deadline: Seconds that the caller waits, from when the first row is handed out; None for any time.

    Attributes:
        count: How many rows there are.
        begun: How many have been handed out.
        workers: How many threads are solving some.
        is_over: Whether no more rows are handed out.
        started: Set once the first row is handed out.
        ended: A lock that is free once no row is left and nobody is at work.
    """

    __slots__ = (
        "_ends", "_is_closed", "_lock", "_unanswered", "begun", "block", "count", "deadline", "ended", "is_over", "job",
        "runner", "started", "workers",
    )  # fmt: skip

    def __init__(self, runner: Runner, job: Job, block: Block, deadline: float | None) -> None:
        self.runner = runner
        self.job = job
        self.block = block
        self.deadline = deadline
        self.count = len(block)
        self.begun = self.workers = 0
        self.is_over = False
        self.started = threading.Event()
        self.ended = threading.Lock()
        self.ended.acquire()
        self._ends = 0.0
        self._is_closed = False
        self._lock = threading.Lock()
        self._unanswered = set[int]() if deadline is None else set(range(self.count))

    def take(self, workers: int, seconds: float, least: float = 0.0) -> tuple[int, int]:
        """Hand out rows: one by one under a deadline, if the solver works so, as none must wait for one that hangs."""
        start = self.begun
        if self.deadline is None:
            self.begun += next_portion(self.runner, self.count - start, workers, seconds, least=least)
            return start, self.begun
        if not self.started.is_set():
            self._ends = time.monotonic() + self.deadline
            self.started.set()
        self.begun += 1 if self.runner.loops else next_portion(self.runner, self.count - start, workers, seconds)
        return start, self.begun

    def left(self) -> float | None:
        """Return how many seconds are left; None for any number."""
        return None if self.deadline is None else max(self._ends - time.monotonic(), 0.0)

    def unused(self) -> float | None:
        """Return `left`, or the whole deadline where no row was handed out."""
        return self.left() if self.started.is_set() else self.deadline

    def seconds(self) -> float | None:
        """Return how long a row may take that begins now."""
        limits = [limit for limit in (self.block.seconds, self.left()) if limit is not None]
        return max(min(limits), 1e-3) if limits else None

    def put(self, part: Block | Answers, start: int) -> None:
        """Take the answers to some rows that a worker has in arrays of its own, if anybody waits for them."""
        block, stop = self.block, start + len(part.status)
        causes = {row: cause.opened() if isinstance(cause, Portable) else cause for row, cause in part.causes.items()}
        with self._lock:
            if self._is_closed:
                return
            block.z[start:stop], block.status[start:stop] = part.z, part.status
            block.objective[start:stop], block.bound[start:stop] = part.objective, part.bound
            for row, error in causes.items():
                block.causes[start + row] = error
            self._unanswered.difference_update(range(start, stop))

    def fail(self, start: int, stop: int, error: BaseException) -> None:
        """Note why some rows have no answer, if anybody waits for them."""
        with self._lock:
            if not self._is_closed:
                fail_rows(self.block, start, stop, error)
                self._unanswered.difference_update(range(start, stop))

    def close(self) -> None:
        """Take no more answers: rows without one have missed the deadline."""
        with self._lock:
            self._is_closed = True
        for row in sorted(self._unanswered):
            how = "while it was solved" if row < self.begun else "before its turn came"
            what = f"the deadline of {self.deadline:g} s passed {how}"
            if not self.started.is_set():
                what = f"no worker was there with its solver within {START:g} s"
            error = SolveTimeoutError(what)
            fail_rows(self.block, row, row + 1, error)
