"""Processes of our own: each thread of a crew has one, sends it rows in shared memory, and replaces it when it dies."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import numpy as np

from mapgrad.solvers import Progress
from mapgrad.workers._child import (
    JOBS_KEPT,
    MEMORIES_KEPT,
    MEMORY_KEPT,
    Begin,
    Bring,
    Done,
    Map,
    Ready,
    Rows,
    Stage,
    given_up,
    is_importing,
)
from mapgrad.workers._fork_server import Worker, fork_server, import_path
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_lock, without_forks
from mapgrad.workers._messages import receive, send
from mapgrad.workers._parcels import pickled, script, with_what_it_needs
from mapgrad.workers._portions import fail_rows
from mapgrad.workers._shared_batch import Shared
from mapgrad.workers._threads import Threads
from mapgrad.workers._traces import detach

if TYPE_CHECKING:
    import socket

    from mapgrad.solvers import Block
    from mapgrad.workers._batch import Batch
    from mapgrad.workers._runner import Job, Runner
    from mapgrad.workers._shared_memory import SharedMemory

_LEAST: Final = 1e-3
"""Seconds that a portion takes at least, as far as rows are left: handing it out costs up to a tenth of that."""

_logger = logging.getLogger("mapgrad")

_TRIES: Final = 3
"""Of making a solver, and of beginning with rows: what ends a process before it is at a row is seldom that row."""


class Processes:
    """Processes that all callers share; they are started when there is something to do.

    Args:
        count: How many there are at most.
        solves: After how many rows a process is replaced; None for never.
        memory: After how many bytes of its memory; None for any number.
    """

    def __init__(self, count: int, solves: int | None = None, memory: int | None = None) -> None:
        self.count = count
        self.solves = solves
        self.memory = memory
        self._processes: WeakSet[_Process] = WeakSet()
        self._threads = Threads(count, self._new_process, _LEAST)
        self._lock = new_lock()
        self._jobs: OrderedDict[str, bytes] = OrderedDict()
        self._idle: list[tuple[int, SharedMemory]] = []
        self._has_warned = False
        call_after_fork(self)

    def _new_process(self) -> _Process:
        process = _Process(self)
        self._processes.add(process)
        return process

    def solve(self, runner: Runner, job: Job, block: Block, deadline: float | None = None) -> float | None:
        """Solve a block: see `Threads.solve`.

        Raises:
            RuntimeError: A worker process that imports the user's script asks.
        """
        if is_importing():
            raise RuntimeError(
                'no worker process starts: a script that uses workers="processes:n" with a solver of its own must do '
                'its work under if __name__ == "__main__", as each worker imports it'
            )
        with self._lock:
            memory = self._idle.pop() if self._idle else None
        try:
            batch = Shared(runner, job, block, deadline, memory)
        except OSError as error:
            fail_rows(block, 0, len(block), error)
            return deadline
        has_ended = False
        try:
            has_ended = self._threads.finish(batch)
        finally:
            with self._lock:
                is_kept = has_ended and batch.memory.size <= MEMORY_KEPT and len(self._idle) < MEMORIES_KEPT
                if is_kept:
                    self._idle.append((batch.number, batch.memory))
            if not is_kept:  # a process that is dying may still write to it
                batch.memory.close()
        return batch.unused()

    def data_of(self, job: Job) -> bytes:
        """Return a job, pickled.

        Raises:
            PicklingError: It can't be.
        """
        with self._lock:
            data = self._jobs.get(job.token)
        if data is None:
            data = pickled(job) if script() else with_what_it_needs(job)
            with self._lock:
                self._jobs[job.token] = data
                if len(self._jobs) > JOBS_KEPT:
                    self._jobs.popitem(last=False)
        return data

    def warn_of_memory(self, least: int) -> None:
        """Warn, once, that a process has so many bytes after its first rows, and is replaced at once."""
        with self._lock:
            is_first, self._has_warned = not self._has_warned, True
        if is_first:
            _logger.warning(
                "memory=%d is less than the %d bytes that a worker process has after its first rows, so that each "
                "portion of rows gets a new process, which takes longer: set memory=%d, say, or None",
                self.memory,
                least,
                2 * least,
            )

    def forget(self, token: str) -> None:
        """Have a job's native models freed: each process does so before its next rows."""
        with self._lock:
            self._jobs.pop(token, None)
        for process in list(self._processes):
            process.forgotten.add(token)

    def close(self, patience: float = 0.0) -> None:
        """End the processes, once the rows are solved that somebody waits for; new rows start new ones."""
        self._threads.close(patience)
        with self._lock:
            idle, self._idle = self._idle, []
        for _, memory in idle:
            memory.close()

    def after_fork(self) -> None:
        """Leave the memory to the parent: both would write to it."""
        keep_inherited(self._idle)
        self._idle = []


