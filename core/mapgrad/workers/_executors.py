"""Workers behind an executor: one that a user gives, which stays open, or one that a plugin starts by its name."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING

from mapgrad.workers._batch import START, Batch
from mapgrad.workers._delivery import Delivery
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_lock
from mapgrad.workers._parcels import Parcel, Share, forget, is_there
from mapgrad.workers._portions import fail_rows
from mapgrad.workers._processes import Processes
from mapgrad.workers._threads import solve_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

_logger = logging.getLogger("mapgrad")


class Given:
    """An executor. A forked child has none of its workers: there, the caller solves.

    Beside the standard interface it may have three attributes: `_max_workers` and `_broken`, as those of the standard
    library do, of which the one is looked at for each portion, and the other for each batch, as one that is ours is
    replaced then; and a method ``share``, which takes bytes and returns a function, picklable and small, that returns
    them in each worker. Jobs go that way then, and with the first portions otherwise.

    Args:
        start: Returns the executor.
        is_ours: Whether `close` shuts it down.
    """

    def __init__(self, start: Callable[[], Executor], *, is_ours: bool = False) -> None:
        self._start = start
        self._is_ours = is_ours
        self._executor: Executor | None = None if is_ours else start()
        self._is_inherited = _is_inherited(self._executor)
        self._has_answered = False
        self._at_work = 0
        self._is_closing = False
        self._parcels: dict[str, Parcel] = {}
        self._spare: Processes | None = None
        self._lock = new_lock()
        call_after_fork(self)

    @property
    def count(self) -> int:
        """How many workers it has at the moment; 1 before it is started."""
        executor = self._executor
        if executor is None:
            return 1
        count = None
        with suppress(Exception):  # each executor has its own
            count = getattr(executor, "_max_workers", None)
        return count if isinstance(count, int) and count > 0 else os.cpu_count() or 1

    def solve(self, runner: Runner, job: Job, block: Block, deadline: float | None = None) -> float | None:
        """Solve a block; the deadline begins when the first row is handed out, once a worker has answered a first call.

        Rows that a process pool leaves when it breaks, as the standard library's does for good when one of its workers
        dies, are solved by processes of our own.

        Raises:
            PluginError: An executor that is ours can't be started.
            ValueError: For what its name says.
        """
        if self._is_inherited:
            return solve_here(runner, job, block, deadline)
        with self._lock:
            self._at_work += 1
            self._is_closing = False
        try:
            return self._solve(runner, job, block, deadline)
        finally:
            with self._lock:
                self._at_work -= 1
                executor = self._given_up() if self._is_closing else None
            if executor is not None:
                executor.shutdown()

    def _solve(self, runner: Runner, job: Job, block: Block, deadline: float | None) -> float | None:
        executor, parcel, share = self._open(job.token)
        try:
            if share is not None:
                parcel.prepare(job)
        except Exception as error:  # noqa: BLE001 (each executor has its own)
            fail_rows(block, 0, len(block), error)
            return deadline
        if deadline is not None and not self._has_answered and not isinstance(executor, ThreadPoolExecutor):
            with suppress(Exception):  # the rows will say what is wrong
                first = executor.submit(is_there)
                self._has_answered = bool(wait([first], START).done) and first.exception() is None
        batch = Batch(runner, job, block, deadline)
        for start, stop in Delivery(executor, lambda: self.count, batch, parcel).run():
            part = block.part(start, stop)
            self._successor(executor).solve(runner, job, part, batch.left())
            batch.put(part, start)
        return batch.unused()

    def _open(self, token: str) -> tuple[Executor, Parcel, Share | None]:
        """Return the executor, started if need be, a job on its way to it, and how it shares what workers need."""
        with self._lock:
            if self._is_ours and self._executor is not None and getattr(self._executor, "_broken", False):
                self._executor.shutdown(wait=False)
                self._executor, self._has_answered = None, False
                self._parcels.clear()
            if self._executor is None:
                self._executor = self._start()
            share = getattr(self._executor, "share", None)
            if token not in self._parcels:
                self._parcels[token] = Parcel(self.count, share)
            return self._executor, self._parcels[token], share

    def _successor(self, executor: Executor) -> Processes:
        with self._lock:
            if self._spare is None:
                _logger.warning(
                    "%s, given as workers, is broken for good, as a worker died: its rows go to processes of our own, "
                    'as workers="processes:%d" has from the start',
                    type(executor).__name__,
                    self.count,
                )
                self._spare = Processes(self.count)
            return self._spare

    def forget(self, token: str) -> None:
        """Tell the workers that a job's native models are no longer needed."""
        self._forget([token])
        if self._spare is not None:
            self._spare.forget(token)

    def close(self, patience: float = 0.0) -> None:
        """Shut down an executor that is ours; tell another one, which stays open, that no job's models are needed.

        While batches are at work, the last of them shuts it down, unless another one has begun since.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close(patience)
        if not self._is_ours:
            self._forget([*self._parcels])
            return
        with self._lock:
            self._is_closing = True
            executor = self._given_up()
        if executor is not None:
            executor.shutdown()

    def _given_up(self) -> Executor | None:
        """Let go of the executor where no batch is at work, and return it; the lock is held."""
        if self._at_work > 0:
            return None
        executor, self._executor, self._has_answered = self._executor, None, False
        self._parcels.clear()
        return executor

    def _forget(self, tokens: list[str]) -> None:
        parcels = [self._parcels.pop(token, None) for token in tokens]
        keys = tuple(parcel.key for parcel in parcels if parcel is not None and parcel.key)
        if keys and self._executor is not None:
            # in a thread, since a finalizer may run where this thread holds the executor's locks
            with suppress(RuntimeError):  # no new threads at the program's end
                threading.Thread(target=_tell, args=(self._executor, self.count, keys), daemon=True).start()

    def after_fork(self) -> None:
        """Leave the executor to the parent: somebody may have held its locks."""
        keep_inherited(self._executor)
        self._executor = None
        self._at_work = 0
        self._is_inherited = True


def _is_inherited(executor: Executor | None) -> bool:
    """Tell whether a process pool was made before a fork, so that nobody serves its calls in this process.

    That is so in the pool's own tasks, where they are forked. There is no public way to know; its queue does.
    """
    maker = getattr(getattr(executor, "_call_queue", None), "_opid", None)
    return maker is not None and maker != os.getpid()


def _tell(executor: Executor, count: int, keys: tuple[str, ...]) -> None:
    with suppress(Exception):  # it is shut down or broken, so that its workers' models are gone
        for _ in range(count):
            executor.submit(forget, keys)
