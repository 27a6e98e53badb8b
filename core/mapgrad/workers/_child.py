"""What a worker process does: it keeps solvers with their native models, and solves rows in shared memory."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from mapgrad.solvers import Block, Limits
from mapgrad.workers._locks import call_after_fork
from mapgrad.workers._messages import receive, send
from mapgrad.workers._runner import Runner
from mapgrad.workers._shared_memory import Shape, SharedMemory
from mapgrad.workers._traces import Portable, portable

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

JOBS_KEPT: Final = 16
MEMORIES_KEPT: Final = 4
MEMORY_KEPT: Final = 1 << 26
"""Bytes; larger memory is given up after its batch."""

_NO_LIMITS: Final = (None,) * len(Limits._fields)


class Begin(NamedTuple):
    """The first message: what this process shall have in common with the one that asks; answered by its id."""

    environment: dict[str, str]
    folder: str | None
    path: list[str]
    arguments: list[str]


class Bring(NamedTuple):
    """A job, pickled, its token, and how to import the user's script where it needs that; answered by `Ready`."""

    token: str
    job: bytes
    main: dict[str, Any]


class Ready(NamedTuple):
    """Whether a job's solver is there: None, or why it isn't."""

    error: Portable | None


class Map(NamedTuple):
    """Memory, whose file comes along, and its number, by which rows name it; no answer."""

    number: int
    size: int


class Stage(NamedTuple):
    """A block, of which the rows that follow are; no answer.

    Attributes:
        token: The job's.
        memory: Number of the memory where the block's arrays are.
        shapes: Theirs, in the order of `arrays_of`; None for those that aren't there.
        reuse: As in `Request`.
        patience: Likewise.
        measures: Whether `Done` tells the process's memory.
    """

    token: str
    memory: int
    shapes: tuple[Shape | None, ...]
    reuse: bool
    patience: float | None
    measures: bool


class Rows(NamedTuple):
    """Rows of the block on stage, and how many seconds each may take; answered by `Done`."""

    start: int
    stop: int
    seconds: float | None


class Done(NamedTuple):
    """What became of rows.

    Attributes:
        causes: What they raised, by their numbers in the portion.
        seconds: How long they took.
        memory: Bytes of this process; 0 where nobody asked.
    """

    causes: dict[int, Portable]
    seconds: float
    memory: int


def arrays_of(block: Block) -> list[NDArray[Any] | None]:
    """Return the arrays of a block that go through shared memory: its answers, what is asked, and its progress."""
    limits = _NO_LIMITS if block.limits is None else tuple(block.limits)
    answers = block.z, block.status, block.objective, block.bound
    return [*answers, block.theta, block.start, block.forbidden, *limits, np.zeros(len(block), np.uint8)]


def block_of(arrays: Sequence[NDArray[Any] | None], *, reuse: bool, patience: float | None) -> Block:
    """Return the block of such arrays."""
    z, status, objective, bound, theta, start, forbidden, *limits, progress = arrays
    for array in (theta, start, forbidden, *limits):
        if array is not None:
            array.flags.writeable = False
    block = Block(
        cast("NDArray[Any]", theta),
        start=start,
        reuse=reuse,
        forbidden=forbidden,
        limits=None if limits[0] is None else Limits(*cast("list[NDArray[Any]]", limits)),
        patience=patience,
    )
    block.z, block.status, block.objective, block.bound = cast("list[NDArray[Any]]", [z, status, objective, bound])
    block.progress = progress
    return block


def given_up(sizes: Mapping[int, int]) -> list[int]:
    """Return which memories a worker lets go of: large ones, and the first of many, but never the last.

    Args:
        sizes: Their bytes, in the order in which they were last used.
    """
    *others, _ = sizes
    many = len(sizes) - MEMORIES_KEPT
    return [number for place, number in enumerate(others) if sizes[number] > MEMORY_KEPT or place < many]


