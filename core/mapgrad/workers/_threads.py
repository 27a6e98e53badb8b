"""Threads of our own: they take rows in small portions, drop rows that nobody waits for, and end with the program."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from mapgrad.workers import _interrupts
from mapgrad.workers._batch import START, Batch
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_condition
from mapgrad.workers._portions import SECONDS, solve_portion

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

STOPS: Final = 5
PAUSE: Final = 0.02
"""A caller that waits no longer stops its rows up to so often, with so many seconds between: once may be too early."""

_PATIENCE: Final = 0.5
"""Seconds that the program's end waits for rows at work: some engines crash that come back while Python is ending."""


class Hand(Protocol):
    """What a thread solves rows with; where that is its own, others call `stop` alone."""

    def is_ready(self, batch: Batch) -> bool:
        """Tell whether rows of a batch can be taken, or `prepare` is needed."""
        ...

    def prepare(self, batch: Batch) -> None:
        """Get ready for a batch, if only to fail its rows. Never raises."""

    def solve(self, batch: Batch, start: int, stop: int) -> None:
        """Solve some rows of a batch; what it raises fails them."""

    def stop(self, batch: Batch, *, is_last: bool) -> None:
        """Stop what is solved of a batch or made ready for it; called from other threads, again and again.

        Args:
            batch: The batch.
            is_last: Whether this is the last call.
        """

    def close(self) -> None:
        """Free what it has, as its thread ends."""


class Threads:
    """Threads that all callers share; they are started when there is something to do.

    Args:
        count: How many there are at most.
        new_hand: Makes what a thread solves rows with.
        least: Seconds that a portion takes at least.

    Attributes:
        count: The same.
    """

    def __init__(self, count: int, new_hand: Callable[[], Hand] | None = None, least: float = 0.0) -> None:
        self.count = count
        self._least = least
        self.new_hand: Callable[[], Hand] = (lambda: _in_place) if new_hand is None else new_hand
        self._wanted: dict[threading.Thread, int] = {}
        self._at_work: dict[threading.Thread, tuple[Batch, Hand]] = {}
        self._preparing: dict[threading.Thread, tuple[Batch, Hand, float]] = {}
        self._longest = 0.0  # seconds that a thread took to get ready
        self._batches: deque[Batch] = deque()
        self._condition = new_condition()
        call_after_fork(self)
        _all.add(self)

    def solve(self, runner: Runner, job: Job, block: Block, deadline: float | None = None) -> float | None:
        """Solve a block; on the spot where a thread of our own asks, which others would wait for.

        Args:
            runner: The solver, used in this process.
            job: The same for workers elsewhere.
            block: The rows.
            deadline: Seconds from when a worker is ready, after which rows without an answer fail; None for any time.

        Returns:
            What is left of the deadline.
        """
        batch = Batch(runner, job, block, deadline)
        self.finish(batch)
        return batch.unused()

    def finish(self, batch: Batch) -> bool:
        """Solve the rows of a batch; return whether all have come to an end, and no worker is at any of them."""
        try:
            if self._hand_out(batch):
                if _wait(batch):
                    if batch.is_over:
                        _end_with_program()
                    return True
                has_ended = self._drop(batch)
                batch.close()
                return has_ended
        except BaseException:
            self._drop(batch)
            raise
        _interrupts.run(batch.runner, batch.block)
        return True

    def _hand_out(self, batch: Batch) -> bool:
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
        self._give_up_preparing(max(START, 2 * self._longest))
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

    def _give_up_preparing(self, seconds: float) -> None:
        """Give up threads that have got ready for so long for rows which others have; the condition is held."""
        latest = time.monotonic() - seconds
        for thread, (batch, hand, began) in self._preparing.items():
            if began <= latest and batch not in self._batches:
                self._wanted.pop(thread, None)
                hand.stop(batch, is_last=True)

    def _drop(self, batch: Batch) -> bool:
        """Stop a batch that nobody waits for; threads that are at work on it get successors.

        So do those that get ready for it, but at a deadline that began as another one was ready: they may be, soon.

        Returns:
            Whether no thread is at work on it any more.
        """
        with self._condition:
            batch.is_over = True
            if batch in self._batches:
                self._batches.remove(batch)
            engaged = [*self._at_work.items(), *(() if batch.started.is_set() else self._preparing.items())]
            busy = {thread: hand for thread, (other, hand, *_) in engaged if other is batch}
            for thread in busy:
                self._wanted.pop(thread, None)
            if self._batches:
                self._start(0)
        for left in reversed(range(STOPS if busy else 0)):
            for hand in {*busy.values()}:
                hand.stop(batch, is_last=left == 0)
            if batch.ended.acquire(timeout=PAUSE):
                return True
        return not busy

    def take(self, hand: Hand) -> tuple[Batch, int, int] | None:
        """Wait for rows and return some: a batch and a range of it; None where this thread is to end."""
        thread = threading.current_thread()
        while True:
            with self._condition:
                while not self._batches and thread in self._wanted:
                    self._condition.wait()
                if not self._batches or (self._wanted and thread not in self._wanted):
                    return None
                batch = self._batches[0]
                if hand.is_ready(batch):
                    start, stop = batch.take(self.count, SECONDS, self._least)
                    self._batches.popleft()
                    if stop < batch.count:
                        self._batches.append(batch)  # callers take turns
                    batch.workers += 1
                    self._at_work[thread] = batch, hand
                    return batch, start, stop
                began = time.monotonic()
                self._preparing[thread] = batch, hand, began
            hand.prepare(batch)
            with self._condition:
                self._preparing.pop(thread, None)
                if thread in self._wanted:
                    self._longest = max(self._longest, time.monotonic() - began)
            del batch  # another thread may end it, and nothing is kept while this one waits

    def give_back(self, batch: Batch) -> None:
        """Note that this thread is done with its rows."""
        with self._condition:
            self._at_work.pop(threading.current_thread(), None)
            batch.workers -= 1
            if batch.workers == 0 and (batch.is_over or batch.begun == batch.count):
                batch.ended.release()

    def close(self, patience: float = 0.0) -> None:
        """End the threads, once no rows are left that somebody waits for; new rows start new threads.

        Args:
            patience: Seconds to wait until those have ended that aren't at work.
        """
        with self._condition:
            idle = [thread for thread in self._wanted if thread not in self._at_work]
            self._wanted.clear()
            self._give_up_preparing(0.0)
            self._condition.notify_all()
        _join(idle, patience)

    def drop_all(self) -> None:
        """Drop all rows: those who wait for them are gone."""
        with self._condition:
            batches = {*self._batches, *(batch for batch, _ in self._at_work.values())}
            self._batches.clear()  # nobody begins with the next one once one is dropped
        for batch in batches:
            self._drop(batch)

    def at_work(self) -> list[threading.Thread]:
        """Return the threads that are solving rows."""
        with self._condition:
            return list(self._at_work)

    def after_fork(self) -> None:
        """Begin anew: a forked child has none of its parent's threads."""
        keep_inherited((self._wanted, self._at_work, self._preparing, self._batches))
        self._wanted, self._at_work, self._preparing, self._batches = {}, {}, {}, deque()


