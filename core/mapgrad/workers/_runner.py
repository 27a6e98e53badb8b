"""One instance solver at work: native models that are never shared, rows that fail alone."""

from __future__ import annotations

import atexit
import logging
import operator
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, cast
from weakref import WeakSet

import numpy as np

from mapgrad.solutions import Status
from mapgrad.solvers import InstanceSolver, Progress
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_lock
from mapgrad.workers._traces import detach, frames_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

    from mapgrad.problems import Problem
    from mapgrad.solvers import Block

_NOT_READY: Final = object()

_PATIENCE: Final = 0.02
"""Seconds to wait for a solver's stop, which is to return at once."""

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class Job:
    """All that a worker elsewhere needs to make its own solver; picklable where its parts are.

    Attributes:
        token: Names the job among all of all processes.
        factory: Makes the solver.
        problem: The feasible set; None for a function that does without.
        options: The solver's options.
    """

    token: str
    factory: Any
    problem: Problem | None
    options: dict[str, Any]

    def build(self) -> InstanceSolver[Any, Any]:
        """Make the solver."""
        return self.factory.build(self.problem, self.options)


class _Run:
    """A block at work: its model once there is one, whom it belongs to, and a lock that is held while it is stopped."""

    __slots__ = ("owner", "state", "stopping")

    def __init__(self, state: Any, owner: object) -> None:
        self.state = state
        self.owner = owner
        self.stopping = threading.Lock()


class Runner:
    """An instance solver and its idle native models.

    A block of rows borrows a model, so there are never more models than blocks at work, and none is used by two threads
    at a time. Whatever a solver raises costs one row, and the model that it was solved on. Only two things go through,
    both in the main thread: a KeyboardInterrupt, and what a signal's handler raises.

    Args:
        solver: The solver.
        is_worker: Whether this process works for another one, so that nothing goes through.

    Attributes:
        can_stop: Whether the solver can be stopped.
        loops: Whether it solves the rows of a block one by one.
        pace: Seconds that a row took when somebody last took the time; None before.
    """

    def __init__(self, solver: InstanceSolver[Any, Any], *, is_worker: bool = False) -> None:
        self._idle: list[Any] = []
        self._lock = new_lock()
        self.solver = solver
        stoppable = solver.traits.stoppable
        self._has_own_stop = _has_own(solver, "stop")
        self.can_stop = self._has_own_stop if stoppable is None else stoppable
        self.pace: float | None = None
        self.loops = not _has_own(solver, "solve_rows")
        self._is_worker = is_worker
        self._at_work: dict[Block, _Run] = {}
        call_after_fork(self)
        _all.add(self)

    # A finalizer would keep the solver, and with it a model among its options, that holds the layer that holds this.
    def __del__(self) -> None:
        self.close()

    def run(self, block: Block, owner: object = None) -> None:
        """Solve the rows of a block, but for those that are left when it is stopped.

        Args:
            block: Rows, and where their answers go.
            owner: What it belongs to, by which it can be stopped.
        """
        rest, start = block, 0
        failure = self._attempt(block, owner)
        while failure is not None:
            error, rows = failure
            detach(error)
            if rows is None:
                rest.reset(exact=self.solver.traits.exact)
                if rest.stopped:
                    _give_up(rest)
                else:
                    self._run_one_by_one(block, start, owner)
                return
            rest.part(rows.start, rows.stop if self.loops else len(rest)).reset(exact=self.solver.traits.exact)
            for row in rows:
                block.fail(start + row, error)
            start += rows.stop
            is_stopped, rest = rest.stopped, block.part(start, len(block))
            if is_stopped or len(rest) == 0:
                _give_up(rest)
                return
            failure = self._attempt(rest, owner)

    def _run_one_by_one(self, block: Block, start: int, owner: object) -> None:
        for row in range(start, len(block)):
            part = block.part(row, row + 1)
            self.run(part, owner)
            if part.causes:
                block.causes[row] = part.causes[0]
            if part.stopped:
                _give_up(block.part(row + 1, len(block)))
                return

    def _attempt(self, block: Block, owner: object) -> tuple[BaseException, range | None] | None:
        """Solve rows until one raises; return the error and the rows that it is about, None where that isn't known."""
        block.row = None
        state: Any = _NOT_READY
        try:
            with self._lock:
                idle = self._idle
                if idle:
                    state = idle.pop()
                run = self._at_work[block] = _Run(state, owner)
            if state is _NOT_READY:
                state = run.state = self.solver.init()
            if not block.stopped:  # while the model was made
                if block.progress is not None and not self.loops:
                    block.progress.fill(Progress.BEGUN)
                self.solver.solve_rows(state, block)
            if block.stopped:
                _give_up(block)
        except BaseException as error:
            self._end_run(block)
            rows = range(len(block))
            if state is not _NOT_READY:
                rows = _rows_of(block)
                self._close(state)  # a model that raised may be half-changed
            if self._goes_through(error):
                raise
            return error, rows
        self._end_run(block)
        with self._lock:
            if idle is self._idle:
                idle.append(state)
                return None
        self._close(state)
        return None

    def _end_run(self, block: Block) -> None:
        """Wait until nobody stops a run any more, so that no state is given back or closed meanwhile."""
        with self._lock:
            run = self._at_work.pop(block, None)
        if run is not None:
            run.stopping.acquire()

    def _goes_through(self, error: BaseException) -> bool:
        if self._is_worker or threading.current_thread() is not threading.main_thread():
            return False
        return isinstance(error, KeyboardInterrupt) or _is_raised_by_a_signal_handler(error)

    def restore(self, block: Block) -> None:
        """Make a block that was stopped as it was at first."""
        block.reset(exact=self.solver.traits.exact)
        block.causes.clear()
        block.stopped = False

    def stop(self, owner: object = None) -> None:
        """Stop what is at work, or that part of it that belongs to an owner; called from another thread.

        Rows that haven't begun end with TIME_LIMIT, as those do that the solver leaves without an answer.
        """
        stops: list[Callable[[], None]] = []
        with self._lock:
            for block, run in self._at_work.items():
                if owner is None or run.owner is owner:
                    block.stopped = True
                    if self._has_own_stop and run.state is not _NOT_READY and not run.stopping.locked():
                        stops.append(partial(self._stop, block, run))
        _run_apart(stops, _PATIENCE)

    def _stop(self, block: Block, run: _Run) -> None:
        with self._lock:
            if self._at_work.get(block) is not run or not run.stopping.acquire(blocking=False):
                return
        try:
            self.solver.stop(run.state)
        except BaseException:
            _logger.warning("%s.stop raised", type(self.solver).__qualname__, exc_info=True)
        finally:
            run.stopping.release()

    def close(self) -> None:
        """Free the idle native models; those at work are freed once they are given back."""
        with self._lock:
            idle, self._idle = self._idle, []
        for state in idle:
            self._close(state)

    def _close(self, state: Any) -> None:
        try:
            self.solver.close(state)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self._goes_through(error):
                raise
            _logger.warning("%s.close raised", type(self.solver).__qualname__, exc_info=True)

    def after_fork(self) -> None:
        """Leave the parent's native models alone: their threads and files aren't ours."""
        keep_inherited((self._idle, self._at_work))
        self._idle, self._at_work = [], {}


