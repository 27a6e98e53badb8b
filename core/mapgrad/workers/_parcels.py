"""What goes to a worker elsewhere and back: a job once, rows by its token, answers that pickle takes."""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mapgrad.solvers import Block
from mapgrad.workers._locks import new_lock
from mapgrad.workers._portions import fail_rows, solve_portion
from mapgrad.workers._runner import Runner
from mapgrad.workers._traces import portable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.solvers import Limits
    from mapgrad.workers._runner import Job

UNKNOWN: Final = "unknown job"
"""The answer of a worker that must be sent the job, too."""

_RUNNERS_KEPT: Final = 16


class Parcel:
    """A job on its way to workers, pickled when the first of them needs it; only the bytes are kept.

    Args:
        workers: How many portions bring it unasked.
    """

    def __init__(self, workers: int) -> None:
        self.sent = 0
        self._workers = workers
        self._data: bytes | None = None

    def data(self, job: Job, *, is_asked_for: bool) -> bytes | None:
        """Return the job for one portion, None where the worker is likely to have it.

        Raises:
            PicklingError: The job can't be pickled.
        """
        if self._data is None:
            self._data = pickled(job)
        self.sent += 1
        return self._data if is_asked_for or self.sent <= self._workers else None


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


class Answers(NamedTuple):
    """What a worker found, as in `Block`, and the seconds that it took."""

    z: NDArray[Any]
    status: NDArray[Any]
    objective: NDArray[Any]
    bound: NDArray[Any]
    causes: dict[int, BaseException]
    seconds: float

    def put(self, block: Block, start: int, stop: int) -> None:
        """Write them to rows of a block."""
        part = block.part(start, stop)
        part.z[:], part.status[:], part.objective[:], part.bound[:] = self[:4]
        for row, error in self.causes.items():
            block.causes[start + row] = error


class Rows:
    """A call that solves rows of a block; pickled, it becomes one that brings the answers back.

    Called as it is, in this very process, it uses the runner here.
    """

    def __init__(
        self,
        job: Job,
        parcel: Parcel,
        runner: Runner,
        block: Block,
        start: int,
        stop: int,
        *,
        owner: object,
        with_job: bool,
    ) -> None:
        self._job = job
        self._parcel = parcel
        self._with_job = with_job
        self._here = partial(solve_portion, runner, block, start, stop, owner)
        self._part = block.part(start, stop)

    def __call__(self) -> None:
        self._here()

    def __reduce__(self) -> tuple[Any, ...]:
        part, job = self._part, self._parcel.data(self._job, is_asked_for=self._with_job)
        asked = part.theta, part.start, part.seconds, part.reuse, part.forbidden, part.limits, part.patience
        return partial, (_solve, self._job.token, job, *asked)


_runners: Final[OrderedDict[str, Runner]] = OrderedDict()
_lock: Final = new_lock()


def _solve(
    token: str,
    job: bytes | None,
    theta: NDArray[Any],
    start: NDArray[Any] | None,
    seconds: float | None,
    reuse: bool,
    forbidden: NDArray[Any] | None,
    limits: Limits | None,
    patience: float | None,
) -> Answers | str:
    """Solve rows in a worker; jobs of late are kept with their native models."""
    began = time.perf_counter()
    try:
        runner = _runner(token, job)
    except BaseException as error:  # noqa: BLE001 (a solver's own code; its caller learns of it)
        block = Block(theta)
        fail_rows(block, 0, len(block), error)
    else:
        if runner is None:
            return UNKNOWN
        theta.flags.writeable = False
        for array in (start, forbidden, *(limits or ())):
            if array is not None:
                array.flags.writeable = False
        block = Block(
            theta,
            start=start,
            seconds=seconds,
            reuse=reuse,
            forbidden=forbidden,
            limits=limits,
            patience=patience,
            exact=runner.solver.traits.exact,
        )
        runner.run(block)
    causes = {row: portable(error) for row, error in block.causes.items()}
    return Answers(block.z, block.status, block.objective, block.bound, causes, time.perf_counter() - began)


def _runner(token: str, job: bytes | None) -> Runner | None:
    with _lock:
        runner = _runners.get(token)
        if runner is None:
            if job is None:
                return None
            runner = _runners[token] = Runner(pickle.loads(job).build(), is_worker=True)
        _runners.move_to_end(token)
        retired = [_runners.popitem(last=False)[1] for _ in range(len(_runners) - _RUNNERS_KEPT)]
    for old in retired:
        old.close()
    return runner


def forget(tokens: tuple[str, ...]) -> None:
    """Free the native models of jobs in this worker, and leave its neighbours the time to take a call of their own."""
    for token in tokens:
        with _lock:
            runner = _runners.pop(token, None)
        if runner is not None:
            runner.close()
    threading.Event().wait(0.01)
