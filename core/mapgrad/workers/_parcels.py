"""What goes to a worker elsewhere and back: a job once, rows by its digest, answers that pickle takes."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mapgrad.solvers import Block
from mapgrad.workers._locks import new_lock
from mapgrad.workers._portions import Answers, fail_rows
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._threads import PAUSE, STOPS, InPlace, solve_here
from mapgrad.workers._traces import portable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.solvers import Limits
    from mapgrad.workers._batch import Batch

Share: TypeAlias = "Callable[[bytes], Callable[[], bytes]]"
"""Takes bytes and returns a function, picklable and small, that returns them in each worker."""

UNKNOWN: Final = "unknown job"
"""The answer of a worker that must be sent the job, too."""

HERE: Final = "solved here"
"""The answer of a call in this very process, which has put its rows' answers where they belong."""

_RUNNERS_KEPT: Final = 16


class Parcel:
    """A job on its way to workers, pickled when the first of them needs it; only the bytes are kept.

    Args:
        workers: How many portions bring it unasked.
        share: The executor's way to bring it; None where portions do.

    Attributes:
        key: The job's digest, by which workers know it; empty until it is pickled.
        error: Why it can't be; None if it can, or nobody has tried.
    """

    def __init__(self, workers: int, share: Share | None) -> None:
        self.key = ""
        self.error: Exception | None = None
        self._sent = 0
        self._workers = workers
        self._share = share
        self._data: bytes | Callable[[], bytes] | None = None

    def prepare(self, job: Job) -> None:
        """Pickle the job, which isn't kept, and share it.

        Raises:
            PicklingError: It can't be pickled.
        """
        if self._data is not None:
            return
        try:
            data = _by_value(replace(job, token=""))  # the same for solvers that are alike
            self.key = hashlib.sha256(data).hexdigest()
            self._data = data if self._share is None else self._share(data)
        except Exception as error:
            self.error = error
            raise

    def data(self, job: Job, *, is_asked_for: bool) -> bytes | Callable[[], bytes] | None:
        """Return the job for one portion, None where the worker is likely to have it.

        Raises:
            PicklingError: The job can't be pickled.
        """
        self.prepare(job)
        self._sent += 1
        is_brought = is_asked_for or self._share is not None or self._sent <= self._workers
        return self._data if is_brought else None


def pickled(job: Job) -> bytes:
    """Return a job as it goes to a worker process.

    Raises:
        PicklingError: It can't be pickled.
    """
    try:
        return pickle.dumps(job)
    except Exception as error:
        raise pickle.PicklingError(
            "the solver, its problem or its options can't be sent to a worker process, since pickle refuses them "
            f"({type(error).__name__}: {error}): take threads, or classes and functions that a module names"
        ) from error


def _by_value(job: Job) -> bytes:
    """Return a job for workers that don't import the user's script: with what it defines, if cloudpickle is there.

    Raises:
        PicklingError: It can't be pickled.
    """
    refused: pickle.PicklingError | None = None
    data = b""
    try:
        data = pickled(job)
    except pickle.PicklingError as error:
        refused = error
    if refused is not None or b"__main__" in data:
        with suppress(Exception):  # it isn't installed, or refuses the job, too
            cloudpickle: Any = import_module("cloudpickle")
            return cloudpickle.dumps(job)
    if refused is not None:
        raise refused
    return data


class _Asked(NamedTuple):
    """What is asked of a worker beside θ: see `Block`."""

    start: NDArray[Any] | None
    seconds: float | None
    reuse: bool
    forbidden: NDArray[Any] | None
    limits: Limits | None
    patience: float | None


