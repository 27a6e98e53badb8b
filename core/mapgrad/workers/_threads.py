"""Threads of our own: they take rows in small portions, drop rows that nobody waits for, and end with the program."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from mapgrad.workers import _interrupts
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_condition
from mapgrad.workers._portions import fail_rows, next_portion, solve_portion

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Runner

_STOPS: Final = 5
_PAUSE: Final = 0.02
"""An interrupted caller stops its rows up to so often, with so many seconds between: once may be just too early."""

_PATIENCE: Final = 0.5
"""Seconds that the program's end waits for rows at work: some engines crash that come back while Python is ending."""


class _Batch:
    """A block whose rows are handed out.

    Attributes:
        begun: How many rows have been.
        workers: How many threads are solving some.
        is_dropped: Whether nobody waits for it any more.
        ended: A lock that is free once no row is left and nobody is at work.
    """

    __slots__ = ("begun", "block", "count", "ended", "is_dropped", "runner", "workers")

    def __init__(self, runner: Runner, block: Block) -> None:
        self.runner = runner
        self.block = block
        self.count = len(block)
        self.begun = self.workers = 0
        self.is_dropped = False
        self.ended = threading.Lock()
        self.ended.acquire()


class Threads:
    """Threads that all callers share; they are started when there is something to do.

    Args:
        count: How many there are at most.

    Attributes:
        count: The same.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._wanted: dict[threading.Thread, int] = {}
        self._at_work: dict[threading.Thread, _Batch] = {}
        self._batches: deque[_Batch] = deque()
        self._condition = new_condition()
        call_after_fork(self)
        _all.add(self)

    def solve(self, runner: Runner, block: Block) -> None:
        """Solve a block; on the spot where a thread of our own asks, which others would wait for."""
        batch = _Batch(runner, block)
        try:
            if self._hand_out(batch):
                batch.ended.acquire()
                return
        except BaseException:
            self._drop(batch)
            raise
        _interrupts.run(runner, block)

    def _hand_out(self, batch: _Batch) -> bool:
        """Put a batch before the threads; return whether there are any for it."""
        with self._condition:  # held from the start of threads to the end, or `close` could end them between
            if threading.current_thread() in self._at_work:
                return False
            self._start(batch.count)
            if not self._wanted:
                return False
            self._batches.append(batch)
            self._condition.notify(batch.count)
            return True

    def _start(self, rows: int) -> None:
        """Start threads that are missing for so many more rows; the condition is held."""
        rows += len(self._at_work) + sum(batch.count - batch.begun for batch in self._batches)
        numbers = set(range(min(self.count, rows))) - set(self._wanted.values())
        for number in sorted(numbers):
            thread = threading.Thread(target=_work, args=(self,), name=f"mapgrad_{number}", daemon=True)
            self._wanted[thread] = number
            try:
                thread.start()
            except RuntimeError:  # the system, or a program that ends, allows no more
                del self._wanted[thread]
                return
            except BaseException:  # Ctrl-C: nobody may count on this one
                self._wanted.pop(thread, None)
                raise

    def _drop(self, batch: _Batch) -> None:
        """Stop a batch that nobody waits for; threads that are still at work on it get successors."""
        with self._condition:
            batch.is_dropped = True
            if batch in self._batches:
                self._batches.remove(batch)
            busy = [thread for thread, other in self._at_work.items() if other is batch]
            for thread in busy:
                self._wanted.pop(thread, None)
        for _ in range(_STOPS if busy else 0):
            batch.runner.stop(batch)
            if not batch.runner.can_stop or batch.ended.acquire(timeout=_PAUSE):
                break

    def take(self) -> tuple[_Batch, int, int] | None:
        """Wait for rows and return some: a batch and a range of it; None where this thread is to end."""
        thread = threading.current_thread()
        with self._condition:
            while not self._batches and thread in self._wanted:
                self._condition.wait()
            if not self._batches or (self._wanted and thread not in self._wanted):
                return None
            batch = self._batches.popleft()
            start = batch.begun
            batch.begun += next_portion(batch.runner, batch.count - start, self.count)
            if batch.begun < batch.count:
                self._batches.append(batch)  # callers take turns
            batch.workers += 1
            self._at_work[thread] = batch
            return batch, start, batch.begun

    def give_back(self, batch: _Batch) -> None:
        """Note that this thread is done with its rows."""
        with self._condition:
            self._at_work.pop(threading.current_thread(), None)
            batch.workers -= 1
            if batch.workers == 0 and (batch.is_dropped or batch.begun == batch.count):
                batch.ended.release()

    def close(self, patience: float = 0.0) -> None:
        """End the threads, once no rows are left that somebody waits for; new rows start new threads.

        Args:
            patience: Seconds to wait until those have ended that aren't at work.
        """
        with self._condition:
            idle = [thread for thread in self._wanted if thread not in self._at_work]
            self._wanted.clear()
            self._condition.notify_all()
        _join(idle, patience)

    def at_work(self) -> list[threading.Thread]:
        """Return the threads that are solving rows."""
        with self._condition:
            return list(self._at_work)

    def after_fork(self) -> None:
        """Begin anew: a forked child has none of its parent's threads."""
        keep_inherited((self._wanted, self._at_work, self._batches))
        self._wanted, self._at_work, self._batches = {}, {}, deque()


_all: Final[WeakSet[Threads]] = WeakSet()


def _work(threads: Threads) -> None:
    while True:
        taken = threads.take()
        if taken is None:
            return
        batch, start, stop = taken
        try:
            solve_portion(batch.runner, batch.block, start, stop, batch)
        except BaseException as error:  # noqa: BLE001 (out of memory, say: the caller waits for an end)
            fail_rows(batch.block, start, stop, error)
        finally:
            threads.give_back(batch)
        del taken, batch  # nothing is kept while the thread waits


def _join(threads: list[threading.Thread], patience: float) -> None:
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


@atexit.register
def _end() -> None:
    for threads in list(_all):
        threads.close()
        _join(threads.at_work(), _PATIENCE)