class _Process:
    """A thread's worker process, which begins with the first rows and after each death.

    Args:
        crew: The processes that it is one of.

    Attributes:
        forgotten: Tokens of jobs that it shall free; other threads add to it.
    """

    def __init__(self, crew: Processes) -> None:
        self.forgotten: set[str] = set()
        self._crew = crew
        self._worker: Worker | None = None
        self._pid = 0
        self._solved = self._bytes = self._spared = self._short_lived = 0
        self._jobs: OrderedDict[str, None] = OrderedDict()
        self._memories: OrderedDict[int, int] = OrderedDict()
        self._broken: tuple[int, BaseException] | None = None  # by the batch's name, as it must not be kept
        self._at_work: Batch | None = None
        self._is_given_up = False
        self._staged: int | None = None
        call_after_fork(self)

    def is_ready(self, batch: Batch) -> bool:
        """Tell whether the process is there and has the batch's job, or can't get it."""
        assert isinstance(batch, Shared)
        if self._broken is not None and self._broken[0] == batch.name:
            return True
        is_there = self._worker is not None and not self._is_used_up()
        return is_there and not self.forgotten and batch.job.token in self._jobs

    def prepare(self, batch: Batch) -> None:
        """Start the process where there is none, and bring the job."""
        assert isinstance(batch, Shared)
        self._broken, self._is_given_up = None, False
        self._at_work = batch
        try:
            error = self._begin(batch)
        except BaseException as caught:  # noqa: BLE001 (it is the rows')
            error = caught
        finally:
            self._at_work = None
        if error is not None:
            detach(error)
            self._broken = batch.name, error

    def _begin(self, batch: Batch) -> BaseException | None:
        if self._is_used_up():
            self.close()
        job = batch.job
        data = self._crew.data_of(job)
        tries = _TRIES
        while True:
            tries -= self._worker is None
            try:
                worker = self._started()
                if batch.is_over or self._is_given_up:  # `stop` may have come before there was a process
                    return None
                self._forget(worker)
                return None if job.token in self._jobs else self._bring(worker, job.token, data)
            except (OSError, EOFError) as error:
                how = f"can't be started ({error})" if self._worker is None else self._end()
                if tries == 0 or batch.is_over or self._is_given_up:
                    failure = ChildProcessError(
                        f"no worker process has made the solver in {_TRIES} tries: the last one {how}"
                    )
                    failure.__cause__ = error
                    return failure

    def _started(self) -> Worker:
        if self._worker is None:
            with without_forks():  # a child would have its socket open
                self._worker = fork_server.fork()
            self._solved = self._bytes = 0
            send(self._worker.socket, Begin(dict(os.environ), _folder(), import_path(), sys.argv))
            self._pid = receive(self._worker.socket)[0]
        return self._worker

    def _forget(self, worker: Worker) -> None:
        tokens = [self.forgotten.pop() for _ in range(len(self.forgotten))]
        known = tuple(token for token in tokens if token in self._jobs)
        if known:
            send(worker.socket, known)
        for token in known:
            del self._jobs[token]

    def _bring(self, worker: Worker, token: str, data: bytes) -> BaseException | None:
        main = script() if b"__main__" in data else {}
        send(worker.socket, Bring(token, data, main))
        ready: Ready = receive(worker.socket)[0]
        if ready.error is None:
            self._jobs[token] = None
            if len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
        return None if ready.error is None else ready.error.opened()

    def _is_used_up(self) -> bool:
        solves, memory = self._crew.solves, self._crew.memory
        return (solves is not None and self._solved >= solves) or (memory is not None and self._bytes >= memory)

    def solve(self, batch: Batch, start: int, stop: int) -> None:
        """Solve rows; those on which the process dies are tried once more, alone."""
        assert isinstance(batch, Shared)
        while start < stop:
            how = self._attempt(batch, start, stop)
            if how is None:
                return
            suspects, start = self._take_in(batch, start, stop)
            for row in suspects:
                self.prepare(batch)
                how = self._attempt(batch, row, row + 1)
                if how is not None:
                    error = ChildProcessError(f"its worker process {how} while it solved this row, for the second time")
                    batch.fail(row, row + 1, error)
            self.prepare(batch)

    def _attempt(self, batch: Shared, start: int, stop: int) -> str | None:
        """Have rows solved; return how a process ended while it solved them, if one did and somebody waits for them."""
        while True:
            how = self._ask(batch, start, stop)
            if how is None or batch.progress[start] != Progress.WAITING or self._spared == _TRIES - 1:
                return how
            self._spared += 1
            self.prepare(batch)

    def _ask(self, batch: Shared, start: int, stop: int) -> str | None:
        if self._broken is not None:
            batch.fail(start, stop, self._broken[1])
            return None
        assert self._worker is not None
        to = self._worker.socket
        self._at_work = batch
        batch.progress[start:stop] = Progress.WAITING
        try:
            if batch.is_over:  # `stop` may have come while a process that died was replaced
                return None
            if self._staged != batch.name:
                self._stage(to, batch)
            send(to, Rows(start, stop, batch.seconds()))
            done: Done = receive(to)[0]
        except (OSError, EOFError):
            how = self._end()
            return None if batch.is_over else how
        finally:
            self._at_work = None
        part = batch.mirror.part(start, stop)
        part.causes = {row: cause.opened() for row, cause in done.causes.items()}
        batch.put(part, start)
        batch.runner.pace = done.seconds / (stop - start)
        self._spared = 0
        self._bytes = done.memory
        self._look_at_memory()
        self._solved += stop - start
        return None

    def _look_at_memory(self) -> None:
        """Have it told where one process after the other has no memory left once it has solved its first rows."""
        if self._solved == 0:
            is_short_lived = self._crew.memory is not None and self._bytes >= self._crew.memory
            self._short_lived = self._short_lived + 1 if is_short_lived else 0
            if self._short_lived > 1:  # one alone may have had a large row
                self._crew.warn_of_memory(self._bytes)

    def _stage(self, to: socket.socket, batch: Shared) -> None:
        if batch.number not in self._memories:
            send(to, Map(batch.number, batch.memory.size), (batch.memory.file,))
            self._memories[batch.number] = batch.memory.size
        self._memories.move_to_end(batch.number)
        for number in given_up(self._memories):
            del self._memories[number]
        self._jobs.move_to_end(batch.job.token)
        block, measures = batch.block, self._crew.memory is not None
        send(to, Stage(batch.job.token, batch.number, batch.shapes, block.reuse, block.patience, measures))
        self._staged = batch.name

    def _take_in(self, batch: Shared, start: int, stop: int) -> tuple[list[int], int]:
        """Take the answers that a process left behind as it died.

        Returns:
            The rows that it may have died of, or whose errors died with it; and the first row after them.
        """
        suspects: list[int] = []
        row = start
        while row < stop and batch.progress[row] == Progress.ENDED:
            if np.isnan(batch.mirror.z[row]).any():
                suspects.append(row)
            else:
                batch.put(batch.mirror.part(row, row + 1), row)
            row += 1
        if start < row and (row == stop or batch.progress[row] == Progress.WAITING):
            return suspects, row
        if batch.runner.loops:
            return [*suspects, row], row + 1
        return list(range(start, stop)), stop

    def _end(self) -> str:
        """Let go of the process and say how it ended."""
        assert self._worker is not None
        how = self._worker.end_of()
        self._let_go()
        return how

    def _let_go(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._pid = 0
        self._staged = None
        self._jobs.clear()
        self._memories.clear()

    def stop(self, batch: Batch, *, is_last: bool) -> None:
        """Kill the process if it is at work on a batch or makes its solver, and nobody stopped it otherwise."""
        if is_last and self._at_work is batch:
            self._is_given_up = True
            if (pid := self._pid) != 0:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Have the process end."""
        if self._worker is not None:
            with suppress(OSError):
                send(self._worker.socket, None)
        self._let_go()

    def after_fork(self) -> None:
        """Leave the process to the parent, whose end it must see."""
        self._let_go()


def _folder() -> str | None:
    """Return the folder that we are in; None where it is gone, as that of a job may be."""
    with suppress(FileNotFoundError):
        return str(Path.cwd())
    return None