def serve(source: socket.socket) -> None:
    """Answer messages until one is None or nobody can send any more."""
    worker = _Worker(source)
    while True:
        files: list[int] = []
        try:
            message, files = receive(source)
        except (EOFError, OSError):
            message = None
        if message is None or (isinstance(message, Map) and not files):  # too many files are open for one more
            worker.close()
            return
        worker.take(message, files)


class _Worker:
    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._runners: OrderedDict[str, Runner] = OrderedDict()
        self._memories: OrderedDict[int, SharedMemory] = OrderedDict()
        self._runner: Runner | None = None
        self._block: Block | None = None
        self._measures = False
        call_after_fork(self)

    def after_fork(self) -> None:
        """Leave the way back to the parent: who waits at its other end hears by it that this process has ended."""
        with suppress(OSError):  # a solver may have closed it
            self._source.close()

    def take(self, message: Any, files: list[int]) -> None:
        if isinstance(message, Rows):
            self._answer(self._solve(message))
        elif isinstance(message, Stage):
            self._stage(message)
        elif isinstance(message, Map):
            self._memories[message.number] = SharedMemory(files[0], message.size)
        elif isinstance(message, Bring):
            self._answer(Ready(self._build(message)))
        elif isinstance(message, Begin):
            os.environ.clear()
            os.environ.update(message.environment)
            if message.folder is not None:
                os.chdir(message.folder)
            sys.path[:] = message.path
            sys.argv[:] = message.arguments
            self._answer(os.getpid())
        else:
            self._forget(message)

    def _answer(self, answer: Done | Ready | int) -> None:
        with suppress(OSError):  # who asked is gone, or a solver closed the way there: as the next message will say
            send(self._source, answer)

    def _build(self, message: Bring) -> Portable | None:
        try:
            if message.main:
                _import_main(message.main)
            runner = Runner(pickle.loads(message.job).build(), is_worker=True)
        except BaseException as error:  # noqa: BLE001 (a solver's own code; who asks learns of it)
            return portable(error)
        self._runners[message.token] = runner
        if len(self._runners) > JOBS_KEPT:
            self._runners.popitem(last=False)[1].close()
        return None

    def _forget(self, tokens: tuple[str, ...]) -> None:
        for token in tokens:
            runner = self._runners.pop(token, None)
            if runner is not None:
                runner.close()

    def _stage(self, stage: Stage) -> None:
        self._runners.move_to_end(stage.token)
        self._memories.move_to_end(stage.memory)
        for number in given_up({number: memory.size for number, memory in self._memories.items()}):
            self._memories.pop(number).close()
        arrays = iter(self._memories[stage.memory].arrays([shape for shape in stage.shapes if shape is not None]))
        whole = [None if shape is None else next(arrays) for shape in stage.shapes]
        self._runner, self._measures = self._runners[stage.token], stage.measures
        self._block = block_of(whole, reuse=stage.reuse, patience=stage.patience)

    def _solve(self, rows: Rows) -> Done:
        assert self._runner is not None
        assert self._block is not None
        part = self._block.part(rows.start, rows.stop)
        part.seconds = rows.seconds
        if part.limits is not None:  # solvers remember the last ones, whose memory the next batch is written to
            part.limits = part.limits.of_rows(range(len(part)))
        began = time.perf_counter()
        self._runner.run(part)
        seconds = time.perf_counter() - began
        causes = {row: portable(error) for row, error in part.causes.items()}
        return Done(causes, seconds, _memory() if self._measures else 0)

    def close(self) -> None:
        """Free the native models."""
        for runner in self._runners.values():
            runner.close()


def _memory() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def _import_main(main: dict[str, Any]) -> None:
    """Import the user's script as `multiprocessing` does, under another name, so that its main part doesn't run."""
    if _importing.has_ended:
        return
    _importing.is_going_on = True
    try:
        spawn.prepare(main)
        _importing.has_ended = True
    finally:
        _importing.is_going_on = False


class _Importing:
    """What this process knows of the user's script."""

    is_going_on = has_ended = False


_importing: Final = _Importing()


def is_importing() -> bool:
    """Tell whether this is a worker process that is importing the user's script."""
    return _importing.is_going_on
