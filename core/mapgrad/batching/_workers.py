"""Who runs the rows of a batch: the caller itself, threads, or any executor."""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.batching._answers import Answers
from mapgrad.batching._running import Job, Runner, run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from numpy.typing import NDArray

Workers = int | str | Executor | None

_CHUNKS_PER_WORKER: Final = 4
_PROCESSES: Final = re.compile(r"processes:([1-9][0-9]*)")


class Pool:
    """Splits rows into chunks and has them solved.

    Args:
        runner: The solver, used by this process's own threads.
        job: The same for workers of a foreign executor or process.
        workers: None or 1 for the calling thread, n for n threads, "processes:n", or an executor, which stays open.
    """

    def __init__(self, runner: Runner, job: Job, workers: Workers) -> None:
        self._runner = runner
        self._job = job
        self._count, self._open = _parse(workers)
        self._is_ours = not isinstance(workers, Executor)
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def solve(self, rows: NDArray[np.float64], starts: NDArray[np.float64] | None = None) -> Answers:
        """Solve rows [N, *shape], from states where given; a chunk whose worker dies fails alone."""
        if self._open is None:
            return self._runner.solve(rows, starts)
        with self._lock:
            if self._executor is None:
                self._executor = self._open()
        edges = np.linspace(0, len(rows), min(len(rows), self._count * _CHUNKS_PER_WORKER) + 1)
        answers = Answers.unsolved(rows.shape)
        parts = [
            (np.arange(start, stop), self._submit(self._executor, slice(start, stop), rows, starts))
            for start, stop in pairwise(int(edge) for edge in edges)
        ]
        for numbers, part in parts:
            try:
                answers.place(numbers, part.result())
            except Exception as error:  # noqa: BLE001 (a dead worker or an answer that can't be sent back)
                answers.errors.update(dict.fromkeys(map(int, numbers), error))
        return answers

    def _submit(
        self, executor: Executor, chunk: slice, rows: NDArray[np.float64], starts: NDArray[np.float64] | None
    ) -> Future[Answers]:
        part = rows[chunk], None if starts is None else starts[chunk]
        if self._is_ours and isinstance(executor, ThreadPoolExecutor):
            return executor.submit(self._runner.solve, *part)
        return executor.submit(run_job, self._job, *part)

    def close(self) -> None:
        """Stop the workers that were started here and free the native models."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None and self._is_ours:
            executor.shutdown(cancel_futures=True)
        self._runner.close()


def require_workers(workers: Workers) -> None:
    """Check what a user gave as workers.

    Raises:
        ValueError: it is a number below 1 or an unknown text.
        TypeError: it is something else.
    """
    _parse(workers)


def _parse(workers: Workers) -> tuple[int, Callable[[], Executor] | None]:
    """Return how many workers there are, and how to start them; None where the caller is the worker."""
    expected = 'workers must be None, a number of threads of at least 1, "processes:n" or a concurrent.futures.Executor'
    if workers is None:
        return 1, None
    if isinstance(workers, Executor):
        return getattr(workers, "_max_workers", None) or os.cpu_count() or 1, lambda: workers
    if isinstance(workers, str):
        match = _PROCESSES.fullmatch(workers)
        if match is None:
            raise ValueError(f"{expected}, got {workers!r}")
        # fork would copy torch's and the solvers' threads in an undefined state
        context = multiprocessing.get_context("spawn")
        return int(match[1]), lambda: ProcessPoolExecutor(int(match[1]), mp_context=context)
    if isinstance(workers, bool) or not isinstance(workers, int):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise TypeError(f"{expected}, got {workers!r}")
    if workers < 1:
        raise ValueError(f"{expected}, got {workers}")
    if workers == 1:
        return 1, None
    return workers, lambda: ThreadPoolExecutor(workers, thread_name_prefix="mapgrad")
