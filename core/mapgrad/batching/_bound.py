"""A solver at work on one problem: from a user's batch to answers, rows that fail included."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._answers import Answers, Solved
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
from mapgrad.batching._workers import Pool
from mapgrad.errors import InfeasibleError, RowsError, SolverCrashError, SolveTimeoutError, UnboundedError
from mapgrad.problems import IntegerProgram, batch_shape
from mapgrad.solvers import BatchSolver, InstanceSolver, Recipe, Solutions, Status

if TYPE_CHECKING:
    from mapgrad.problems import Problem

ErrorPolicy = Literal["raise", "incumbent"]

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


class Bound:
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
        if isinstance(self.problem, IntegerProgram) and self.problem.endless.any():
            fresh.refuse_inexact(self.problem.endless, rows.dtype)
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
