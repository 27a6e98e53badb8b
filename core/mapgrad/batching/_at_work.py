"""A solver at work on one problem: the road from rows to answers, stage after stage."""

from __future__ import annotations

import copy
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._arrivals import arriving
from mapgrad.batching._batches import ask_function, give_shape, joined, solve_batch
from mapgrad.batching._clock import Clock
from mapgrad.batching._counts import NO_COUNTS, Counts, failures
from mapgrad.batching._families import does_serve, model_key
from mapgrad.batching._forbidden import fail_unserved, refuse_forbidden, with_penalties
from mapgrad.batching._hand_over import HandOver, Paces
from mapgrad.batching._handles import new_handle
from mapgrad.batching._host import Staged
from mapgrad.batching._lowered import solve_lowered
from mapgrad.batching._perturbed import NoiseAdder
from mapgrad.batching._policy import Policy, error_of, with_values
from mapgrad.batching._proofs import Known, are_worth_it, solve_unproved
from mapgrad.batching._record import Record
from mapgrad.batching._recorded import record_rows
from mapgrad.batching._settings import POLICIES
from mapgrad.batching._theta import COMPUTED, admit, compute_dtype, exact_dtypes, require_float, require_representable
from mapgrad.errors import DomainError, NonFiniteError
from mapgrad.problems import IntegerProgram, batch_shape
from mapgrad.recording import RECORDERS
from mapgrad.solutions import Solutions
from mapgrad.solvers import BatchSolver, FunctionSolver, InstanceSolver, Limits
from mapgrad.workers import Job, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching._fallbacks import Fallbacks
    from mapgrad.batching._settings import Settings
    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverFactory
    from mapgrad.workers import Workers


