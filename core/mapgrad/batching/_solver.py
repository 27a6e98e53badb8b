"""A solver as a layer sees it: batches of any float dtype on any device in, the same out."""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor

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
from mapgrad.batching._running import Answers, Job, Runner
from mapgrad.batching._staging import to_device, to_host
from mapgrad.batching._workers import Pool, Workers, require_workers
from mapgrad.errors import (
    InfeasibleError,
    RowsError,
    SolverCrashError,
    SolveTimeoutError,
    UnboundedError,
)
from mapgrad.problems import batch_shape
from mapgrad.solvers import BatchSolver, InstanceSolver, Solutions, SolverSpec, Status, Traits, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.problems import Problem
    from mapgrad.solvers import Recipe

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


@dataclass
class _Solved:
    """A flat batch's answers on the caller's device: z [N, *shape], the rest [N]; NaN where a solver didn't say."""

    rows: Tensor
    z: Tensor
    status: Tensor
    objective: Tensor
    bound: Tensor
    errors: dict[int, BaseException]


class Solver:
    """A problem and a solver, ready for batches. Made by `get_solver`.

    Attributes:
        problem: The feasible set.
        name: The solver's full name.
        spec: What its plugin says of it; None for a class, an object or a function.
        traits: What it promises about itself.
    """

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        *,
        workers: Workers = None,
        on_error: ErrorPolicy = "raise",
        domain: DomainPolicy = "clip",
        merge: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        require_workers(workers)
        _require_choice("on_error", on_error, get_args(ErrorPolicy))
        _require_choice("domain", domain, get_args(DomainPolicy))
        self.problem = problem
        self._recipe = recipe
        self._settings: dict[str, Any] = {
            "workers": workers,
            "on_error": on_error,
            "domain": domain,
            "merge": merge,
            "options": dict(options or {}),
        }
        self._on_error: ErrorPolicy = on_error
        self._domain: DomainPolicy = domain
        self._plugin = recipe.build(problem, self._settings["options"])
        self._merge = merge and self.traits.deterministic
        self._pool: Pool | None = None
        if isinstance(self._plugin, InstanceSolver):
            job = Job(uuid.uuid4().hex, recipe, problem, self._settings["options"])
            self._pool = Pool(Runner(self._plugin), job, workers)
            self._finalizer = weakref.finalize(self, self._pool.close)
        self._stats: dict[str, float] = dict.fromkeys(_COUNTS, 0.0)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The solver's full name."""
        return self._recipe.name

    @property
    def spec(self) -> SolverSpec | None:
        """What the plugin says of the solver; None for a class, an object or a function."""
        return self._recipe.spec

    @property
    def traits(self) -> Traits:
        """What the solver promises about itself."""
        return self._plugin.traits

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the solver was made.

        `rows` given; `solves` that a solver did; `equal` rows answered by an equal one of the same batch; `known` rows
        answered by what was solved before; `clipped` rows moved into the domain; `failed` rows; `seconds` of wall-clock
        time.
        """
        with self._lock:
            return dict(self._stats)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return argmax ⟨θ, z⟩ over the problem's set for each row; no gradient flows.

        Args:
            theta: [*batch, *shape], any float dtype and device; not written to.

        Returns:
            z of θ's shape, dtype and device.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit the problem.
            NonFiniteError: θ has NaN or infinite entries.
            DomainError: θ leaves the problem's domain, under ``domain="raise"``.
            RowsError: a row has no acceptable answer; the error carries `rows` and the others' `solutions`.
        """
        return self.solve_known(theta, None)[0]

    def solve_known(self, theta: Tensor, known: Known | None) -> tuple[Tensor, Tensor]:
        """Return z and the statuses [*batch], reusing the answers to rows that were solved before."""
        batch, solved, _ = self._solve(theta, known)
        return solved.z.reshape(theta.shape), solved.status.reshape(batch)

    def solve(self, theta: Tensor) -> Solutions:
        """Solve each row and report how it went.

        Args:
            theta: As for a call.

        Returns:
            z, status, objective and bound for each row, with the time taken and the counts of this call.

        Raises:
            MapgradError: As for a call.
        """
        batch, solved, counts = self._solve(theta, None)
        return _solutions(batch, theta, solved, counts)

    def close(self) -> None:
        """Stop the threads and free the native models; a later call makes new ones."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._recipe, self.problem, self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Solver:
        return _rebuild(self._recipe, self.problem, self._settings)

    def __repr__(self) -> str:
        return f"<Solver {self.name} of {self.problem!r}>"

    def _solve(self, theta: Tensor, known: Known | None) -> tuple[tuple[int, ...], _Solved, dict[str, float]]:
        started = time.perf_counter()
        theta = require_float(theta)
        batch = batch_shape(self.problem, theta, "θ")
        require_representable(self.problem, theta.dtype)
        rows = theta.detach().reshape(-1, *self.problem.shape).to(compute_dtype(theta.dtype)).contiguous()
        require_finite(rows)
        rows, clipped = enforce_domain(rows, self.problem, self._domain)
        counts: dict[str, float] = {"rows": len(rows), "clipped": clipped}
        if len(rows) == 0:
            solved = _to_tensors(Answers.unsolved(tuple(rows.shape)), rows)
        elif isinstance(self._plugin, BatchSolver):
            solved = self._solve_batch(self._plugin, rows, counts)
        else:
            solved = self._solve_instances(rows, known, counts)
        failed = self._failed(solved)
        solved.z = solved.z.to(theta.dtype)
        counts.update(failed=len(failed), seconds=time.perf_counter() - started)
        self._count(counts)
        if failed:
            self._raise(failed, solved, _solutions(batch, theta, solved, counts))
        return batch, solved, counts

    def _solve_batch(self, plugin: BatchSolver, rows: Tensor, counts: dict[str, float]) -> _Solved:
        counts["solves"] = len(rows)
        try:
            with torch.no_grad():
                answer = plugin.solve(rows)
            z = _answered(answer, rows)
        except Exception as error:  # noqa: BLE001 (whatever a solver raises fails its rows)
            answers = Answers.unsolved(tuple(rows.shape))
            answers.errors = dict.fromkeys(range(len(rows)), error)
            return _to_tensors(answers, rows)
        unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=rows.device)
        if isinstance(answer, Solutions):
            return _Solved(rows, z, answer.status, answer.objective, answer.bound, {})
        status = torch.full_like(unknown, Status.OPTIMAL if self.traits.exact else Status.FEASIBLE, dtype=torch.int64)
        return _Solved(rows, z, status, unknown, unknown, {})

    def _solve_instances(self, rows: Tensor, known: Known | None, counts: dict[str, float]) -> _Solved:
        assert self._pool is not None
        answers = Answers.unsolved(tuple(rows.shape))
        todo = np.ones(len(rows), dtype=bool)
        if known is not None and self._merge:
            before = self.problem.domain.clip(known.rows.reshape(rows.shape))
            same = (before == rows).flatten(1).all(dim=1)
            todo = ~to_host(same)
            answers.z[~todo] = to_host(known.z.reshape(rows.shape)[same])
            answers.status[~todo] = to_host(known.status.reshape(-1)[same])
        scaled, exponents = scale_rows(to_host(rows).astype(np.float64)[todo])
        distinct, places = first_of_equal(scaled) if self._merge else _all_rows(len(scaled))
        fresh = self._pool.solve(scaled[distinct]).take(places)
        fresh.objective = np.ldexp(fresh.objective, exponents)
        fresh.bound = np.ldexp(fresh.bound, exponents)
        answers.place(np.flatnonzero(todo), fresh)
        counts.update(solves=len(distinct), equal=len(scaled) - len(distinct), known=len(rows) - len(scaled))
        return _to_tensors(answers, rows)

    def _failed(self, solved: _Solved) -> list[int]:
        accepted = solved.status == Status.OPTIMAL
        if not self.traits.exact:
            accepted |= solved.status == Status.FEASIBLE
        if self._on_error == "incumbent":
            answered = solved.z.flatten(1).isfinite().all(dim=1)
            accepted |= answered & ((solved.status == Status.FEASIBLE) | (solved.status == Status.TIME_LIMIT))
        return [] if bool(accepted.all()) else row_numbers(~accepted)

    def _raise(self, failed: list[int], solved: _Solved, solutions: Solutions) -> None:
        first = failed[0]
        status = Status(int(solved.status[first]))
        cause = solved.errors.get(first)
        said = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        raise _ERRORS[status](
            f"{self._recipe.label} has no acceptable answer to {name_rows(failed, len(solved.status))} of "
            f"{self.problem!r}; row {first}: {status.name}, {status.meaning}{said}",
            rows=failed,
            solutions=solutions,
        ) from cause

    def _count(self, counts: dict[str, float]) -> None:
        with self._lock:
            for name, number in counts.items():
                self._stats[name] += number


def get_solver(
    solver: str | type[InstanceSolver | BatchSolver] | InstanceSolver | BatchSolver | Callable[[Tensor], Tensor],
    problem: Problem,
    *,
    workers: Workers = None,
    on_error: ErrorPolicy = "raise",
    domain: DomainPolicy = "clip",
    merge: bool = True,
    **options: Any,
) -> Solver:
    """Return a solver for a problem.

    Args:
        solver: A name (``"plugin.solver"``, or ``"plugin"`` for its cheapest one that takes the problem), ``"auto"``
            for the cheapest exact solver installed, a solver class or object, or a function θ [N, *shape] → z.
        problem: The feasible set.
        workers: None or 1 solves in the calling thread; n in n threads, each with its own native model;
            ``"processes:n"`` in n processes; any `concurrent.futures.Executor` in its workers. A solver that takes
            whole batches always runs in the calling thread.
        on_error: ``"raise"`` when a row isn't solved to optimality by an exact solver, or ``"incumbent"`` to accept a
            feasible state where there is one.
        domain: ``"clip"`` θ to the problem's domain and count it, or ``"raise"``.
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
    settings: dict[str, Any] = {"workers": workers, "on_error": on_error, "domain": domain, "merge": merge}
    return Solver(resolve(solver, problem), problem, **settings, options=options)


