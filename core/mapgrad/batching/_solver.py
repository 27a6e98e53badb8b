"""A solver as a layer sees it: batches of any float dtype on any device in, the same out."""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, get_args, overload

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._answers import Answers, Solved
from mapgrad.batching._per_row import PerRow
from mapgrad.batching._rows import (
    DomainPolicy,
    compute_dtype,
    enforce_domain,
    first_of_equal,
    name_rows,
    require_finite,
    require_float,
    require_representable,
    row_numbers,
    scale_rows,
)
from mapgrad.batching._running import Job
from mapgrad.batching._staging import to_device, to_host
from mapgrad.batching._workers import Pool, Workers, require_workers
from mapgrad.errors import InfeasibleError, RowsError, SolverCrashError, SolveTimeoutError, UnboundedError
from mapgrad.problems import batch_shape
from mapgrad.solvers import (
    BatchSolver,
    InstanceSolver,
    Recipe,
    Solutions,
    SolverLike,
    SolverSpec,
    Status,
    Traits,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.problems import Problem

ErrorPolicy = Literal["raise", "incumbent"]

_COUNTS: Final = ("rows", "solves", "equal", "known", "clipped", "failed", "seconds")
_ERRORS: Final[dict[Status, type[RowsError]]] = {
    Status.ERROR: SolverCrashError,
    Status.FEASIBLE: SolveTimeoutError,
    Status.INFEASIBLE: InfeasibleError,
    Status.UNBOUNDED: UnboundedError,
    Status.TIME_LIMIT: SolveTimeoutError,
}


class Known(NamedTuple):
    """Rows that were solved before, each with its answer: where the same row comes again, it isn't solved again.

    Attributes:
        rows: [*batch, *shape], as they were given to the solver then.
        z: [*batch, *shape], the answers.
        status: [*batch], `Status` values.
    """

    rows: Tensor
    z: Tensor
    status: Tensor


class Solver:
    """A problem and a solver, ready for batches. Made by `get_solver`, whose arguments these are.

    Attributes:
        problem: The feasible set; None where each call brings its problems.
    """

    def __init__(self, solver: SolverLike | Recipe, problem: Problem | None, settings: dict[str, Any]) -> None:
        require_workers(settings["workers"])
        _require_choice("on_error", settings["on_error"], get_args(ErrorPolicy))
        _require_choice("domain", settings["domain"], get_args(DomainPolicy))
        _require_time_limit(settings["time_limit"])
        self.problem = problem
        self._solver = solver
        self._settings = settings
        self._per_row = PerRow(lambda each: Solver(solver, each, settings))
        self._bound = None if problem is None else _Bound(resolve(solver, problem), problem, settings)
        if self._bound is not None:
            self._finalizer = weakref.finalize(self, self._bound.close)

    @property
    def name(self) -> str:
        """The solver's full name."""
        if self._bound is not None:
            return self._bound.recipe.name
        return (
            self._solver if isinstance(self._solver, str) else getattr(self._solver, "__qualname__", repr(self._solver))
        )

    @property
    def spec(self) -> SolverSpec | None:
        """What the plugin says of the solver; None for a class, an object or a function, and without a problem."""
        return None if self._bound is None else self._bound.recipe.spec

    @property
    def traits(self) -> Traits:
        """What the solver promises about itself; the weakest promises without a problem."""
        return _NO_PROMISE if self._bound is None else self._bound.plugin.traits

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the solver was made.

        `rows` given; `solves` that a solver did; `equal` rows answered by an equal one of the same batch; `known` rows
        answered by what was solved before; `clipped` rows moved into the domain; `failed` rows; `seconds` of wall-clock
        time.
        """
        counts = [self._per_row.stats] + ([] if self._bound is None else [self._bound.stats])
        return {name: sum(count.get(name, 0.0) for count in counts) for name in _COUNTS}

    @overload
    def __call__(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
    @overload
    def __call__(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
    def __call__(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None
    ) -> Tensor | list[Tensor]:
        """Return argmax ⟨θ, z⟩ over the problem's set for each row; no gradient flows.

        Args:
            theta: [*batch, *shape], any float dtype and device; not written to. With `problems`, [B, *shape], or a
                list of B tensors of their shapes.
            problems: One problem a row, in place of the solver's own.

        Returns:
            z of θ's shape, dtype and device; a list where θ is one.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit the problem.
            NonFiniteError: θ has NaN or infinite entries.
            DomainError: θ leaves the problem's domain, under ``domain="raise"``.
            RowsError: a row has no acceptable answer; the error carries `rows` and the others' `solutions`.
        """
        if problems is None:
            return self.solve_known(theta, None)[0]
        return self._per_row.solve(theta, problems).z

    @overload
    def solve(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Solutions: ...
    @overload
    def solve(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> Solutions: ...
    def solve(self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None) -> Solutions:
        """Solve each row and report how it went.

        Args:
            theta: As for a call.
            problems: As for a call.

        Returns:
            z, status, objective and bound for each row, with the time taken and the counts of this call; z is a list
            where θ is one.

        Raises:
            MapgradError: As for a call.
        """
        if problems is not None:
            return self._per_row.solve(theta, problems)
        return self._require_bound().solve(theta)

    def solve_known(self, theta: object, known: Known | None) -> tuple[Tensor, Tensor]:
        """Return z and the statuses [*batch], reusing the answers to rows that were solved before."""
        return self._require_bound().answer(theta, known)

    def for_problem(self, problem: Problem) -> Solver:
        """Return the same solver of another problem; the last ones used are kept."""
        return self if problem == self.problem else self._per_row.solver(problem)

    def close(self) -> None:
        """Stop the threads and free the native models; a later call makes new ones."""
        self._per_row.close()
        if self._bound is not None:
            self._bound.close()

    def _require_bound(self) -> _Bound:
        if self._bound is None:
            raise TypeError(f"{self!r} was made without a problem: pass problems=[…], one for each row")
        return self._bound

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        solver = self._solver if self._bound is None else self._bound.recipe
        return Solver, (solver, self.problem, self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Solver:
        return Solver(self._solver, self.problem, self._settings)

    def __repr__(self) -> str:
        return f"<Solver {self.name} of {self.problem!r}>"


class _Bound:
    """A solver at work on one problem."""

    def __init__(self, recipe: Recipe, problem: Problem, settings: dict[str, Any]) -> None:
        self.recipe = recipe
        self.problem = problem
        self.lowering = recipe.lowering(problem)
        self._on_error: ErrorPolicy = settings["on_error"]
        self._domain: DomainPolicy = settings["domain"]
        self._reuse: bool = settings["reuse"]
        job = Job(uuid.uuid4().hex, recipe, problem, settings["options"], settings["time_limit"], self._reuse)
        self.plugin = job.build()
        self._merge: bool = settings["merge"] and self.plugin.traits.deterministic
        self._pool: Pool | None = None
        if isinstance(self.plugin, InstanceSolver):
            self._pool = Pool(job.runner(self.plugin), job, settings["workers"])
        self._stats: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def answer(self, theta: object, known: Known | None) -> tuple[Tensor, Tensor]:
        """Return z of θ's shape and the statuses [*batch]."""
        batch, _, solved, _ = self._solve(theta, known)
        return solved.z.reshape(*batch, *self.problem.shape), solved.status.reshape(batch)

    def solve(self, theta: object) -> Solutions:
        """Return all that is known of the answers to θ [*batch, *shape]."""
        batch, rows, solved, counts = self._solve(theta, None)
        return self._solutions(batch, rows, solved, counts)

    def _solve(self, theta: object, known: Known | None) -> tuple[tuple[int, ...], Tensor, Solved, dict[str, float]]:
        started = time.perf_counter()
        theta = require_float(theta)
        batch = batch_shape(self.problem, theta, "θ")
        require_representable(self.problem, theta.dtype)
        rows = theta.detach().reshape(-1, *self.problem.shape).to(compute_dtype(theta.dtype)).contiguous()
        require_finite(rows)
        rows, clipped = enforce_domain(rows, self.problem, self._domain)
        counts: dict[str, float] = {"rows": len(rows), "clipped": clipped}
        if len(rows) == 0:
            solved = Answers.unsolved(tuple(rows.shape)).to_tensors(rows)
        elif isinstance(self.plugin, BatchSolver):
            solved = self._solve_batch(self.plugin, rows, counts)
        else:
            solved = self._solve_instances(rows, known, counts)
        solved.z = solved.z.to(theta.dtype)
        failed = self._failed(solved)
        counts.update(failed=len(failed), seconds=time.perf_counter() - started)
        with self._lock:
            for name, number in counts.items():
                self._stats[name] = self._stats.get(name, 0.0) + number
        if failed:
            self._raise(failed, solved, self._solutions(batch, rows, solved, counts))
        return batch, rows, solved, counts

    def _solutions(self, batch: tuple[int, ...], rows: Tensor, solved: Solved, counts: dict[str, float]) -> Solutions:
        computed = (rows.double() * solved.z.double()).flatten(1).sum(dim=1)
        solved.objective = torch.where(solved.objective.isnan(), computed, solved.objective)
        return solved.solutions(batch, counts["seconds"], counts)

    def _solve_batch(self, plugin: BatchSolver, rows: Tensor, counts: dict[str, float]) -> Solved:
        counts["solves"] = len(rows)
        is_lowered = self.lowering.native != self.problem
        native = to_device(self.lowering.rows(to_host(rows).astype(np.float64)), like=rows) if is_lowered else rows
        try:
            with torch.no_grad():
                answer = plugin.solve(native)
            z = _answered(answer, native)
        except Exception as error:  # noqa: BLE001 (whatever a solver raises fails its rows)
            answers = Answers.unsolved(tuple(rows.shape))
            answers.errors = dict.fromkeys(range(len(rows)), error)
            return answers.to_tensors(rows)
        unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=rows.device)
        if isinstance(answer, Solutions):
            solved = Solved(z, answer.status, answer.objective, answer.bound, {})
        else:
            status = Status.OPTIMAL if plugin.traits.exact else Status.FEASIBLE
            solved = Solved(z, torch.full_like(unknown, status, dtype=torch.int64), unknown, unknown, {})
        if is_lowered:
            value = (native.double() * z.double()).flatten(1).sum(dim=1)
            solved.objective = torch.where(solved.objective.isnan(), value, solved.objective)
            if self.lowering.is_restated:
                solved.objective = unknown  # that of the program's solution: the state may be better
            solved.z = to_device(self.lowering.states(to_host(z).astype(np.float64)), like=rows)
        return solved

    def _solve_instances(self, rows: Tensor, known: Known | None, counts: dict[str, float]) -> Solved:
        assert self._pool is not None
        answers = Answers.unsolved(tuple(rows.shape))
        todo = np.ones(len(rows), dtype=bool)
        starts = None
        if known is not None and self._merge:
            before = self.problem.domain.clip(known.rows.reshape(rows.shape))
            todo = to_host((before != rows).flatten(1).any(dim=1))
            z = to_host(known.z.reshape(rows.shape)).astype(np.float64)
            answers.z[~todo] = z[~todo]
            answers.status[~todo] = to_host(known.status.reshape(-1))[~todo]
            starts = self.lowering.start(z[todo]) if self._reuse else None
        native, exponents = scale_rows(self.lowering.rows(to_host(rows).astype(np.float64)[todo]))
        distinct, places = first_of_equal(native) if self._merge else _all_rows(len(native))
        fresh = self._pool.solve(native[distinct], None if starts is None else starts[distinct]).take(places)
        fresh.fill_objectives(native)
        fresh.objective = np.ldexp(fresh.objective, exponents)
        fresh.bound = np.ldexp(fresh.bound, exponents)
        fresh.z = self.lowering.states(fresh.z)
        if self.lowering.is_restated:
            fresh.objective[:] = np.nan  # that of the program's solution: the state may be better
        answers.place(np.flatnonzero(todo), fresh)
        counts.update(solves=len(distinct), equal=len(native) - len(distinct), known=len(rows) - len(native))
        return answers.to_tensors(rows)

    def _failed(self, solved: Solved) -> list[int]:
        accepted = solved.status == Status.OPTIMAL
        if not self.plugin.traits.exact:
            accepted |= solved.status == Status.FEASIBLE
        if self._on_error == "incumbent":
            answered = solved.z.flatten(1).isfinite().all(dim=1)
            accepted |= answered & ((solved.status == Status.FEASIBLE) | (solved.status == Status.TIME_LIMIT))
        return [] if bool(accepted.all()) else row_numbers(~accepted)

    def _raise(self, failed: list[int], solved: Solved, solutions: Solutions) -> None:
        first = failed[0]
        status = Status(int(solved.status[first]))
        cause = solved.errors.get(first)
        said = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        raise _ERRORS[status](
            f"{self.recipe.label} has no acceptable answer to {name_rows(failed, len(solved.status))} of "
            f"{self.problem!r}; row {first}: {status.name}, {status.meaning}{said}",
            rows=failed,
            solutions=solutions,
        ) from cause


