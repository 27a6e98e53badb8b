"""What a worker process does: it keeps solvers with their native models, and solves rows in shared memory."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import OrderedDict
from enum import IntEnum
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from mapgrad.solvers import Block, Limits
from mapgrad.workers._messages import receive, send
from mapgrad.workers._runner import Runner
from mapgrad.workers._shared_memory import Shape, SharedMemory
from mapgrad.workers._traces import portable

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from numpy.typing import NDArray

JOBS_KEPT: Final = 16
MEMORIES_KEPT: Final = 4
_NO_LIMITS: Final = (None,) * len(Limits._fields)


class Begin(NamedTuple):
    """The first message: what this process shall have in common with the one that asks."""

    environment: dict[str, str]
    folder: str
    path: list[str]


class Bring(NamedTuple):
    """A job, pickled, its token, and how to import the user's script where it needs that; answered by `Ready`."""

    token: str
    job: bytes
    main: dict[str, Any]


class Ready(NamedTuple):
    """Whether a job's solver is there: None, or why it isn't; and this process's id."""

    error: BaseException | None
    pid: int


class Map(NamedTuple):
    """Memory, whose file comes along, and its number, by which rows name it; no answer."""

    number: int
    size: int


class Rows(NamedTuple):
    """Rows start to stop of a block in shared memory; answered by `Done`.

    Attributes:
        shapes: Those of the block's arrays, in the order of `arrays_of`; None for those that aren't there.
        measures: Whether `Done` tells the process's memory.
    """

    token: str
    memory: int
    shapes: tuple[Shape | None, ...]
    start: int
    stop: int
    seconds: float | None
    reuse: bool
    patience: float | None
    measures: bool


class Done(NamedTuple):
    """What became of rows.

    Attributes:
        causes: What they raised, by their numbers in the portion.
        seconds: How long they took.
        memory: Bytes of this process, 0 where nobody asked.
    """

    causes: dict[int, BaseException]
    seconds: float
    memory: int


class Begun(IntEnum):
    """Whether a row has been begun and ended, as its worker says in shared memory; solvers of whole blocks don't."""

    NO = 0
    YES = 1
    AND_ENDED = 2


def arrays_of(block: Block) -> list[NDArray[Any] | None]:
    """Return the arrays of a block that go through shared memory: its answers, what is asked, and rows' `Begun`."""
    limits = _NO_LIMITS if block.limits is None else tuple(block.limits)
    begun = np.zeros(len(block), np.uint8)
    answers = block.z, block.status, block.objective, block.bound
    return [*answers, block.theta, block.start, block.forbidden, *limits, begun]


def block_of(
    arrays: Sequence[NDArray[Any] | None], *, seconds: float | None, reuse: bool, patience: float | None
) -> tuple[Block, NDArray[Any]]:
    """Return the block of such arrays, and rows' `Begun`."""
    z, status, objective, bound, theta, start, forbidden, *limits, begun = arrays
    for array in (theta, start, forbidden, *limits):
        if array is not None:
            array.flags.writeable = False
    block = Block(
        cast("NDArray[Any]", theta),
        start=start,
        seconds=seconds,
        reuse=reuse,
        forbidden=forbidden,
        limits=None if None in limits else Limits(*cast("list[NDArray[Any]]", limits)),
        patience=patience,
    )
    block.z, block.status, block.objective, block.bound = cast("list[NDArray[Any]]", [z, status, objective, bound])
    return block, cast("NDArray[Any]", begun)


def serve(source: socket.socket) -> None:
    """Answer messages until one is None or nobody can send any more."""
    worker = _Worker(source)
    while True:
        files: list[int] = []
        try:
            message, files = receive(source)
        except (EOFError, OSError):
            message = None
        if message is None:
            worker.close()
            return
        worker.take(message, files)


class _Worker:
    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._runners: OrderedDict[str, Runner] = OrderedDict()
        self._memories: OrderedDict[int, SharedMemory] = OrderedDict()

    def take(self, message: Any, files: list[int]) -> None:
        if isinstance(message, Rows):
            send(self._source, self._solve(message))
        elif isinstance(message, Map):
            self._memories[message.number] = SharedMemory(files[0], message.size)
            if len(self._memories) > MEMORIES_KEPT:
                self._memories.popitem(last=False)[1].close()
        elif isinstance(message, Bring):
            send(self._source, Ready(self._build(message), os.getpid()))
        elif isinstance(message, Begin):
            os.environ.clear()
            os.environ.update(message.environment)
            os.chdir(message.folder)
            sys.path[:] = message.path
        else:
            self._forget(message)

    def _build(self, message: Bring) -> BaseException | None:
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

    def _solve(self, rows: Rows) -> Done:
        runner = self._runners[rows.token]
        self._runners.move_to_end(rows.token)
        self._memories.move_to_end(rows.memory)
        there = [shape for shape in rows.shapes if shape is not None]
        arrays = iter(self._memories[rows.memory].arrays(there))
        parts = [None if shape is None else next(arrays)[rows.start : rows.stop] for shape in rows.shapes]
        block, begun = block_of(parts, seconds=rows.seconds, reuse=rows.reuse, patience=rows.patience)
        began = time.perf_counter()
        if runner.loops:
            for row in range(len(block)):
                begun[row] = Begun.YES
                part = block.part(row, row + 1)
                runner.run(part)
                if part.causes:
                    block.causes[row] = part.causes[0]
                begun[row] = Begun.AND_ENDED
        else:
            runner.run(block)
        seconds = time.perf_counter() - began
        causes = {row: portable(error) for row, error in block.causes.items()}
        return Done(causes, seconds, _memory() if rows.measures else 0)

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
