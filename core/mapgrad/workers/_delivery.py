"""A batch's way through an executor: in portions, cut in halves where they fail, until the rows at fault are alone."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mapgrad.workers._parcels import HERE, UNKNOWN, Parcel, Rows
from mapgrad.workers._portions import SECONDS, Answers
from mapgrad.workers._threads import PAUSE, STOPS, solve_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.workers._batch import Batch

_AHEAD: Final = 2
"""Portions for each worker that are handed out and not answered yet; under a deadline one, as a row may hang."""

_REMOTE_SECONDS: Final = 0.2
"""What a portion takes at most, elsewhere, with few workers: handing it out costs a cluster up to 11 ms of CPU time."""

_CALL: Final = 2e-3
"""Seconds that a call of a cluster takes of its scheduler or of this process, which make one after the other."""

_SHARE: Final = 0.25
"""Of the time in which all workers solve a portion each, that the calls for these may take."""

_PAUSE: Final = 0.05
"""Seconds after which a caller takes rows back that nobody begins with."""

_FAILURES: Final = 32
"""After so many, and no answer, it isn't the rows: twice as many portions as it takes to find one in a thousand."""


class _Portion(NamedTuple):
    """Rows that are handed out together.

    Attributes:
        start: The first row.
        stop: The one after the last.
        with_job: Whether it brings the job in any case.
        has_failed: Whether a portion has failed that they were in.
        is_alone: Whether nothing else is handed out meanwhile, so that it can't fail by what others do to its worker.
    """

    start: int
    stop: int
    with_job: bool = False
    has_failed: bool = False
    is_alone: bool = False


