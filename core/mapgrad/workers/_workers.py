"""Who runs the rows of a block: the caller itself, threads, processes, or any executor."""

from __future__ import annotations

import re
import weakref
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final

from mapgrad.workers import _interrupts
from mapgrad.workers._executors import Given, Processes
from mapgrad.workers._threads import Threads

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

Workers = int | str | Executor | None

_PROCESSES: Final = re.compile(r"processes:([1-9][0-9]*)")
_PATIENCE: Final = 1.0


class Pool:
    """The workers of a Solver and all its problems; they are started when there is something to do.

    Args:
        workers: None or 1 for the calling thread, n for n threads, "processes:n", or an executor, which stays open.
    """

    def __init__(self, workers: Workers) -> None:
        self._crew = _crew(workers)
        if self._crew is not None:
            weakref.finalize(self, _close, self._crew)

    @property
    def workers(self) -> int:
        """How many rows may be at work at a time."""
        return 1 if self._crew is None else self._crew.count

    def solve(self, runner: Runner, job: Job, block: Block) -> None:
        """Solve all rows of a block.

        Rows whose worker is lost, or that get none, fail with the reason. Where the caller is interrupted, rows that
        haven't begun are dropped and the others stopped, as far as the solver can be stopped.

        Args:
            runner: The solver, used by the threads of this process.
            job: The same for workers elsewhere.
            block: Rows, and where their answers go.

        Raises:
            KeyboardInterrupt: It came in the main thread; or whatever else a signal's handler raises there.
        """
        if len(block) == 0:
            return
        if self._crew is None:
            _interrupts.run(runner, block)
        elif isinstance(self._crew, Threads):
            self._crew.solve(runner, block)
        else:
            self._crew.solve(runner, job, block)

    def forget(self, token: str) -> None:
        """Have a job's native models freed where they are in other processes; those here are the runner's.

        Processes of our own and of a given executor are told by tasks that each idle one is likely to take; one that
        misses it frees the models once sixteen other jobs have been there, or as it ends.
        """
        if isinstance(self._crew, Given | Processes):
            self._crew.forget(token)

    def close(self) -> None:
        """End the workers that were started here, once the rows are solved that somebody waits for.

        A given executor stays open, and is told to free the native models as by `forget`. Later rows start new workers.
        """
        if self._crew is not None:
            _close(self._crew)


def require_workers(workers: Workers) -> None:
    """Check what a user gave as workers.

    Raises:
        ValueError: It is a number below 1 or an unknown text.
        TypeError: It is something else.
    """
    _crew(workers)


def _close(crew: Threads | Processes | Given) -> None:
    if isinstance(crew, Threads):
        crew.close(_PATIENCE)
    else:
        crew.close()


def _crew(workers: Workers) -> Threads | Processes | Given | None:
    expected = 'workers must be None, a number of threads of at least 1, "processes:n" or a concurrent.futures.Executor'
    if workers is None:
        return None
    if isinstance(workers, Executor):
        return Given(workers)
    if isinstance(workers, str):
        match = _PROCESSES.fullmatch(workers)
        if match is None:
            raise ValueError(f"{expected}, got {workers!r}")
        return Processes(int(match[1]))
    if isinstance(workers, bool) or not isinstance(workers, int):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise TypeError(f"{expected}, got {workers!r}")
    if workers < 1:
        raise ValueError(f"{expected}, got {workers}")
    return None if workers == 1 else Threads(workers)
