"""Workers behind an executor: a given one, which stays open, or our own processes, replaced when one of them dies."""

from __future__ import annotations

import os
import threading
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mapgrad.workers import _interrupts
from mapgrad.workers._locks import call_after_fork, keep_inherited
from mapgrad.workers._parcels import UNKNOWN, Parcel, Rows, forget
from mapgrad.workers._portions import SECONDS, fail_rows, next_portion

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

_AHEAD: Final = 2
"""Portions for each worker that are handed out and not answered yet."""

_REMOTE_SECONDS: Final = 5e-2
"""What a portion takes, elsewhere: handing it out costs up to a hundredth of that."""

_PAUSE: Final = 0.05
"""Seconds after which a caller takes rows back that nobody begins with."""

_STOPS: Final = 5
_STOP_PAUSE: Final = 0.02


class _Lost(NamedTuple):
    """Rows that came to nothing, and why."""

    start: int
    stop: int
    error: BaseException


class _Delivery:
    """A block's way through an executor.

    Where the executor's threads belong to this process, its own runner solves the rows. Where none of these threads
    begins with any, since they wait for this very caller, say, the caller takes portions back and solves them itself.
    """

    def __init__(self, executor: Executor, count: int, job: Job, parcel: Parcel, runner: Runner, block: Block) -> None:
        self._executor = executor
        self._count = count
        self._job = job
        self._parcel = parcel
        self._runner = runner
        self._block = block
        self._has_threads = isinstance(executor, ThreadPoolExecutor)
        self._seconds = SECONDS if self._has_threads else _REMOTE_SECONDS
        self._owner = object()
        self._pause = _PAUSE
        self._todo: list[tuple[int, int, bool]] = []
        self._pending: dict[Future[Any], tuple[int, int]] = {}
        self._lost: list[_Lost] = []

    def run(self, start: int, stop: int, *, whole: bool = False) -> list[_Lost]:
        """Have rows solved, in portions or as a whole that brings its job along, and return those that were lost."""
        self._todo = [(start, stop, whole)]
        try:
            while self._todo or self._pending:
                while self._todo and len(self._pending) < self._count * _AHEAD:
                    self._submit(*self._next())
                self._collect()
        except BaseException:
            self._drop()
            raise
        return self._lost

    def _next(self) -> tuple[int, int, bool]:
        start, stop, whole = self._todo.pop()
        if not whole:
            size = next_portion(self._runner, stop - start, self._count, self._seconds)
            if start + size < stop:
                self._todo.append((start + size, stop, False))
                stop = start + size
        return start, stop, whole

    def _submit(self, start: int, stop: int, with_job: bool) -> None:
        where = self._block, start, stop
        rows = Rows(self._job, self._parcel, self._runner, *where, owner=self._owner, with_job=with_job)
        try:
            self._pending[self._executor.submit(rows)] = start, stop
        except Exception as error:  # noqa: BLE001 (each executor has its own)
            self._lost += [_Lost(*span[:2], error) for span in [(start, stop), *self._todo]]
            self._todo = []

    def _collect(self) -> None:
        done, _ = wait(self._pending, self._pause if self._has_threads else None, FIRST_COMPLETED)
        self._pause = _PAUSE
        for future in done:
            start, stop = self._pending.pop(future)
            error = CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                self._lost.append(_Lost(start, stop, error))
                continue
            answers = future.result()
            if answers == UNKNOWN:
                self._todo.append((start, stop, True))
            elif answers is not None:
                answers.put(self._block, start, stop)
                self._runner.pace = answers.seconds / (stop - start)
        if self._pending and not done and not any(future.running() for future in self._pending):
            self._take_back()
            self._pause = 0.0

    def _take_back(self) -> None:
        future, (start, stop) = self._pending.popitem()
        if not future.cancel():
            self._pending[future] = start, stop
            return
        part = self._block.part(start, stop)
        _interrupts.run(self._runner, part)
        for row, error in part.causes.items():
            self._block.causes[start + row] = error

    def _drop(self) -> None:
        for future in self._pending:
            future.cancel()
        begun = [future for future in self._pending if future.running()]
        for _ in range(_STOPS if begun and self._has_threads else 0):
            self._runner.stop(self._owner)
            if not self._runner.can_stop or not wait(begun, _STOP_PAUSE).not_done:
                break


class _Foreign:
    """What executors have in common: jobs that are sent to a worker once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._parcels: dict[str, Parcel] = {}

    def _deliver(self, executor: Executor, runner: Runner, job: Job, block: Block, count: int) -> _Delivery:
        parcel = self._parcels.get(job.token)
        if parcel is None:
            parcel = self._parcels[job.token] = Parcel(count)
        return _Delivery(executor, count, job, parcel, runner, block)

    def _forget(self, executor: Executor | None, tokens: list[str]) -> None:
        parcels = [(token, self._parcels.pop(token, None)) for token in tokens]
        sent = tuple(token for token, parcel in parcels if parcel is not None and parcel.sent)
        if sent and executor is not None:
            # in a thread, since a finalizer may run where this thread holds the executor's locks
            with suppress(RuntimeError):  # no new threads at the program's end
                threading.Thread(target=_tell, args=(executor, self.count, sent), daemon=True).start()


def _tell(executor: Executor, count: int, tokens: tuple[str, ...]) -> None:
    with suppress(Exception):  # it is shut down or broken, so that its workers' models are gone
        for _ in range(count):
            executor.submit(forget, tokens)


class Given(_Foreign):
    """A user's executor. A forked child has none of its workers: there, the caller solves."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        self._executor: Executor | None = executor
        call_after_fork(self)

    def solve(self, runner: Runner, job: Job, block: Block, deadline: float | None = None) -> None:
        """Solve a block; without a deadline, which `Workers.solve` refuses."""
        if self._executor is None:
            _interrupts.run(runner, block)
            return
        for start, stop, error in self._deliver(self._executor, runner, job, block, self.count).run(0, len(block)):
            if isinstance(error, RuntimeError) and not isinstance(error, BrokenExecutor):
                error = _caused(RuntimeError("the executor given as workers took no rows: is it shut down?"), error)
            fail_rows(block, start, stop, error)

    def forget(self, token: str) -> None:
        """Tell the workers that a job's native models are no longer needed."""
        self._forget(self._executor, [token])

    def close(self) -> None:
        """Tell the workers that no job's native models are needed; the executor stays open."""
        self._forget(self._executor, list(self._parcels))

    def after_fork(self) -> None:
        """Leave the executor to the parent: somebody may have held its locks."""
        keep_inherited(self._executor)
        self._executor = None


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