_all: Final[WeakSet[Runner]] = WeakSet()


def stop_all() -> None:
    """Stop whatever is at work in this process."""
    for runner in list(_all):
        runner.stop()


@atexit.register
def _end() -> None:
    for runner in list(_all):
        runner.close()


def _has_own(solver: InstanceSolver[Any, Any], name: str) -> bool:
    return getattr(type(solver), name) is not getattr(InstanceSolver, name)


def _run_apart(calls: Sequence[Callable[[], None]], patience: float) -> None:
    """Make calls in threads of their own, and wait for them for some seconds: any may hang."""
    threads = [threading.Thread(target=call, name="mapgrad_stop", daemon=True) for call in calls]
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # the system, or a program that ends, allows no more
            thread.run()
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))


def _give_up(block: Block) -> None:
    """Note that the rows of a block that was stopped ran out of time, but for those that have an answer or a cause."""
    has_no_cause = (block.status == Status.OPTIMAL) | (block.status == Status.FEASIBLE)
    left = has_no_cause & np.isnan(block.z).any(axis=1)
    block.z[left] = np.nan
    block.status[left] = Status.TIME_LIMIT


def _rows_of(block: Block) -> range | None:
    """Return which rows an error is about, as far as its block says."""
    if len(block) == 1:
        return range(1)
    try:
        row = operator.index(cast("SupportsIndex", block.row))
    except TypeError:
        return None
    return range(row, row + 1) if 0 <= row < len(block) else None


def _is_raised_by_a_signal_handler(error: BaseException) -> bool:
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in handlers for frame, _ in frames_of(error))


def _code_of(handler: Any) -> CodeType | None:
    return getattr(handler, "__code__", None)