class Rows:
    """A call that solves rows of a batch; pickled, it becomes one that brings the answers back.

    Called as it is, in this very process, it uses the runner here; under a deadline in a thread that is left behind if
    it hangs, so that the executor has its own back.
    """

    def __init__(self, batch: Batch, parcel: Parcel, start: int, stop: int, *, with_job: bool) -> None:
        self._parcel = parcel
        self._with_job = with_job
        self._here = partial(InPlace().solve, batch, start, stop)
        self._batch = batch
        self._part = batch.block.part(start, stop)

    def __call__(self) -> str:
        if self._batch.deadline is None:
            self._here()
            return HERE
        ended: Future[None] = Future()
        threading.Thread(target=_settle, args=(ended, self._here), name="mapgrad_executor", daemon=True).start()
        if not wait([ended], self._batch.left()).done:
            self._stop(ended)
        else:
            ended.result()
        return HERE

    def _stop(self, ended: Future[None]) -> None:
        """Stop the rows, as often as `Threads` does: their caller may believe that nobody is at work any more."""
        for _ in range(STOPS):
            self._batch.runner.stop(self._batch)
            if not self._batch.runner.can_stop or wait([ended], PAUSE).done:
                return

    def __reduce__(self) -> tuple[Any, ...]:
        part, job = self._part, self._parcel.data(self._batch.job, is_asked_for=self._with_job)
        asked = _Asked(part.start, self._batch.seconds(), part.reuse, part.forbidden, part.limits, part.patience)
        return partial, (_solve, self._parcel.key, job, part.theta, asked, self._batch.left())


def _settle(ended: Future[None], call: Callable[[], None]) -> None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 (raised by who waits)
        ended.set_exception(error)
    else:
        ended.set_result(None)


_runners: Final[OrderedDict[str, Runner]] = OrderedDict()
_lock: Final = new_lock()


def _solve(
    key: str, job: bytes | Callable[[], bytes] | None, theta: NDArray[Any], asked: _Asked, left: float | None
) -> Answers | str:
    """Solve rows in a worker, which is free again once the deadline has passed; jobs of late are kept."""
    began = time.perf_counter()
    try:
        runner = _runner(key, job)
    except BaseException as error:  # noqa: BLE001 (a solver's own code; its caller learns of it)
        block = Block(theta)
        fail_rows(block, 0, len(block), error)
    else:
        if runner is None:
            return UNKNOWN
        for array in (theta, asked.start, asked.forbidden, *(asked.limits or ())):
            if array is not None:
                array.flags.writeable = False
        block = Block(theta, exact=runner.solver.traits.exact, **asked._asdict())
        began = time.perf_counter()
        if left is None:
            runner.run(block)
        else:
            solve_here(runner, Job(key, None, None, {}), block, left)
    causes = {row: portable(error) for row, error in block.causes.items()}
    return Answers(block.z, block.status, block.objective, block.bound, causes, time.perf_counter() - began)


def _runner(key: str, job: bytes | Callable[[], bytes] | None) -> Runner | None:
    with _lock:
        runner = _runners.get(key)
        if runner is None:
            if job is None:
                return None
            data = job if isinstance(job, bytes) else job()
            runner = _runners[key] = Runner(pickle.loads(data).build(), is_worker=True)
        _runners.move_to_end(key)
        retired = [_runners.popitem(last=False)[1] for _ in range(len(_runners) - _RUNNERS_KEPT)]
    for old in retired:
        old.close()
    return runner


def forget(keys: tuple[str, ...]) -> None:
    """Free the native models of jobs in this worker, and leave its neighbours the time to take a call of their own."""
    for key in keys:
        with _lock:
            runner = _runners.pop(key, None)
        if runner is not None:
            runner.close()
    threading.Event().wait(0.01)


def is_there() -> None:
    """Do nothing, in a worker: it has started, and has this package."""


def script() -> dict[str, Any]:
    """Return how to import the user's script; nothing where it is no file, as at a prompt, or its folder is gone."""
    main = {}
    with suppress(FileNotFoundError):
        prepared = spawn.get_preparation_data("mapgrad")
        main = {name: value for name, value in prepared.items() if name.startswith("init_main")}
    return main if Path(main.get("init_main_from_path", __file__)).is_file() else {}


def with_what_it_needs(job: Job) -> bytes:
    """Return a job, pickled with the classes and functions that have no script to be imported from.

    Raises:
        PicklingError: It can't be.
    """
    data = _by_value(job)
    if b"__main__" in data and find_spec("cloudpickle") is None:
        raise pickle.PicklingError(
            "the solver, its problem or its options are of a notebook or a prompt, from which worker processes can't "
            "import them: install cloudpickle, put them into a module, or take threads"
        )
    return data
