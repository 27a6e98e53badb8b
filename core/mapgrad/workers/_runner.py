"""One instance solver at work: native models that are never shared, rows that fail alone."""

from __future__ import annotations

import atexit
import logging
import operator
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, cast
from weakref import WeakSet

from mapgrad.solutions import Status
from mapgrad.solvers import InstanceSolver, Progress
from mapgrad.workers._locks import call_after_fork, keep_inherited, new_lock
from mapgrad.workers._traces import detach, frames_of

if TYPE_CHECKING:
    from types import CodeType

    from mapgrad.problems import Problem
    from mapgrad.solvers import Block

_NOT_READY: Final = object()

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
        self.can_stop = _has_own(solver, "stop") if stoppable is None else stoppable
        self.pace: float | None = None
        self.loops = not _has_own(solver, "solve_rows")
        self._is_worker = is_worker
        self._at_work: dict[Block, tuple[Any, object]] = {}
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
                self._run_one_by_one(block, start, owner)
                return
            rest.part(rows.start, rows.stop if self.loops else len(rest)).reset(exact=self.solver.traits.exact)
            for row in rows:
                block.fail(start + row, error)
            start += rows.stop
            if start == len(block) or rest.stopped:
                return
            rest = block.part(start, len(block))
            failure = self._attempt(rest, owner)

    def _run_one_by_one(self, block: Block, start: int, owner: object) -> None:
        for row in range(start, len(block)):
            part = block.part(row, row + 1)
            self.run(part, owner)
            if part.causes:
                block.causes[row] = part.causes[0]
            if part.stopped:
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
                self._at_work[block] = state, owner
            if state is _NOT_READY:
                state = self.solver.init()
                with self._lock:
                    self._at_work[block] = state, owner
            if block.stopped:  # while the model was made
                block.status.fill(Status.TIME_LIMIT)
            else:
                if block.progress is not None and not self.loops:
                    block.progress.fill(Progress.BEGUN)
                self.solver.solve_rows(state, block)
        except BaseException as error:
            with self._lock:
                self._at_work.pop(block, None)
            rows = range(len(block))
            if state is not _NOT_READY:
                rows = _rows_of(block)
                self._close(state)  # a model that raised may be half-changed
            if self._goes_through(error):
                raise
            return error, rows
        with self._lock:
            self._at_work.pop(block, None)
            if idle is self._idle:
                idle.append(state)
                return None
        self._close(state)
        return None

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

        Rows that haven't begun stay without an answer.
        """
        with self._lock:  # no state is given back or closed meanwhile
            for block, (state, of) in list(self._at_work.items()):
                if owner is None or of is owner:
                    block.stopped = True
                    if state is not _NOT_READY:
                        try:
                            self.solver.stop(state)
                        except BaseException:
                            _logger.warning("%s.stop raised", type(self.solver).__qualname__, exc_info=True)

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