def _answered(answer: Tensor | Solutions, rows: Tensor) -> Tensor:
    z = answer.z if isinstance(answer, Solutions) else answer
    if z.shape != rows.shape:
        raise ValueError(f"the solver answered with shape {tuple(z.shape)} where {tuple(rows.shape)} was expected")
    if isinstance(answer, Solutions):
        shapes = [tuple(part.shape) for part in (answer.status, answer.objective, answer.bound)]
        if shapes != [(len(rows),)] * 3:
            raise ValueError(f"the solver's status, objective and bound have shapes {shapes}, expected ({len(rows)},)")
    return z.to(rows)


def _rebuild(recipe: Recipe, problem: Problem, settings: dict[str, Any]) -> Solver:
    return Solver(recipe, problem, **settings)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _all_rows(count: int) -> tuple[list[int], list[int]]:
    return list(range(count)), list(range(count))


def _to_tensors(answers: Answers, rows: Tensor) -> _Solved:
    status, objective, bound = (
        torch.as_tensor(values).to(rows.device) for values in (answers.status, answers.objective, answers.bound)
    )
    return _Solved(rows, to_device(answers.z, like=rows), status, objective, bound, answers.errors)


def _solutions(batch: tuple[int, ...], theta: Tensor, solved: _Solved, counts: dict[str, float]) -> Solutions:
    computed = (solved.rows.double() * solved.z.double()).flatten(1).sum(dim=1)
    objective = torch.where(solved.objective.isnan(), computed, solved.objective)
    unproved = torch.where(solved.status == Status.OPTIMAL, objective, torch.inf)
    return Solutions(
        z=solved.z.reshape(theta.shape),
        status=solved.status.reshape(batch),
        objective=objective.reshape(batch),
        bound=torch.where(solved.bound.isnan(), unproved, solved.bound).reshape(batch),
        seconds=counts["seconds"],
        stats=counts,
    )
