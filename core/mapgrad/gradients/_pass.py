"""One pass through a layer, in both directions: an estimator sees a batch, whole or in parts."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mapgrad.batching import are_finite, full_precision, to_list
from mapgrad.errors import RowsError
from mapgrad.gradients import _solver_noise
from mapgrad.gradients._asking import Asking
from mapgrad.gradients._failing import Failing, failed_in, filled, gradient_beside, with_stand_ins
from mapgrad.gradients._forbidden import PLAIN, SolveOfForward
from mapgrad.gradients._parts import cut, is_small, merged, part_of, pieces_of
from mapgrad.gradients._some_rows import forward_of_some, solve_among_all
from mapgrad.gradients._state import joined, taken
from mapgrad.gradients.estimators import Forward
from mapgrad.gradients.estimators._checks import require_forward, require_gradient, require_state_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mapgrad.batching import Record
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.solutions import Solutions


class Pass(Asking):
    """A pass: the layer's output for θ, and the gradient for θ; made as `Asking`."""

    __slots__ = ()

    def forward(self, theta: Tensor, record: Record, *, needs_states: bool = False) -> tuple[Tensor, Forward] | None:
        """Return the layer's output and what the backward pass needs.

        Args:
            theta: [*mapped, *batch, *shape], at least float32; costs if `minimize`.
            record: Gets the answers, and the rows that failed.
            needs_states: Whether each of the S states is to be kept, whatever the batch's size.

        Returns:
            z [*mapped, *batch, *shape] or [S, *mapped, *batch, *shape], perhaps in the memory of the states; and the
            forward pass with θ [B, *shape], z [S, B, *shape] or, where the solver averages, their mean
            [1, B, *shape]. None where rows failed.
        """
        utilities, sampler = self._begin(theta)
        numbers = self._begin_record(record, utilities.shape[0])
        mean = None if needs_states else _solver_noise.average_forward(self, utilities, sampler)
        if mean is not None:
            record.defer(lambda rows: self._states(rows, sampler, numbers, record), utilities)
            return mean.z.clone().view_as(theta).detach(), mean  # a copy, as users may write to it
        forward = self._states(utilities, sampler, numbers, record)
        record.clipped += self._clipped
        if forward is None:
            return None
        forward.theta, forward.sampler = utilities, sampler
        return self._output(self._with_stand_ins(forward), theta, record), forward

    def _states(self, theta: Tensor, sampler: Sampler, numbers: Sequence[int], record: Record) -> Forward | None:
        parts = self._parts(theta, self.samples)
        if len(parts) > 1:
            return self._in_parts(theta, sampler, parts, numbers, record)
        forward = self._forward_of(theta, sampler, numbers, record)
        self._note_answers(forward, theta, numbers, record)
        return forward

    def _forward_of(self, theta: Tensor, sampler: Sampler, numbers: Sequence[int], record: Record) -> Forward | None:
        perturb = record.tallying(partial(_solver_noise.perturb_forward, self), numbers)
        failing = Failing.of(self.work)
        own = record.tallying(self._solve, numbers)
        own = own if failing is None else failing.noting(own)
        solve = SolveOfForward(own, perturb, self.estimator, theta, self.work.problem)
        try:
            with full_precision(theta):
                forward = self.estimator.forward(theta, sampler, solve)
        except RowsError as error:
            if not self._note(error, theta, sampler, numbers, record, is_backward=False):
                raise
            return None
        if type(self.estimator).forward not in PLAIN:
            require_forward(self.estimator, forward, theta, self.samples)
        if failing is not None:
            forward.status = failing.marked(forward.status, self.work)
        if not self.work.proves:
            forward.rows = None
        return forward

    def resumed(
        self, theta: Tensor, z: Tensor, status: Tensor, rows: Tensor, noise: Tensor, state: list[Tensor]
    ) -> Forward:
        """Return what `forward` did, from its tensors with all their dimensions; empty ones were left out."""
        utilities, sampler = self._begin(theta)
        self.is_masked = bool(utilities.isneginf().any())
        if noise.numel():
            sampler.keep(noise.reshape(self.samples, *utilities.shape))
        flat = (self.samples, *utilities.shape)
        has_rows = rows.numel() > 0 and not bool(rows[(0,) * rows.ndim].isposinf())
        is_whole = len(self._parts(utilities, self.samples)) == 1
        return Forward(
            z.reshape(flat),
            status.reshape(flat[:2]),
            rows.reshape(flat) if has_rows else None,
            self._taken(state, 0, 0, len(utilities)) if is_whole else tuple(state),
            utilities,
            sampler,
        )

    def whole_state(self, forward: Forward) -> Sequence[Tensor]:
        """Return the state of a forward pass as `resumed` takes it, once it is like what compilers were told."""
        theta = forward.theta
        is_whole = len(self._parts(theta, self.samples)) == 1
        state = joined([forward.state], self.lead, len(self.mapped)) if is_whole else forward.state
        if len(theta):  # a map over nothing has no state of its own to look at
            require_state_like(self.estimator, theta, self._taken(state, 0, 0, len(theta)))
        return state

    def _taken(self, state: Sequence[Tensor], number: int, start: int, stop: int) -> tuple[Tensor, ...]:
        element = 0 if self.estimator.is_rowwise else number
        return taken(state, self.lead, len(self.mapped), element=element, start=start, stop=stop)

    def _with_stand_ins(self, forward: Forward) -> Forward:
        return with_stand_ins(forward, self.work) if self.takes_any else forward

    def _output(self, forward: Forward, theta: Tensor, record: Record) -> Tensor:
        z, failed = forward.z, failed_in(self.work, forward.status)
        if failed is not None:
            is_failed = failed.any(dim=0, keepdim=True)
            record.unsolved += int(is_failed.sum())
            z = filled(z, is_failed, self.work)
        if not self.is_mean:
            return z.reshape(self.samples, *theta.shape).detach()
        # no view, but it may have the memory, and then the version, of the states that the backward pass needs
        return (z.mean(dim=0) if self.samples > 1 else z).view_as(theta).detach()

    def gradient(self, forward: Forward, gradient: Tensor, record: Record) -> Tensor | None:
        """Return the gradient for θ, of the shape that the forward pass was given; None where rows failed.

        Args:
            forward: What `forward` returned.
            gradient: ∂L/∂output.
            record: Gets the rows that failed.
        """
        self.monitor.watch(forward.theta, self.work.problem, lambda: self._noise_std(forward))
        shape = (*self.lead, *self.event)
        if not forward.theta.numel():
            return forward.theta.new_zeros(shape)
        if self.is_mean:
            rows = gradient[None] if len(self.lead) == 1 else gradient.reshape(1, -1, *self.event)
        else:
            rows = (gradient * self.samples if self.samples > 1 else gradient).reshape(self.samples, -1, *self.event)
        numbers = self._begin_record(record, forward.theta.shape[0])
        if self.is_masked:
            rows = rows.masked_fill(forward.theta.isneginf(), 0.0)
        parts = self._parts(forward.theta, len(forward.z))
        if len(parts) == 1:
            found = self._gradient_of(forward, rows, numbers, record)
        else:
            pieces = [
                self._gradient_of(part, rows[:, start:stop], numbers[start:stop], record)
                for part, start, stop in self._taken_apart(forward, parts)
            ]
            found = None if record.has_failed else torch.cat([piece for piece in pieces if piece is not None])
        self.monitor.clipped_backward += self._clipped
        if found is None:
            return None
        if self.is_masked:
            found = found.masked_fill(forward.theta.isneginf(), 0.0)
        if self.minimize:
            found = found.neg()
        return found if len(shape) == found.ndim else found.reshape(shape)

    def _noise_std(self, forward: Forward) -> float | Tensor:
        return forward.sampler.noise_std(forward.theta, self.estimator.largest_temperature)

    def _gradient_of(self, forward: Forward, gradient: Tensor, numbers: Sequence[int], record: Record) -> Tensor | None:
        """Return the gradient of some rows, without a solve for those that failed or whose ∂L/∂z isn't finite."""
        forward = self._with_stand_ins(forward)
        failed = failed_in(self.work, forward.status)
        if failed is None and are_finite(gradient):
            return self._estimated(forward, gradient, self._solve_again, numbers, record)
        found, well = gradient_beside(self.work, forward.theta, gradient, failed)
        if len(well) == 0:
            return found
        if self.work.takes_whole_batches:
            solve = solve_among_all(self._solve_again, forward, well, self.estimator.temperature)
        else:
            solve, numbers = self._solve_again, list(map(numbers.__getitem__, to_list(well)))
        part = self._estimated(forward_of_some(forward, well), gradient[:, well], solve, numbers, record)
        return None if part is None else found.index_copy_(0, well, part)

    def _estimated(
        self,
        forward: Forward,
        gradient: Tensor,
        solve: Callable[[Tensor, Forward], Solutions],
        numbers: Sequence[int],
        record: Record,
    ) -> Tensor | None:
        again, average = partial(_solver_noise.perturb_again, self), partial(_solver_noise.average_again, self)
        is_training, problem = self.is_training, self.work.problem
        failing = Failing.of(self.work, forward.z, takes_any=self.takes_any)
        solve = solve if failing is None else failing.noting(solve)
        forward.begin_backward(solve, again, average, self._observe, is_training=is_training, problem=problem)
        try:
            with full_precision(gradient):
                found = self.estimator.gradient(forward, gradient)
        except RowsError as error:
            if not self._note(error, forward.theta, forward.sampler, numbers, record, is_backward=True):
                raise
            return None
        require_gradient(self.estimator, found, forward.theta)
        if failing is not None and failing.rows is not None:
            self.monitor.unsolved_backward += int(failing.rows.sum())
            found = found.masked_fill(failing.rows.reshape(-1, *[1] * len(self.event)), 0.0)
        return found

    def _parts(self, theta: Tensor, states: int) -> list[tuple[int, int]]:
        """Return where the rows, with so many states each, are cut into parts that an estimator sees one by one."""
        states += self.estimator.copies
        if not self.mapped and is_small(theta, states):
            return [(0, theta.shape[0])]
        if not self.estimator.is_rowwise:  # each element of a map is a batch of its own
            return cut(theta.shape[0], math.prod(self.lead[: len(self.mapped)]))
        is_whole = self.work.takes_whole_batches or self.work.proves
        return cut(theta.shape[0], 1 if is_whole else pieces_of(theta, states))

    def _in_parts(
        self, theta: Tensor, sampler: Sampler, parts: list[tuple[int, int]], numbers: Sequence[int], record: Record
    ) -> Forward | None:
        z = theta.new_empty((self.samples, *theta.shape))
        found: list[Forward] = []
        for start, stop in parts:
            part = self._forward_of(theta[start:stop], sampler.part(start, stop), numbers[start:stop], record)
            if part is not None:
                z[:, start:stop] = part.z
                part.z, part.theta = z[:, start:stop], theta[start:stop]
                self._note_answers(part, part.theta, numbers[start:stop], record)
                found.append(part)
        if len(found) < len(parts):
            return None
        state = joined([part.state for part in found], self.lead, len(self.mapped))
        return merged(found, z, state)

    def _taken_apart(self, forward: Forward, parts: list[tuple[int, int]]) -> Iterator[tuple[Forward, int, int]]:
        for number, (start, stop) in enumerate(parts):
            yield part_of(forward, start, stop, self._taken(forward.state, number, start, stop)), start, stop