_NO_PROMISE: Final = Traits(exact=False, history_free=False, deterministic=False)


def get_solver(
    solver: SolverLike,
    problem: Problem | None,
    *,
    workers: Workers = None,
    on_error: ErrorPolicy = "raise",
    time_limit: float | None = None,
    domain: DomainPolicy = "clip",
    reuse: bool = False,
    merge: bool = True,
    **options: Any,
) -> Solver:
    """Return a solver for a problem.

    Args:
        solver: A name (``"plugin.solver"``, or ``"plugin"`` for its cheapest one that takes the problem), ``"auto"``
            for the cheapest exact solver installed, a solver class or object, or a function θ [N, *shape] → z.
        problem: The feasible set; None if each call brings one problem a row.
        workers: None or 1 solves in the calling thread; n in n threads, each with its own native model;
            ``"processes:n"`` in n processes; any `concurrent.futures.Executor` in its workers. A solver that takes
            whole batches always runs in the calling thread.
        on_error: ``"raise"`` when a row isn't solved to optimality by an exact solver, or ``"incumbent"`` to accept a
            feasible state where there is one.
        time_limit: Seconds that one row may take, for solvers whose engine has a limit; None for no limit.
        domain: ``"clip"`` θ to the problem's domain and count it, or ``"raise"``.
        reuse: Whether what earlier rows left behind (a basis, the forward pass's answer) may speed up later ones. The
            objectives stay the same; among equal optima another one may be found.
        merge: Whether equal rows of a batch are solved once (only for deterministic solvers that take single rows).
        options: The solver's own options.

    Raises:
        UnknownSolverError: No plugin offers this name.
        MissingDependencyError: The solver's package isn't installed.
        PluginError: The solver's plugin is broken or blocked.
        UnsupportedProblemError: The solver can't take this problem.
        TypeError: An option is unknown to the solver, or an argument has the wrong type.
    """
    if isinstance(solver, Solver):
        raise TypeError(f"{solver!r} is made already: call it, or pass its name, {solver.name!r}, for another problem")
    settings: dict[str, Any] = {
        "workers": workers,
        "on_error": on_error,
        "time_limit": time_limit,
        "domain": domain,
        "reuse": reuse,
        "merge": merge,
        "options": options,
    }
    return Solver(solver, problem, settings)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _require_time_limit(value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"time_limit must be None or a positive number of seconds, got {value!r}")


def _answered(answer: Tensor | Solutions, rows: Tensor) -> Tensor:
    z = answer.z if isinstance(answer, Solutions) else answer
    if z.shape != rows.shape:
        raise ValueError(f"the solver answered with shape {tuple(z.shape)} where {tuple(rows.shape)} was expected")
    if isinstance(answer, Solutions):
        shapes = [tuple(part.shape) for part in (answer.status, answer.objective, answer.bound)]
        if shapes != [(len(rows),)] * 3:
            raise ValueError(f"the solver's status, objective and bound have shapes {shapes}, expected ({len(rows)},)")
    return z.to(rows)


def _all_rows(count: int) -> tuple[list[int], list[int]]:
    return list(range(count)), list(range(count))
