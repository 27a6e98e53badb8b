"""Who runs the rows of a block: the caller itself, threads, processes, or any executor."""

from __future__ import annotations

import re
import weakref
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np

from mapgrad.arguments import whole_number
from mapgrad.solvers import executor_behind, executor_named, refusal_of_workers
from mapgrad.workers import _interrupts
from mapgrad.workers._executors import Given
from mapgrad.workers._node import share_of
from mapgrad.workers._processes import Processes
from mapgrad.workers._threads import Threads

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

_PROCESSES: Final = re.compile(r"processes:([1-9][0-9]*)")
_PATIENCE: Final = 1.0


class Workers:
    """Workers that several solvers and layers share: each is given this object as ``workers=``.

    They are started when there is something to do, and end with the last solver that uses them, with the program, or by
    `close`. What a solver says by ``workers=4`` or ``workers="processes:4"`` are workers of its own. Processes are
    forked by a small process, without torch and the user's script, which is imported only where a solver's class or
    function is in it. They were tested on Linux; elsewhere they need os.fork.

    Args:
        workers: None or 1 for the calling thread, n for n threads, ``"processes:n"`` for n processes, a
            `concurrent.futures.Executor`, which stays open, or the name of a kind that a plugin has, with what it is
            to know after a colon, such as ``"ray:8"``, ``"dask:4"`` or ``"dask:tcp://host:port"``; or a
            `distributed.Client`, which stays open, too.
        solves: After how many rows a process is replaced by a new one; None for never.
        memory: How many bytes of resident memory a process may have before it is replaced; None for any number. It
            is looked at after each portion of rows. Take more than a process begins with, some 40 MB, or several
            hundred where your script is imported and imports torch: below that, each portion gets a new process, and
            the logger `mapgrad` warns once, with how much a process needs.
        per_node: Whether n is the number for a node, of which each of its ranks gets an equal share, rounded so that
            they add up to n, and one at least: with 8 ranks, ``"processes:16"`` are two a rank, not 128. No rank lends
            its workers to another. How many ranks a node has is read from what torchrun, Open MPI and MPICH set; where
            others start them, set LOCAL_WORLD_SIZE and LOCAL_RANK, under Slurm to the values of SLURM_NTASKS_PER_NODE
            and SLURM_LOCALID. A program without such variables is alone on its node.

    Raises:
        ValueError: A number below 1, or an unknown text; under `per_node`, variables that tell of ranks, but not of
            this node's.
        MissingDependencyError: A plugin's kind needs a package that isn't installed.
        PluginError: The plugin is broken or blocked.
        TypeError: Something else; `solves` or `memory` for workers that aren't processes, `per_node` for any but
            numbers of threads and processes.

    Example:
        >>> import mapgrad
        >>> workers = mapgrad.Workers("processes:2", solves=100_000)
        >>> solvers = [mapgrad.get_solver("highs", mapgrad.KSubset(9, k), workers=workers) for k in (2, 3)]
    """

    def __init__(
        self,
        workers: WorkersLike = None,
        *,
        solves: int | None = None,
        memory: int | None = None,
        per_node: bool = False,
    ) -> None:
        workers = _plain(workers)
        self._given = workers, solves, memory, per_node
        self._crew = _crew(_shared(workers) if _is_true(per_node) else workers, solves, memory)
        self._apart = Threads(1)  # in place of the calling thread, which can't be left behind at a deadline
        for crew in (self._crew, self._apart):
            if crew is not None:
                weakref.finalize(self, _close, crew)

    @property
    def count(self) -> int:
        """How many rows may be at work at a time."""
        return 1 if self._crew is None else self._crew.count

    def solve(self, runner: Runner, job: Job, block: Block, deadline: float | None = None) -> float | None:
        """Solve all rows of a block.

        Rows fail with the reason that get no worker, or whose worker is lost with them twice. Where the caller is
        interrupted, rows that haven't begun are dropped and the others stopped, as far as the solver can be stopped.

        Args:
            runner: The solver, used by the threads of this process.
            job: The same for workers elsewhere.
            block: Rows, and where their answers go.
            deadline: Seconds, from when a worker is ready, after which rows without an answer fail by
                SolveTimeoutError; None for any time.

        Returns:
            What is left of the deadline: to start workers takes nothing of it.

        Raises:
            KeyboardInterrupt: It came in the main thread; or whatever else a signal's handler raises there.
        """
        if len(block) == 0:
            return deadline
        if self._crew is not None:
            return self._crew.solve(runner, job, block, deadline)
        if deadline is None:
            _interrupts.run(runner, block)
            return None
        return self._apart.solve(runner, job, block, deadline)

    def forget(self, token: str) -> None:
        """Have a job's native models freed where they are in other processes; those here are the runner's.

        Processes of our own free them before their next rows. Those of a given executor are told by tasks that each
        idle one is likely to take; one that misses it does so once sixteen other jobs have been there, or as it ends.
        """
        if isinstance(self._crew, Given | Processes):
            self._crew.forget(token)

    def close(self) -> None:
        """End the workers that were started here, once the rows are solved that somebody waits for.

        An executor that was given stays open, and is told to free the native models as by `forget`; one that was named
        is shut down. Later rows start new workers.
        """
        for crew in (self._crew, self._apart):
            if crew is not None:
                _close(crew)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, self._given

    def __repr__(self) -> str:
        workers, _, _, per_node = self._given
        return f"Workers({workers!r}{', per_node=True' if per_node else ''})"


