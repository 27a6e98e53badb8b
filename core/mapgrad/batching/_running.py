"""One instance solver at work: native models that are never shared, rows that fail alone."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import InfeasibleError, SolveTimeoutError, UnboundedError
from mapgrad.solvers import InstanceSolver, Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import Problem
    from mapgrad.solvers import Recipe

_RUNNERS_KEPT: Final = 16


@dataclass
class Answers:
    """Answers to rows [N, *shape]; NaN where there is none.

    Attributes:
        z: [N, *shape] float64.
        status: [N] int64.
        objective: [N] float64, NaN where the solver didn't say.
        bound: [N] float64, NaN where the solver didn't say.
        errors: What a row raised, by its number.
    """

    z: NDArray[np.float64]
    status: NDArray[np.int64]
    objective: NDArray[np.float64]
    bound: NDArray[np.float64]
    errors: dict[int, BaseException] = field(default_factory=dict[int, BaseException])

    @staticmethod
    def unsolved(shape: tuple[int, ...]) -> Answers:
        """Return answers to rows of [N, *shape] that nobody has solved yet."""
        return Answers(
            z=np.full(shape, np.nan),
            status=np.full(shape[0], int(Status.ERROR), dtype=np.int64),
            objective=np.full(shape[0], np.nan),
            bound=np.full(shape[0], np.nan),
        )

    def place(self, rows: NDArray[np.int64], part: Answers) -> None:
        """Write the answers to some rows, given by their numbers."""
        self.z[rows], self.status[rows] = part.z, part.status
        self.objective[rows], self.bound[rows] = part.objective, part.bound
        self.errors.update({int(rows[row]): error for row, error in part.errors.items()})

    def take(self, rows: list[int]) -> Answers:
        """Return the answers at these places, repeated where a place is."""
        errors = {row: self.errors[place] for row, place in enumerate(rows) if place in self.errors}
        return Answers(self.z[rows], self.status[rows], self.objective[rows], self.bound[rows], errors)


class Runner:
    """An instance solver and its idle native models.

    A chunk of rows borrows a model, so there are never more models than chunks at work, and none is used by two
    threads at a time.
    """

    def __init__(self, solver: InstanceSolver) -> None:
        self.solver = solver
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def solve(self, rows: NDArray[np.float64]) -> Answers:
        """Solve rows [N, *shape] one by one; a row that raises leaves the others alone."""
        answers = Answers.unsolved(rows.shape)
        state, ready = self._borrow()
        for number, row in enumerate(rows):
            try:
                if not ready:
                    state, ready = self.solver.init(), True
                self._solve_row(state, row, number, answers)
            except Exception as error:  # noqa: BLE001 (whatever a solver raises is this row's failure alone)
                answers.errors[number] = error
                answers.status[number] = _status_of(error)
                if ready:
                    self.solver.close(state)  # a model that raised may be half-changed
                    ready = False
        if ready:
            self._give_back(state)
        return answers

    def _solve_row(self, state: Any, row: NDArray[np.float64], number: int, answers: Answers) -> None:
        answer = self.solver.solve(state, row.copy())
        if not isinstance(answer, Solution):
            answer = Solution(answer, Status.OPTIMAL if self.solver.traits.exact else Status.FEASIBLE)
        if answer.z is not None:
            z = np.asarray(answer.z, dtype=np.float64)
            if z.shape != row.shape:
                raise ValueError(f"the solver answered with shape {z.shape} where {row.shape} was expected")
            if not np.isfinite(z).all():
                raise ValueError("the solver answered with NaN or infinite entries")
            answers.z[number] = z
        elif answer.status in (Status.OPTIMAL, Status.FEASIBLE):
            raise ValueError(f"the solver reports {answer.status.name} without a state")
        answers.status[number] = answer.status
        answers.objective[number] = np.nan if answer.objective is None else answer.objective
        answers.bound[number] = np.nan if answer.bound is None else answer.bound

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


_runners: OrderedDict[str, Runner] = OrderedDict()
_runners_lock = threading.Lock()


def run_job(job: Job, rows: NDArray[np.float64]) -> Answers:
    """Solve rows in whatever process an executor runs this; runners are kept for the next chunk."""
    with _runners_lock:
        runner = _runners.get(job.token)
        if runner is None:
            solver = job.recipe.build(job.problem, job.options)
            assert isinstance(solver, InstanceSolver)
            runner = _runners[job.token] = Runner(solver)
        _runners.move_to_end(job.token)
        retired = [_runners.popitem(last=False)[1] for _ in range(len(_runners) - _RUNNERS_KEPT)]
    for old in retired:
        old.close()
    answers = runner.solve(rows)
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