class SolverAtWork:
    """A solver, a problem, and what they need to take batches.

    Args:
        factory: Makes the solver.
        problem: The feasible set; None for a function whose rows may have any shape.
        settings: What the user asked for.
        workers: Shared with the other problems of a `Solver`.
        counts: Gets what is done, likewise shared; None for counts of its own.
        paces: What handing rows over took, likewise.

    Attributes:
        proves: Whether equal and known rows are looked for.
        is_function: Whether the solver is a user's function, which gets whole batches in order.
        problems: The problem, or the B of a batch's rows, all of one family.
        policy: What becomes of rows that fail.
        adder: A solver that adds a layer's noise itself; None where it doesn't, or under a deadline.
        handle: The number under which ops find this object.
    """

    def __init__(
        self,
        factory: SolverFactory,
        problem: Problem | None,
        settings: Settings,
        workers: Workers,
        counts: Counts | None = None,
        paces: Paces | None = None,
    ) -> None:
        self.factory = factory
        self.problem = problem
        self.plugin = plugin = factory.build(problem, settings.options)
        self.traits = plugin.traits
        self._settings = settings
        self._workers = workers
        self._job = Job(uuid.uuid4().hex, factory, problem, settings.options)
        self._lowering = None if problem is None else factory.lowering(problem)
        self._runner = Runner(plugin) if isinstance(plugin, InstanceSolver) else None
        self._batch_solver = plugin if isinstance(plugin, BatchSolver) else None
        self._hand_over = None
        if self.traits.gives_up and problem is not None:

            def start(other: SolverFactory, of: Problem, limit: float | None) -> SolverAtWork:
                return SolverAtWork(other, of, replace(settings.without_options(), time_limit=limit), workers)

            self._hand_over = HandOver(factory, problem, settings.time_limit, start, paces or Paces())
        # asked here, as a compiler can't trace how the problem's bounds are found
        self._dtypes = exact_dtypes(problem)
        self.proves = self.traits.deterministic and settings.merge and are_worth_it(factory, plugin, self._lowering)
        self.is_function = isinstance(plugin, FunctionSolver)
        self.problems: Sequence[Problem | None] = (problem,)
        self._limits: Limits | None = None
        self._counts = Counts() if counts is None else counts
        self.adder: NoiseAdder | None = None
        is_native = self._lowering is not None and not self._lowering.is_lowered
        if problem is not None and self._batch_solver is not None and is_native and not self.proves:
            self.adder = NoiseAdder.of(self._batch_solver, problem, self._counts)
        self.policy = Policy(settings, factory.label, self._counts, exact=self.traits.exact)
        self.handle = new_handle(self)

    def with_context(self, context: tuple[Any, ...], named: dict[str, Any]) -> SolverAtWork:
        """Return the same function at work, called with more than θ; counts are shared.

        Args:
            context: What comes after θ.
            named: The same by name.
        """
        assert isinstance(self.plugin, FunctionSolver)
        bound = copy.copy(self)
        bound._batch_solver = self.plugin.with_context(context, named)  # noqa: SLF001 (an object of this class)
        return bound

    def under(self, settings: Settings, fallbacks: Fallbacks | None) -> SolverAtWork:
        """Return the same solver at work under other policies; native models and counts are shared.

        Args:
            settings: Of which the domain, what becomes of rows that fail, and the deadline count.
            fallbacks: Who gets rows that fail; None for nobody.
        """
        own = self._settings
        asked = {name: getattr(settings, name) for name in POLICIES}
        if fallbacks is self.policy.fallbacks and all(getattr(own, name) == asked[name] for name in asked):
            return self
        bound = copy.copy(self)
        bound._settings = replace(own, **asked)  # noqa: SLF001 (an object of this class)
        bound.adder = self.adder if settings.deadline is None else None
        label, exact = self.factory.label, self.traits.exact
        bound.policy = Policy(settings, label, self._counts, fallbacks, exact=exact)
        bound.handle = new_handle(bound)
        return bound

    def new_clock(self) -> Clock | None:
        """Return a clock that begins with a batch; None where there is no deadline."""
        return None if self._settings.deadline is None else Clock(self._settings.deadline)

    @property
    def takes_whole_batches(self) -> bool:
        """Whether rows must come in the places that they have in their batch."""
        return self.is_function or len(self.problems) > 1

    def can_serve(self, problem: Problem) -> bool:
        """Tell whether `of_siblings` takes a problem.

        Raises:
            PluginError: the solver doesn't say.
        """
        if problem == self.problem or self.problem is None or self._runner is None or not self.traits.limits:
            return problem == self.problem
        if model_key(problem) != model_key(self.problem):
            return False
        return does_serve(self._runner.solver, self.factory.lowering(problem).native, self.factory.label)

    def of_siblings(self, problems: Sequence[Problem]) -> SolverAtWork:
        """Return the same solver at work on other problems that its model serves: one for all rows, or one for each.

        B of them are of one family, and rows then come as [..., B, *shape]. Native models and counts are shared.
        """
        if len(problems) == 1 and problems[0] == self.problem:
            return self
        bound = copy.copy(self)
        bound.problem, bound.problems = problems[0], problems
        bound._dtypes = exact_dtypes(problems[0])  # noqa: SLF001 (an object of this class)
        lowerings = [self.factory.lowering(problem) for problem in problems]
        bound._lowering = lowerings[0]  # noqa: SLF001 (as above)
        natives = [lowering.native for lowering in lowerings]
        limits = [Limits.of(native) for native in natives if isinstance(native, IntegerProgram)]
        bound._limits = Limits(*map(np.stack, zip(*limits, strict=True)))  # noqa: SLF001 (as above)
        bound.proves = self.proves and len(problems) == 1
        return bound

    def lead_ndim(self, theta: Tensor, mapped: int = 0) -> int:
        """Return how many leading dimensions of θ aren't those of a row: without a problem, the first of several.

        Args:
            theta: [*mapped, *batch, *shape].
            mapped: How many dimensions come before those of a batch.
        """
        if self.problem is not None:
            return theta.ndim - len(self.problem.shape)
        return mapped + int(theta.ndim - mapped > 1)

    def require_theta(self, theta: object) -> Tensor:
        """Return θ, typed, once its dtype and shape are known to fit.

        Raises:
            TypeError: θ isn't a tensor.
            ShapeError: its shape or dtype doesn't fit the problem.
        """
        theta = require_float(theta)
        if self.problem is not None:
            batch_shape(self.problem, theta, "θ")
            if theta.dtype not in self._dtypes:
                require_representable(self.problem, theta.dtype)
        return theta

    def solve(
        self,
        rows: Tensor,
        known: Known | None = None,
        calls: int = 1,
        *,
        batch: tuple[int, ...] | None = None,
        priced: bool = False,
        may_forbid: Callable[[], Tensor] | None = None,
        clock: Clock | None = None,
    ) -> Solutions:
        """Return z and status of rows [N, *shape].

        Args:
            rows: Of any float dtype; not written to.
            known: Answers to as many rows, which aren't asked for again where they are equal.
            calls: In how many batches of equal length a function gets the rows.
            batch: The answers' batch dimensions, by which errors name rows; None for [N].
            priced: Whether objectives and bounds are asked for too.
            may_forbid: Returns bool, which entries −inf may forbid, [N, *shape] or []; only asked where rows aren't
                finite. None for all.
            clock: Of a batch of which these rows are a part; None for one of their own.

        Raises:
            NonFiniteError: rows have NaN or infinite entries that forbid nothing.
            DomainError: rows lie outside the problem's domain, under ``domain="raise"``.
            RowsError: a row has no acceptable answer, where that isn't filled in; the error carries `rows` and the
                others' `solutions`.
        """
        try:
            solutions, failed = self.try_to_solve(rows, known, calls, priced=priced, may_forbid=may_forbid, clock=clock)
        except (NonFiniteError, DomainError) as error:
            if batch is None:
                raise
            record = Record(batch)
            record.fail(error, range(len(rows)), self.policy.label, self.problems, on_error=self.policy.on_error)
        else:
            if batch is not None and len(batch) != 1:
                give_shape(solutions, batch)
            if not failed:
                return solutions
            raise error_of(
                self.policy.described(failed, solutions, self.problems), tuple(solutions.status.shape), solutions
            )
        raise record.error()

    def try_to_solve(
        self,
        rows: Tensor,
        known: Known | None = None,
        calls: int = 1,
        *,
        priced: bool = False,
        may_forbid: Callable[[], Tensor] | None = None,
        clock: Clock | None = None,
    ) -> tuple[Solutions, list[int]]:
        """Return the answers to rows, and the numbers of those for which an error is to be raised; else as `solve`."""
        started = time.perf_counter()
        priced |= RECORDERS.wants_all
        clock = self.new_clock() if clock is None else clock
        dtype = rows.dtype
        if rows.requires_grad:
            rows = rows.detach()
        rows = (rows if dtype in COMPUTED else rows.to(compute_dtype(dtype))).contiguous()
        rows, clipped, is_masked = admit(rows, self.problem, self._settings.domain, may_forbid)
        count = rows.shape[0]
        counts: dict[str, float] = {"rows": count, "clipped": clipped} if clipped else {"rows": count}
        if count == 0:
            empty = torch.empty(0, dtype=torch.int64, device=rows.device)
            solutions, is_clean = Solutions(torch.empty_like(rows), empty), True
        elif self.proves:
            solutions, is_clean = self._solve_unproved(
                rows, known, calls, clock, counts, priced=priced, is_masked=is_masked
            )
        else:
            solutions, is_clean = self._ask(rows, None, calls, clock, priced=priced, is_masked=is_masked)
            counts |= {"solves": count} | solutions.stats
        if is_masked:
            is_clean &= refuse_forbidden(solutions, rows, is_of_function=self.is_function)
        if RECORDERS.active is not None and not (is_clean and RECORDERS.active.failing):
            record_rows(self, self._settings, rows, solutions, time.perf_counter() - started)
        if solutions.z.dtype != dtype:
            solutions.z = solutions.z.to(dtype)
        failed = [] if is_clean else self.policy.failed(solutions, rows, self.problems, counts)
        if priced or failed:
            with_values(solutions, rows.masked_fill(solutions.forbidden, 0.0) if is_masked else rows)
            if solutions.variables is not None:
                solutions.variables = solutions.variables.to(rows.device)
        if failed:
            counts |= failures(solutions.status[failed])
            failed = self.policy.filled(solutions, failed, self.problems)
        counts["seconds"] = solutions.seconds = time.perf_counter() - started
        self._counts.add(counts)
        solutions.stats = {**NO_COUNTS, **counts} if priced or failed else counts
        return solutions, failed

    def _solve_unproved(
        self,
        rows: Tensor,
        known: Known | None,
        calls: int,
        clock: Clock | None,
        counts: dict[str, float],
        *,
        priced: bool,
        is_masked: bool,
    ) -> tuple[Solutions, bool]:
        """Solve the rows that no proof answers."""
        is_clean = True

        def solve(left: Tensor, near: Tensor | None) -> Solutions:
            nonlocal is_clean
            counts["solves"] = left.shape[0]
            if left.shape[0] == 0:
                return Solutions(torch.empty_like(left), torch.empty(0, dtype=torch.int64, device=left.device))
            solutions, is_clean = self._ask(left, near, calls, clock, priced=priced, is_masked=is_masked)
            counts.update(solutions.stats)
            return solutions

        if known is not None and self.problem is not None:
            known = known._replace(rows=self.problem.domain.clip(known.rows))
        return solve_unproved(rows, known, solve, counts), is_clean

    def _ask(
        self, rows: Tensor, near: Tensor | None, calls: int, clock: Clock | None, *, priced: bool, is_masked: bool
    ) -> tuple[Solutions, bool]:
        """Have rows [N, *shape], N ≥ 1, solved.

        Returns:
            The answers, and whether all rows succeeded, as in `solve_batch`.
        """
        lowering, solver = self._lowering, self._batch_solver
        if solver is None:
            near = near if self._settings.reuse else None
            if self._hand_over is None:
                return self.ask(rows, near, clock, None, priced=priced, is_masked=is_masked)
            return self._hand_over.solve(self, rows, near, clock, priced=priced, is_masked=is_masked)
        if lowering is not None and lowering.is_lowered:
            return solve_lowered(solver, lowering, rows, clock, is_masked=is_masked)
        unserved: list[int] = []
        if is_masked and not self.traits.masks:
            rows, unserved = with_penalties(rows, rows.isneginf(), self.problem)
        answers = (
            ask_function(solver, rows.chunk(calls), clock) if self.is_function else solve_batch(solver, rows, clock)
        )
        return fail_unserved(*answers, unserved) if unserved else answers

    def ask(
        self,
        rows: Tensor,
        near: Tensor | None,
        clock: Clock | None,
        patience: float | None,
        *,
        priced: bool,
        is_masked: bool,
    ) -> tuple[Solutions, bool]:
        """Have an instance solver, and no other, solve rows [N, *shape], N ≥ 1; returns what `_ask` does."""
        assert self._lowering is not None
        assert self._runner is not None
        parts: list[tuple[Staged, Tensor]] = []
        answers: list[tuple[Solutions, bool]] = []
        for numbers, given, arrived, starts in arriving(rows, near, self._workers.count):
            staged = Staged(
                arrived,
                self._lowering,
                self.traits,
                near=starts,
                seconds=self._settings.time_limit,
                reuse=self._settings.reuse,
                is_masked=is_masked,
                patience=patience,
                limits=None if self._limits is None else self._limits.of_rows(numbers),
            )
            if clock is None:
                self._workers.solve(self._runner, self._job, staged.block)
            else:
                clock.solve(self._workers, self._runner, self._job, staged.block)
            parts.append((staged, given))
            answers.append(staged.answers(given, priced=priced))
        if len(answers) == 1:
            return answers[0]
        is_clean = all(succeeded for _, succeeded in answers)
        if not is_clean:  # a failing row's error carries the values of all
            answers = [staged.answers(like, priced=True) for staged, like in parts]
        return joined([solutions for solutions, _ in answers]), is_clean

    def close(self) -> None:
        """Free the native models; a later batch makes new ones."""
        if self._runner is not None:
            self._runner.close()
            self._workers.forget(self._job.token)
        if self._hand_over is not None:
            self._hand_over.close()