class Client(Protocol):
    """What a plugin makes an executor of, such as a `distributed.Client`."""

    def get_executor(self, **options: Any) -> Any:
        """Return an executor of another library."""


WorkersLike = int | str | Executor | Client | Workers | None
"""What `get_solver` takes as `workers`."""


def require_workers(workers: WorkersLike) -> WorkersLike:
    """Return what a user gave as workers, numbers of NumPy as an int.

    Raises:
        ValueError: It is a number below 1 or an unknown text.
        MissingDependencyError: It names what needs a package that isn't installed.
        PluginError: It names what a plugin has that is broken or blocked.
        TypeError: It is something else.
    """
    workers = _plain(workers)
    if not isinstance(workers, Workers):
        _crew(workers)
    return workers


def _plain(workers: object) -> WorkersLike:
    given = cast("Any", workers)
    return int(given) if isinstance(workers, np.integer) else given


def _remade(workers: WorkersLike, solves: int | None, memory: int | None, per_node: bool) -> Workers:
    return Workers(workers, solves=solves, memory=memory, per_node=per_node)


def _is_true(per_node: object) -> bool:
    if not isinstance(per_node, bool):
        raise TypeError(f"per_node must be True or False, got {per_node!r}")
    return per_node


def _shared(workers: WorkersLike) -> WorkersLike:
    """Return this rank's share of a number of threads or processes."""
    if isinstance(workers, int) and not isinstance(workers, bool):
        return workers if workers < 1 else share_of(workers)
    if isinstance(workers, str) and (match := _PROCESSES.fullmatch(workers)) is not None:
        return f"processes:{share_of(int(match[1]))}"
    raise TypeError(f'per_node=True is for numbers of threads and "processes:n", got {workers!r}')


def _close(crew: Threads | Processes | Given) -> None:
    crew.close(_PATIENCE)


def _crew(workers: object, solves: int | None = None, memory: int | None = None) -> Threads | Processes | Given | None:
    match = _PROCESSES.fullmatch(workers) if isinstance(workers, str) else None
    if match is not None:
        return Processes(int(match[1]), _limit("solves", solves), _limit("memory", memory))
    if solves is not None or memory is not None:
        raise TypeError(f'solves= and memory= are for processes, such as Workers("processes:4"), got {workers!r}')
    if workers is None:
        return None
    if isinstance(workers, str):
        if workers.partition(":")[0] in ("", "processes"):
            raise ValueError(refusal_of_workers(workers))
        return Given(executor_named(workers), is_ours=True)
    if isinstance(workers, Executor):
        return Given(lambda: workers)
    if isinstance(workers, bool) or not isinstance(workers, int):
        start = executor_behind(workers)
        if start is None:
            raise TypeError(refusal_of_workers(workers))
        return Given(start, is_ours=True)
    if workers < 1:
        raise ValueError(refusal_of_workers(workers))
    return None if workers == 1 else Threads(workers)


def _limit(name: str, limit: object) -> int | None:
    return None if limit is None else whole_number(name, limit, 1, also=" or None")
