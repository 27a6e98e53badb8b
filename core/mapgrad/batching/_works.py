"""The solvers at work on the problems of one `Solver`, and which of them takes which problem."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from mapgrad.batching._at_work import SolverAtWork
from mapgrad.batching._counts import Counts
from mapgrad.batching._families import model_key
from mapgrad.batching._hand_over import Paces
from mapgrad.batching._theta import admit, domain_error, non_finite_error
from mapgrad.errors import DomainError, NonFiniteError, UnsupportedProblemError
from mapgrad.problems import Problem
from mapgrad.solvers import InstanceSolver, Request, SolverFactory, resolve
from mapgrad.workers import Workers, new_lock

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.batching._settings import Settings
    from mapgrad.batching._theta import DomainPolicy
    from mapgrad.solvers import SolverLike

_PROBLEMS_KEPT: Final = 512
"""As `get_solver` says. A problem of 50 variables takes 0.1 to 0.2 MiB, one of 300 with 100 rows 1.4 MiB."""


class Works:
    """A bounded dictionary from problems to solvers at work, which share workers and counts.

    Args:
        solver: What the user asked for.
        settings: Likewise.

    Attributes:
        counts: What all of them did.
        workers: Who runs their rows.
    """

    def __init__(self, solver: SolverLike | SolverFactory, settings: Settings) -> None:
        self._solver, self._settings = solver, settings
        given = settings.workers
        self.workers = given if isinstance(given, Workers) else Workers(given)
        self._is_shared = self.workers is given
        self._kept: OrderedDict[Problem, SolverAtWork] = OrderedDict()
        self._alike: dict[Hashable, OrderedDict[Problem, SolverAtWork]] = {}
        self._lock = new_lock()
        self.counts = Counts()
        self._paces = Paces()

    def start(self, problem: Problem | None, rows: float = math.inf) -> SolverAtWork:
        """Put the solver to work on a problem, which isn't kept; `rows` says for how many it is worth to be made."""
        solver = self._solver
        factory = solver if isinstance(solver, SolverFactory) else resolve(solver, problem, rows)
        return SolverAtWork(factory, problem, self._settings, self.workers, self.counts, self._paces)

    def serving(self, problem: Problem, own: SolverAtWork | None, rows: float = math.inf) -> SolverAtWork:
        """Return what serves a problem: the solver's own, one that is kept, or a new one.

        Where the solver doesn't take the problem, it is one that fails each row for that reason.

        Args:
            problem: The problem.
            own: The solver at work on the problem that the user gave with it.
            rows: How many rows a call has of the problem.
        """
        if own is not None and own.can_serve(problem):
            return own
        with self._lock:
            work = self._kept.get(problem)
            same = self._alike.get(model_key(problem))
            alike = [*reversed(same.values())] if same else []
        if work is None:
            work = next((each for each in alike if each.can_serve(problem)), None)
        if work is None:
            try:
                work = self.start(problem, rows)
            except UnsupportedProblemError as error:
                work = self._refusing(problem, error)
        self._keep(work)
        return work

    def _keep(self, work: SolverAtWork) -> None:
        problem, dropped = work.problem, None
        assert problem is not None
        with self._lock:
            for kept in (self._kept, self._alike.setdefault(model_key(problem), OrderedDict())):
                kept[problem] = work
                kept.move_to_end(problem)
            if len(self._kept) > _PROBLEMS_KEPT:
                problem, dropped = self._kept.popitem(last=False)
                key = model_key(problem)
                del self._alike[key][problem]
                if not self._alike[key]:
                    del self._alike[key]
        if dropped is not None:
            dropped.close()

    def _refusing(self, problem: Problem, error: UnsupportedProblemError) -> SolverAtWork:
        name = self._solver.name if isinstance(self._solver, SolverFactory) else str(self._solver)
        factory = SolverFactory(name, name, Refusing(problem, error))
        return SolverAtWork(factory, problem, self._settings.without_options(), Workers(), self.counts)

    def close(self) -> None:
        """Stop the workers and free the native models of those that are kept."""
        with self._lock:
            works = [*self._kept.values()]
        for work in works:
            work.close()
        if not self._is_shared:
            self.workers.close()


class Refusing(InstanceSolver[Problem, None]):
    """Fails each row, as the solver that was asked for doesn't take its problem.

    Args:
        problem: The problem.
        error: Why.
    """

    def __init__(self, problem: Problem, error: UnsupportedProblemError) -> None:
        super().__init__(problem)
        self.error = error

    def solve(self, state: None, theta: NDArray[Any], request: Request) -> NDArray[Any]:
        """Raise the reason."""
        raise self.error


def require_any(works: Sequence[SolverAtWork]) -> None:
    """Refuse a batch of which no row has a problem that the solver takes.

    Raises:
        UnsupportedProblemError: that of the first one.
    """
    refusals = [work.plugin.error for work in works if isinstance(work.plugin, Refusing)]
    if refusals and len(refusals) == len(works):
        raise refusals[0]


def require_solvable(
    works: Sequence[tuple[SolverAtWork, list[int]]], stacked: Sequence[Tensor], domain: DomainPolicy
) -> None:
    """Refuse rows that can't be solved, by their numbers in the whole batch, before any is.

    Args:
        works: The solvers at work on a batch's problems, each with the numbers of its rows.
        stacked: Those rows, for each.
        domain: What becomes of rows outside of their problem's domain.

    Raises:
        NonFiniteError, DomainError: there are such rows.
    """
    batch = (sum(len(rows) for _, rows in works),)
    infinite: list[int] = []
    kept = ""
    outside: dict[int, Problem] = {}
    for (work, rows), utilities in zip(works, stacked, strict=True):
        try:
            admit(utilities.detach(), work.problem, domain)
        except NonFiniteError as error:
            infinite += [rows[row] for row in error.rows]
            kept = kept or error.kept
        except DomainError as error:
            assert work.problem is not None
            outside.update((rows[row], work.problem) for row in error.rows)
    if infinite:
        raise non_finite_error(sorted(infinite), batch, kept=kept)
    if outside:
        numbers = sorted(outside)
        raise domain_error(outside[numbers[0]], numbers, batch)
