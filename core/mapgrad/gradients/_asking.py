"""What a pass through a layer has, and what it asks of its solver, for both of its directions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mapgrad.batching import Known
from mapgrad.gradients import _solver_noise
from mapgrad.gradients._culprits import blamed
from mapgrad.gradients._failing import failed_in, filled
from mapgrad.gradients._forbidden import SPARING
from mapgrad.gradients._monitor import Clipping
from mapgrad.gradients._row_ids import first_id
from mapgrad.gradients._sampler import Sampler
from mapgrad.gradients._temperature import scale_for
from mapgrad.problems import Domain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import Clock, Record, SolverAtWork
    from mapgrad.errors import RowsError
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._owner import Owner
    from mapgrad.gradients.estimators import Forward
    from mapgrad.solutions import Solutions

_NONE: Final = torch.tensor(False, device="cpu")
"""That −inf may forbid no entry."""


class Asking:
    """What both directions of one pass need beside tensors, and how they ask the solver.

    Args:
        owner: The layer.
        work: The solver at work.
        key: The step's key, a number or []; None for a pass that belongs to no step, and has no noise.
        samples: S.
        is_mean: Whether the mean over the samples comes out, or all of them.
        mapped: For each leading dimension that torch.vmap maps, whether its elements get noise of their own.
        ids: int64, what stands for a row in the noise: [*mapped, *batch], with 1 for a mapped dimension where all
            elements have the same; None for its rank and place.
        numbers: [B], those of the rows in the user's batch, where this pass has some of them only.

    Attributes:
        lead: Mapped and batch dimensions of θ, once a direction has begun.
        event: The shape of a row, likewise.
        noise: The law of the noise; None for none.
        is_masked: Whether θ forbids entries by −inf, once the forward pass has solved some rows.
    """

    __slots__ = (
        "_clipped", "_clock", "_numbers", "by_row", "estimator", "event", "first", "ids", "is_masked", "is_mean",
        "is_training", "key", "lead", "mapped", "minimize", "monitor", "noise", "samples", "work",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        work: SolverAtWork,
        key: int | Tensor | None,
        *,
        samples: int,
        is_mean: bool,
        mapped: tuple[bool, ...] = (),
        ids: Tensor | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        # taken now: a backward pass goes on as its forward pass began, whatever becomes of the layer
        self.estimator, self.monitor = owner.estimator, owner.monitor
        self.minimize, self.is_training = owner.minimize, owner.training
        self.work = work
        self.key = None if key is None else int(key)
        self.noise: Noise | None = None if key is None else self.estimator.noise_for(work.problem)
        self.samples, self.is_mean = samples, is_mean
        self.mapped, self.ids, self._numbers = mapped, ids, numbers
        self.first = first_id() if self.noise is not None and ids is None else 0
        self.by_row = owner.keys.seed is not None
        self.is_masked = False
        self._clipped = 0
        self._clock: Clock | None = None
        self.lead: tuple[int, ...] = ()
        self.event: tuple[int, ...] = ()

    @property
    def takes_any(self) -> bool:
        """Whether a row has an answer where any of its samples has one: if what failed is that sample's one solve."""
        return self.work.policy.takes_any and type(self.estimator).forward in SPARING

    def _begin(self, theta: Tensor) -> tuple[Tensor, Sampler]:
        """Return utilities [B, *shape], and their noise."""
        split = self.work.lead_ndim(theta, len(self.mapped))
        self.lead, self.event = tuple(theta.shape[:split]), tuple(theta.shape[split:])
        utilities = theta.neg() if self.minimize else theta
        if split != 1:
            utilities = utilities.reshape(-1, *self.event)
        scale = None
        if self.noise is not None:
            scale = scale_for(self.estimator.temperature, utilities, len(self.event), self.work.problem)
        sampler = Sampler(
            self.noise,
            self.key,
            self.samples,
            self.lead,
            self.event,
            mapped=self.mapped,
            ids=self.ids,
            first=self.first,
            by_row=self.by_row,
            scale=scale,
        )
        return utilities, sampler

    def _begin_record(self, record: Record, count: int) -> Sequence[int]:
        """Return the numbers of the B rows in the user's batch."""
        self._clipped = 0
        record.rows += self.samples * count
        record.needs_all = not self.takes_any
        record.clock = record.clock or self.work.new_clock()
        self._clock = record.clock
        if self._numbers is not None:
            return self._numbers
        record.batch = self.lead
        return range(count)

    def _solve(self, rows: Tensor, known: Known | None = None, *, may_forbid: Callable[[], Tensor]) -> Solutions:
        shape = rows.shape
        lead = shape[: rows.ndim - len(self.event)]
        calls = 1
        if self.work.is_function:  # one sample of one mapped element at a time
            calls = max(lead.numel() // max(math.prod(self.lead[len(self.mapped) :]), 1), 1)
        flat = rows.reshape(-1, *self.event)
        solutions = self.work.solve(flat, known, calls, may_forbid=may_forbid, clock=self._clock)
        if "clipped" in solutions.stats:
            self._clipped += int(solutions.stats["clipped"])
        if solutions.forbidden is not None:
            self.is_masked = True
        solutions.z, solutions.status = solutions.z.view_as(rows), solutions.status.view(*lead)
        if solutions.failed is not None:
            solutions.failed = solutions.failed.view(*lead)
        return solutions

    def _solve_again(self, rows: Tensor, forward: Forward) -> Solutions:
        forbidden = _NONE
        if self.is_masked:  # whatever an estimator or a target makes of −inf
            forbidden = forward.theta.isneginf()
            rows = rows.masked_fill(forbidden, -torch.inf)
            forbidden = forbidden.expand(rows.shape).reshape(-1, *self.event)
        if forward.rows is None or rows.shape[rows.ndim - forward.rows.ndim] != len(forward.rows):  # of other noise
            answers = self._solve(rows, may_forbid=lambda: forbidden)
            _solver_noise.require_own_memory(answers, forward, self.work.factory.label)
            return answers
        lead = rows.shape[: rows.ndim - len(self.event)]
        known = Known(
            forward.rows.expand(rows.shape).reshape(-1, *self.event),
            forward.z.expand(rows.shape).reshape(-1, *self.event),
            forward.status.expand(lead).reshape(-1),
        )
        return self._solve(rows, known, may_forbid=lambda: forbidden)

    def _note(
        self,
        error: RowsError,
        theta: Tensor,
        sampler: Sampler,
        numbers: Sequence[int],
        record: Record,
        *,
        is_backward: bool,
    ) -> bool:
        problem = self.work.problem
        error, culprit = blamed(error, problem, self.estimator, self.noise, theta, sampler, is_backward=is_backward)
        policy = self.work.policy
        return record.fail(error, numbers, policy.label, self.work.problems, culprit, policy.on_error)

    def _note_answers(self, found: Forward | None, theta: Tensor, numbers: Sequence[int], record: Record) -> None:
        if found is not None:
            forbidden = theta.isneginf() if self.is_masked else None
            z, failed = found.z, failed_in(self.work, found.status)
            if failed is not None:
                z = filled(z, failed, self.work)
            record.add(numbers, z, found.status, forbidden, found.variables, failed)

    def _observe(self, difference: Tensor, gradient: Tensor, z: Tensor) -> None:
        self.monitor.observe(difference, gradient, z, self.work.problem, self.estimator)

    def clipping(self, theta: Tensor) -> Clipping | None:
        """Return what moves rows of θ, as `forward` takes it, into the problem's domain; None where nothing can."""
        problem = self.work.problem
        if problem is None or problem.domain is Domain.REAL:
            return None
        return Clipping(problem, self.noise, self._begin(theta.detach())[0], is_cost=self.minimize)
