"""One instance solver at work: native models that are never shared, rows that fail alone."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mapgrad.batching._answers import Answers
from mapgrad.errors import InfeasibleError, SolveTimeoutError, UnboundedError
from mapgrad.solvers import InstanceSolver, Solution, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapgrad.problems import Problem
    from mapgrad.solvers import BatchSolver, Recipe

_RUNNERS_KEPT: Final = 16


class Runner:
    """An instance solver and its idle native models.

    A chunk of rows borrows a model, so there are never more models than chunks at work, and none is used by two
    threads at a time.
    """

    def __init__(self, solver: InstanceSolver, *, time_limit: float | None = None, reuse: bool = False) -> None:
        self.solver = solver
        self._time_limit, self._reuse = time_limit, reuse
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def solve(self, rows: NDArray[np.float64], starts: NDArray[np.float64] | None = None) -> Answers:
        """Solve rows [N, *shape] one by one, from states where given; a row that raises leaves the others alone."""
        answers = Answers.unsolved(rows.shape)
        # a user's object may serve several runners in turn
        self.solver.time_limit, self.solver.reuse = self._time_limit, self._reuse
        plain = Status.OPTIMAL if self.solver.traits.exact else Status.FEASIBLE
        state, ready = self._borrow()
        for number, row in enumerate(rows):
            try:
                if not ready:
                    state, ready = self.solver.init(), True
                start = () if starts is None else (starts[number].copy(),)
                answer = self.solver.solve(state, row.copy(), *start)
                answers.put(number, answer if isinstance(answer, Solution) else Solution(answer, plain))
            except Exception as error:  # noqa: BLE001 (whatever a solver raises is this row's failure alone)
                answers.errors[number] = error
                answers.status[number] = _status_of(error)
                if ready:
                    self.solver.close(state)  # a model that raised may be half-changed
                    ready = False
        if ready:
            self._give_back(state)
        return answers

    def _borrow(self) -> tuple[Any, bool]:
        with self._lock:
            return (self._idle.pop(), True) if self._idle else (None, False)

    def _give_back(self, state: Any) -> None:
        with self._lock:
            self._idle.append(state)

    def close(self) -> None:
        """Free the idle native models."""
        while True:
            state, found = self._borrow()
            if not found:
                return
            self.solver.close(state)


@dataclass(frozen=True)
class Job:
    """All that a foreign worker needs to build its own runner; picklable where its parts are."""

    token: str
    recipe: Recipe
    problem: Problem
    options: dict[str, Any]
    time_limit: float | None
    reuse: bool

    def build(self) -> InstanceSolver | BatchSolver:
        """Make the solver."""
        return self.recipe.build(self.problem, self.options)

    def runner(self, solver: InstanceSolver) -> Runner:
        """Make the solver's runner."""
        return Runner(solver, time_limit=self.time_limit, reuse=self.reuse)


_runners: OrderedDict[str, Runner] = OrderedDict()
_runners_lock = threading.Lock()


def run_job(job: Job, rows: NDArray[np.float64], starts: NDArray[np.float64] | None = None) -> Answers:
    """Solve rows in whatever process an executor runs this; runners are kept for the next chunk."""
    with _runners_lock:
        runner = _runners.get(job.token)
        if runner is None:
            solver = job.build()
            assert isinstance(solver, InstanceSolver)
            runner = _runners[job.token] = job.runner(solver)
        _runners.move_to_end(job.token)
        retired = [_runners.popitem(last=False)[1] for _ in range(len(_runners) - _RUNNERS_KEPT)]
    for old in retired:
        old.close()
    answers = runner.solve(rows, starts)
    answers.errors = {row: _portable(error) for row, error in answers.errors.items()}
    return answers


def _portable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (pickling runs the error class's own code)
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _status_of(error: Exception) -> Status:
    for kind, status in (
        (InfeasibleError, Status.INFEASIBLE),
        (UnboundedError, Status.UNBOUNDED),
        (SolveTimeoutError, Status.TIME_LIMIT),
    ):
        if isinstance(error, kind):
            return status
    return Status.ERROR
