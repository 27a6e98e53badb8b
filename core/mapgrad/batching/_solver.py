"""A solver, ready for batches of one problem or of several."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Self, cast, overload

import torch
from torch import Tensor

from mapgrad.batching._counts import NO_COUNTS
from mapgrad.batching._exported import exported
from mapgrad.batching._fallbacks import Fallbacks
from mapgrad.batching._families import group_rows
from mapgrad.batching._op import solve_op
from mapgrad.batching._policy import ErrorPolicy, FailedRow, error_of, fallbacks_of
from mapgrad.batching._record import gathered_variables
from mapgrad.batching._settings import POLICIES, Settings
from mapgrad.batching._theta import (
    DomainPolicy,
    name_problem,
)
from mapgrad.batching._tracing import is_traced
from mapgrad.batching._works import Works, require_any, require_solvable
from mapgrad.problems import Problem
from mapgrad.solutions import Solutions
from mapgrad.solvers import (
    FunctionSolver,
    SolverFactory,
    Traits,
    context_names,
    require_no_reserved,
    require_solver,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching._at_work import SolverAtWork
    from mapgrad.solvers import SolverLike, SolverSpec

_NO_PROMISE: Final = Traits(exact=False, history_free=False, deterministic=False)

_NO_TRACED_DEADLINE: Final = (
    "deadline= of a call can't be traced by torch.compile, torch.vmap or torch.func: give it to mapgrad.get_solver"
)


class Solver:
    """A solver, ready for batches of one problem, or of one problem a row. Made by `get_solver`.

    It is a bounded dictionary from problems to solvers at work, with one pool of workers for all of them. Once nothing
    refers to it, or Python ends, native models are freed and workers end, as by `close`.

    Attributes:
        problem: The feasible set; None where each call brings its problems.
    """

    def __init__(
        self,
        solver: SolverLike | SolverFactory,
        problem: Problem | None,
        settings: Settings,
    ) -> None:
        if problem is None and not isinstance(solver, SolverFactory):
            require_solver(solver, settings.options)
        self.problem = problem
        self._solver = solver
        self._settings = settings
        self._works = Works(solver, settings)
        is_function = isinstance(solver, SolverFactory) and isinstance(solver.factory, FunctionSolver)
        self._own = None if problem is None and not is_function else self._works.start(problem)
        self._fallbacks = self._fallbacks_of(settings)
        if self._own is not None:
            self._own = self._own.under(settings, self._fallbacks)

    @classmethod
    def of_function(cls, function: Callable[[Tensor], Tensor]) -> Solver:
        """Return a solver around a function θ [B, *shape] → z, which says what it solves by an attribute `problem`.

        Raises:
            TypeError: it takes context under one of the layer's own words.
        """
        require_no_reserved(context_names(function), "its parameters are named")
        problem = getattr(function, "problem", None)
        problem = problem if isinstance(problem, Problem) else None
        return Solver(resolve(function, problem), problem, Settings())

    def _fallbacks_of(self, settings: Settings) -> Fallbacks | None:
        """Return the solvers that get rows which fail.

        Raises:
            MapgradError: as `get_solver` does of one of them.
            ValueError: the problem isn't known.
        """
        names = fallbacks_of(settings.on_error)
        if not names:
            return None
        if self.problem is None and not self.takes_problems:
            raise ValueError(
                f'on_error="{settings.on_error}" needs to know the problem: give the function an attribute problem, or '
                f"make the solver by mapgrad.get_solver(function, problem)"
            )
        for name in names:
            if self.problem is None:
                require_solver(name, {})
            else:
                resolve(name, self.problem)
        others = replace(settings.without_options(), on_error="raise", workers=self._works.workers)
        return Fallbacks(names, [Works(name, others) for name in names])

    def under(
        self,
        domain: DomainPolicy | None = None,
        on_error: ErrorPolicy | None = None,
        deadline: float | None = None,
        blank: bool | None = None,
    ) -> Solver:
        """Return this solver under other policies, where they aren't None: models, workers and counts are shared.

        Args:
            domain: As for `get_solver`.
            on_error: Likewise.
            deadline: Likewise.
            blank: Whether such rows' states are NaN under ``"zero_grad"`` too, where 0 would pass for a state.

        Raises:
            ValueError: a policy isn't one.
            MapgradError: As for `get_solver`, about a solver to fall back to.
        """
        settings = self._settings.bound(domain, on_error, deadline, blank)
        changes = [name for name in POLICIES if getattr(settings, name) != getattr(self._settings, name)]
        if not changes:
            return self
        bound = object.__new__(Solver)
        bound.__dict__ |= self.__dict__
        bound._settings = settings
        if not {"domain", "on_error"}.isdisjoint(changes):
            bound._fallbacks = self._fallbacks_of(settings)
        bound._own = None if self._own is None else self._own.under(settings, bound._fallbacks)
        return bound

    @property
    def name(self) -> str:
        """The solver's full name."""
        if self._own is not None:
            return self._own.factory.name
        solver = self._solver
        return solver if isinstance(solver, str) else getattr(solver, "__qualname__", repr(solver))

    @property
    def spec(self) -> SolverSpec | None:
        """What the plugin says of the solver; None for a class, an object or a function, and without a problem."""
        return None if self._own is None else self._own.factory.spec

    @property
    def traits(self) -> Traits:
        """What the solver promises about itself; the weakest promises without a problem."""
        return _NO_PROMISE if self._own is None else self._own.traits

    @property
    def on_error(self) -> ErrorPolicy:
        """What becomes of rows that fail."""
        return self._settings.on_error

    @property
    def takes_problems(self) -> bool:
        """Whether a call may bring problems of its own; a function has one only."""
        return self._own is None or not self._own.is_function

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the solver was made.

        `rows` given; `solves` that a solver did; `equal` rows answered by an equal one of the same batch; `known` rows
        answered by what was solved before; `clipped` rows moved into the domain; `handed_over` rows that the
        solver gave up and another one solved; `incumbent` rows whose state isn't proved optimal and was accepted;
        `fallback` rows that the solver failed and one of `on_error` solved; `failed` rows, without an acceptable
        answer, whatever became of them, and by their status `failed_error`, `failed_feasible`, `failed_infeasible`,
        `failed_unbounded` and `failed_time_limit`; `seconds` of wall-clock time, that to build solvers of `problems`
        too.
        """
        return self._works.counts.totals()

    def within(self, deadline: float | None, theta: Tensor | Sequence[Tensor]) -> Solver:
        """Return this solver under the deadline of a call, and itself where that has none.

        Raises:
            ValueError: it isn't a positive number.
            RuntimeError: it is there, and somebody traces.
        """
        if deadline is None:
            return self
        if any(map(is_traced, [theta] if isinstance(theta, Tensor) else theta)):
            raise RuntimeError(_NO_TRACED_DEADLINE)
        return self.under(deadline=deadline)

    @overload
    def __call__(
        self, theta: Tensor, problems: Sequence[Problem] | None = None, *, deadline: float | None = None
    ) -> Tensor: ...
    @overload
    def __call__(
        self, theta: Sequence[Tensor], problems: Sequence[Problem], *, deadline: float | None = None
    ) -> list[Tensor]: ...
    def __call__(
        self,
        theta: Tensor | Sequence[Tensor],
        problems: Sequence[Problem] | None = None,
        *,
        deadline: float | None = None,
    ) -> Tensor | list[Tensor]:
        """Return argmax ⟨θ, z⟩ over the problem's set for each row; no gradient flows.

        Args:
            theta: [*batch, *shape], any float dtype and device; not written to. With `problems`, [B, *shape], or a
                list of B tensors of their shapes. An entry −inf is forbidden: z is 0 there, or the row is infeasible.
            problems: One problem a row, in place of the solver's own.
            deadline: Seconds for the whole batch; None for those that `get_solver` was given.

        Returns:
            z of θ's shape, dtype and device; a list where θ is one.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit the problem.
            NonFiniteError: θ has NaN or infinite entries, other than −inf where the lower bound is 0.
            DomainError: θ leaves the problem's domain, under ``domain="raise"``.
            RowsError: a row has no acceptable answer, and `on_error` says nothing else; the error carries `rows` and
                the others' `solutions`.
            RuntimeError: torch.compile or torch.vmap traces, and there are `problems` or a `deadline`.
        """
        if deadline is not None:
            return cast("Any", self.within(deadline, theta))(theta, problems)
        if problems is not None:
            return self._solve_each(theta, problems).z
        work = self.at_work()
        theta = work.require_theta(theta)
        if is_traced(theta):
            found = exported(theta, work)
            return solve_op(theta, work) if found is None else found
        split = work.lead_ndim(theta)
        return work.solve(theta.reshape(-1, *theta.shape[split:]), batch=theta.shape[:split]).z

    @overload
    def solve(
        self, theta: Tensor, problems: Sequence[Problem] | None = None, *, deadline: float | None = None
    ) -> Solutions: ...
    @overload
    def solve(
        self, theta: Sequence[Tensor], problems: Sequence[Problem], *, deadline: float | None = None
    ) -> Solutions: ...
    def solve(
        self,
        theta: Tensor | Sequence[Tensor],
        problems: Sequence[Problem] | None = None,
        *,
        deadline: float | None = None,
    ) -> Solutions:
        """Solve each row and report how it went.

        Args:
            theta: As for a call.
            problems: As for a call.
            deadline: As for a call.

        Returns:
            z, status, objective and bound for each row, with the time taken and the counts of this call; z is a list
            where θ is one.

        Raises:
            MapgradError: As for a call.
        """
        if deadline is not None:
            return cast("Any", self.within(deadline, theta)).solve(theta, problems)
        if problems is not None:
            return self._solve_each(theta, problems)
        work = self.at_work()
        theta = work.require_theta(theta)
        split = work.lead_ndim(theta)
        return work.solve(theta.reshape(-1, *theta.shape[split:]), batch=theta.shape[:split], priced=True)

    def at_work(self, problem: Problem | None = None) -> SolverAtWork:
        """Return the solver at work on a problem, or on its own; the last ones used are kept.

        Raises:
            TypeError: the solver was made without a problem, and none is given.
        """
        if self._own is not None and (problem is None or problem == self.problem):
            return self._own
        if problem is None:
            raise TypeError(f"{self!r} was made without a problem: pass problems=[…], one for each row")
        return self._works.serving(problem, self._own).under(self._settings, self._fallbacks).of_siblings([problem])

    def works_on(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]
    ) -> list[tuple[SolverAtWork, list[int]]]:
        """Return the solvers at work on the problems of a batch, one a row, each with the numbers of its rows.

        Programs that differ in bounds and sides alone share one, with one native model, where the solver serves both.
        They also share a block of rows, unless forbidden entries get a θ for which the bounds count.

        Raises:
            MapgradError: As for a call.
        """
        started = time.perf_counter()
        works: list[tuple[SolverAtWork, list[int]]] = []
        for members in group_rows(theta, problems):
            served: dict[int, tuple[SolverAtWork, list[list[int]]]] = {}
            for problem, rows in members:
                server = self._works.serving(problem, self._own, len(rows))
                served.setdefault(id(server), (server, []))[1].append(rows)
            for server, groups in served.values():
                work = server.under(self._settings, self._fallbacks)
                if work.traits.masks:
                    groups = [sorted(chain.from_iterable(groups))] if len(groups) > 1 else groups
                for rows in groups:
                    of_rows = [problems[row] for row in rows]
                    works.append((work.of_siblings(of_rows if len(set(of_rows)) > 1 else of_rows[:1]), rows))
        require_any([work for work, _ in works])
        self._works.counts.add({"seconds": time.perf_counter() - started})
        return works

    def _solve_each(self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]) -> Solutions:
        """Solve each row's own problem; rows that fail are named together, once all have been tried."""
        started = time.perf_counter()
        works = self.works_on(theta, problems)
        if any(map(is_traced, theta)):
            raise RuntimeError(
                "problems= can't be traced, as the problems aren't tensors: call the solver outside of torch.compile "
                "and torch.vmap, or make a solver of each problem with get_solver"
            )
        stacked = [work.require_theta(torch.stack([theta[row] for row in rows])) for work, rows in works]
        require_solvable(works, stacked, self._settings.domain)
        z: list[Tensor] = [torch.full_like(row, torch.nan) for row in theta]
        device = theta.device if isinstance(theta, Tensor) else z[0].device if z else torch.device("cpu")
        status = torch.zeros(len(z), dtype=torch.int64, device=device)
        objective, bound = torch.full((2, len(z)), torch.nan, dtype=torch.float64, device=device)
        solutions = Solutions(z, status, objective, bound, stats={**NO_COUNTS})
        failed: dict[int, FailedRow] = {}
        clock = works[0][0].new_clock() if works else None
        variables: list[tuple[Sequence[int], Tensor]] = []
        for (work, rows), utilities in zip(works, stacked, strict=True):
            found, bad = work.try_to_solve(utilities, priced=True, clock=clock)
            for row, answer in zip(rows, found.z, strict=True):
                z[row] = answer.to(theta[row].dtype)
            if found.variables is not None:
                variables.append((rows, found.variables[None]))
            if found.forbidden is not None:
                if solutions.forbidden is None:
                    solutions.forbidden = [torch.zeros_like(row, dtype=torch.bool) for row in theta]
                for row, entries in zip(rows, found.forbidden, strict=True):
                    solutions.forbidden[row] = entries
            if found.failed is not None:
                if solutions.failed is None:
                    solutions.failed = torch.zeros_like(status, dtype=torch.bool)
                solutions.failed[rows] = found.failed
            status[rows], objective[rows], bound[rows] = found.status, found.objective, found.bound
            solutions.causes.update({rows[row]: cause for row, cause in found.causes.items()})
            described = work.policy.described(bad, found, work.problems)
            failed.update({rows[row]: each for row, each in described.items()})
            for name, number in found.stats.items():
                solutions.stats[name] += number
        solutions.variables = gathered_variables(variables, 1, (len(z),))
        if isinstance(theta, Tensor):
            solutions.z = torch.stack(z) if z else theta.clone()
            if solutions.forbidden is not None:
                solutions.forbidden = torch.stack(solutions.forbidden)
        solutions.stats["seconds"] = solutions.seconds = time.perf_counter() - started
        if failed:
            raise error_of(failed, (len(problems),), solutions)
        return solutions

    def close(self) -> None:
        """Stop the workers and free the native models; rows that are at work finish, and a later call starts anew."""
        if self._own is not None:
            self._own.close()
        self._works.close()
        if self._fallbacks is not None:
            self._fallbacks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        solver = self._solver if self._own is None else self._own.factory
        return Solver, (solver, self.problem, self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Solver:
        solver = self._solver if self.takes_problems else copy.deepcopy(self._solver, memo)  # a function may hold data
        return Solver(solver, self.problem, self._settings)

    def __repr__(self) -> str:
        return f"<Solver {self.name} of {name_problem(self.problem)}>"