class InPlace:
    """What all threads have in common that solve rows themselves."""

    def is_ready(self, batch: Batch) -> bool:
        """Nothing is needed."""
        return True

    def prepare(self, batch: Batch) -> None:
        """Do nothing."""

    def solve(self, batch: Batch, start: int, stop: int) -> None:
        """Solve rows in the block's own arrays; under a deadline in others, as this thread may be left behind."""
        if batch.deadline is None:
            solve_portion(batch.runner, batch.block, start, stop, batch)
            return
        part = batch.block.part(start, stop)
        part.z, part.status = part.z.copy(), part.status.copy()
        part.objective, part.bound = part.objective.copy(), part.bound.copy()
        part.seconds = batch.seconds()
        solve_portion(batch.runner, part, 0, len(part), batch)
        batch.put(part, start)

    def stop(self, batch: Batch, *, is_last: bool) -> None:
        """Stop the solver, if it can be stopped."""
        batch.runner.stop(batch)

    def close(self) -> None:
        """Do nothing: the native models are the runner's."""


_in_place: Final = InPlace()


def solve_here(runner: Runner, job: Job, block: Block, deadline: float | None) -> float | None:
    """Solve a block in the calling thread; under a deadline, in one that can be left behind: as `Threads.solve`."""
    if deadline is None:
        _interrupts.run(runner, block)
        return None
    apart = Threads(1)
    try:
        return apart.solve(runner, job, block, deadline)
    finally:
        apart.close()


def _end_with_program() -> None:
    """Wait for ever in a daemon thread of a program that is ending: that its rows were dropped is nobody's concern."""
    if threading.current_thread().daemon and not threading.main_thread().is_alive():
        threading.Event().wait()


_all: Final[WeakSet[Threads]] = WeakSet()


def _wait(batch: Batch) -> bool:
    """Wait for the end of a batch, or its deadline; tell whether it has ended."""
    if batch.deadline is None:
        return batch.ended.acquire()
    batch.started.wait(START)
    return batch.ended.acquire(timeout=batch.left() or 0.0)


def _work(threads: Threads) -> None:
    hand = threads.new_hand()
    try:
        while True:
            taken = threads.take(hand)
            if taken is None:
                return
            batch, start, stop = taken
            try:
                hand.solve(batch, start, stop)
            except BaseException as error:  # noqa: BLE001 (out of memory, say: the caller waits for an end)
                batch.fail(start, stop, error)
            finally:
                threads.give_back(batch)
            del taken, batch  # nothing is kept while the thread waits
    finally:
        hand.close()


def _join(threads: list[threading.Thread], patience: float) -> None:
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


@atexit.register
def _end() -> None:
    for threads in list(_all):
        busy = threads.at_work()
        threads.drop_all()
        threads.close()
        _join(busy, _PATIENCE)