class Delivery:
    """A batch's way through an executor.

    Where the executor's threads belong to this process, its own runner solves the rows. A portion whose call fails, as
    it does where its worker dies, is tried again in two halves, and a row that failed by itself once more at the end,
    when nothing else is at work: what fails then is the row's own fault.

    The caller takes portions back and solves them itself where nobody begins with any, as in a task of the very
    executor, whose workers all wait for such tasks.

    Args:
        executor: The executor.
        count: Tells how many workers it has at the moment.
        batch: The rows.
        parcel: The batch's job.
    """

    def __init__(self, executor: Executor, count: Callable[[], int], batch: Batch, parcel: Parcel) -> None:
        self._executor = executor
        self._count = count
        self._batch = batch
        self._parcel = parcel
        self._has_threads = isinstance(executor, ThreadPoolExecutor)
        self._takes_back = self._has_threads or multiprocessing.parent_process() is not None
        self._ahead = _AHEAD if batch.deadline is None else 1
        self._pause = _PAUSE
        self._pending: dict[_Portion, Future[Any]] = {}  # an executor that remembers calls gives one future to several
        self._done: SimpleQueue[tuple[_Portion, Future[Any]]] = SimpleQueue()
        self._again: list[_Portion] = []
        self._alone: list[_Portion] = []
        self._left: list[_Portion] = []
        self._failures = 0
        self._has_answers = False
        self._verdict: BaseException | None = None

    def run(self) -> list[tuple[int, int]]:
        """Have the rows solved, but for those that are left when a process pool breaks, which is for good.

        Returns:
            Those, as ranges in order.
        """
        batch = self._batch
        try:
            while self._hand_out():
                self._collect()
                if batch.left() == 0.0:
                    self._drop()
                    batch.close()
                    return []
        except BaseException:
            self._drop()
            raise
        if self._verdict is not None:
            self._left += [*self._again, *self._alone, _Portion(batch.begun, batch.count)]
            if isinstance(self._verdict, BrokenProcessPool):
                return _joined(self._left)
            for start, stop in _joined(self._left):
                batch.fail(start, stop, self._verdict)
        return []

    def _hand_out(self) -> bool:
        """Hand out what there is to do, and tell whether anything is under way."""
        while len(self._pending) < self._count() * self._ahead and self._verdict is None:
            portion = self._next()
            if portion is None:
                break
            self._submit(portion)
        return bool(self._pending)

    def _next(self) -> _Portion | None:
        if self._again:
            return self._again.pop()
        if self._batch.begun < self._batch.count:
            return self._fresh()
        if self._alone and not self._pending:
            return self._alone.pop()._replace(is_alone=True)
        return None

    def _fresh(self) -> _Portion:
        """Hand out rows for the first time.

        Elsewhere, portions grow with the number of workers, so that handing them out keeps up with that, and with the
        work W that is left: √(W · call) seconds each take the least time in sum where workers abound.
        """
        batch, count = self._batch, self._count()
        if self._has_threads:
            return _Portion(*batch.take(count, SECONDS))
        left = (batch.count - batch.begun) * (batch.runner.pace or 0.0)
        return _Portion(*batch.take(count, max(_REMOTE_SECONDS, count * _CALL / _SHARE), math.sqrt(left * _CALL)))

    def _submit(self, portion: _Portion) -> None:
        rows = Rows(self._batch, self._parcel, portion.start, portion.stop, with_job=portion.with_job)
        try:
            future = self._executor.submit(rows)
            future.add_done_callback(lambda done: self._done.put((portion, done)))
            self._pending[portion] = future
        except Exception as error:  # noqa: BLE001 (each executor has its own)
            if isinstance(error, RuntimeError) and not isinstance(error, BrokenExecutor):
                said = " ".join(str(error).split())
                refusal = RuntimeError(f"the executor given as workers took no rows: is it shut down? It says: {said}")
                refusal.__cause__ = error
                error = refusal
            self._fail(portion, error)

    def _collect(self) -> None:
        left = self._batch.left()
        pauses = [pause for pause in (left, self._pause if self._takes_back else None) if pause is not None]
        done = None
        with suppress(Empty):
            done = self._done.get(timeout=min(pauses) if pauses else None)
        if done is None:
            if self._takes_back and left != 0.0 and not any(future.running() for future in self._pending.values()):
                self._take_back()
            return
        self._take_in(*done)
        self._pause = _PAUSE
        while not self._done.empty():
            self._take_in(*self._done.get())

    def _take_in(self, portion: _Portion, future: Future[Any]) -> None:
        if self._pending.pop(portion, None) is None:  # taken back
            return
        error = CancelledError("the executor cancelled the call") if future.cancelled() else future.exception()
        if error is not None:
            self._fail(portion, error)
            return
        answers, count = future.result(), portion.stop - portion.start
        if isinstance(answers, Answers) and len(answers.status) == count:
            self._batch.put(answers, portion.start)
            self._batch.runner.pace = answers.seconds / count
        elif isinstance(answers, str) and answers == UNKNOWN:
            self._again.append(portion._replace(with_job=True))
            return
        elif not (isinstance(answers, str) and answers == HERE):
            what = f"expected from the executor what its call returned, Answers to {count} rows"
            self._fail(portion, TypeError(f"{what}, got {type(answers).__name__}"))
            return
        self._has_answers = True

    def _fail(self, portion: _Portion, error: BaseException) -> None:
        """Try a portion again, in halves if there are any; or leave it, where it isn't the rows' fault."""
        start, stop = portion[:2]
        self._failures += 1
        is_hopeless = self._parcel.error is not None or (self._failures >= _FAILURES and not self._has_answers)
        if isinstance(error, BrokenExecutor) or is_hopeless or self._verdict is not None:
            self._verdict = error if self._verdict is None else self._verdict
            self._left.append(portion)
        elif stop - start > 1:
            middle = (start + stop) // 2
            self._again += [_Portion(*half, portion.with_job, True) for half in ((middle, stop), (start, middle))]
        elif portion.is_alone:
            self._batch.fail(start, stop, error)
        else:
            self._alone.append(portion._replace(has_failed=True))

    def _take_back(self) -> None:
        for portion, future in reversed(self._pending.items()):
            if not portion.has_failed and future.cancel():
                del self._pending[portion]
                part = self._batch.block.part(portion.start, portion.stop)
                solve_here(self._batch.runner, self._batch.job, part, self._batch.left())
                self._batch.put(part, portion.start)
                self._pause = 0.0
                return

    def _drop(self) -> None:
        for future in self._pending.values():
            with suppress(Exception):  # each executor has its own
                future.cancel()
        if not self._has_threads:
            return
        begun = [future for future in self._pending.values() if future.running()]
        for _ in range(STOPS if begun else 0):
            self._batch.runner.stop(self._batch)
            if not self._batch.runner.can_stop or not wait(begun, PAUSE).not_done:
                break


def _joined(portions: list[_Portion]) -> list[tuple[int, int]]:
    """Return the rows of portions as ranges, in order."""
    ranges: list[tuple[int, int]] = []
    for start, stop, *_ in sorted(portions):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], stop
        elif start < stop:
            ranges.append((start, stop))
    return ranges
