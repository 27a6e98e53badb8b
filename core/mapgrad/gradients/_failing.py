"""Rows that fail where ``on_error`` fills them in: what estimators see in their places, and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mapgrad.gradients._sampler import of_samples
from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.batching import SolverAtWork
    from mapgrad.solutions import Solutions


def failed_in(work: SolverAtWork, status: Tensor) -> Tensor | None:
    """Tell which answers of this status failed and are filled in, bool like it; None where none are."""
    if work.policy.filling is None:
        return None
    failed = work.policy.are_unsolved(status)
    return failed if bool(failed.any()) else None


def filled(z: Tensor, failed: Tensor, work: SolverAtWork) -> Tensor:
    """Return states [S, B, *shape] with those that failed, [S or 1, B], filled in."""
    assert work.policy.filling is not None
    return z.masked_fill(_like(failed, z), work.policy.filling)


def gradient_beside(
    work: SolverAtWork, theta: Tensor, gradient: Tensor, failed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradient for θ of the rows for which nothing is solved, and which the others are.

    It is NaN where ∂L/∂z isn't finite. Where the forward pass failed, it is 0 if z is, or if ∂L/∂z is, as of a row that
    the loss leaves out; else NaN, as z is.

    Args:
        work: The solver.
        theta: [B, *shape].
        gradient: ∂L/∂z, [S or 1, B, *shape].
        failed: As from `failed_in`, [S, B].

    Returns:
        [B, *shape], to be completed, and the other rows' numbers, [N] int64.
    """
    is_well = _hold(gradient.isfinite())
    found = torch.full_like(theta, torch.nan)
    if failed is not None:
        of_row = failed.any(dim=0)
        is_well &= ~of_row
        found[of_row & (_hold(gradient == 0) | (work.policy.filling == 0))] = 0.0
    return found, is_well.nonzero().squeeze(1)


def _hold(entries: Tensor) -> Tensor:
    """Tell for which rows of [S, B, *shape] all entries are true."""
    return entries.flatten(2).all(dim=2).all(dim=0)


def with_stand_ins(forward: Forward, work: SolverAtWork) -> Forward:
    """Return a forward pass in which the next sample of its row that has an answer stands for each that failed.

    Both its state and its noise do. Rows without any answer are as they were.
    """
    failed = failed_in(work, forward.status)
    if failed is None or bool((failed.all(dim=0) == failed.any(dim=0)).all()):
        return forward
    numbers = torch.arange(len(failed), device=failed.device)
    is_well = ~failed[
        (numbers[:, None] + numbers) % len(failed)
    ]  # [s, k, B]: sample s + k, the first one of all being s
    sources = (numbers[:, None] + is_well.byte().argmax(dim=1)) % len(failed)
    return Forward(
        of_samples(forward.z, sources),
        of_samples(forward.status, sources),
        None if forward.rows is None else of_samples(forward.rows, sources),
        forward.state,
        forward.theta,
        forward.sampler.from_samples(sources),
    )


class Failing:
    """The rows that fail while an estimator solves in one direction of a pass.

    It sees a state in their places that does no harm to other rows: zeros, or that of the forward pass.

    Args:
        states: [S or 1, B, *shape], those of the forward pass; None for zeros.
        takes_any: Whether a row fails only where all of its samples do, of S > 1 in `states`.

    Attributes:
        rows: Bool [B], those that failed in any solve; None before one did.
    """

    def __init__(self, states: Tensor | None, *, takes_any: bool = False) -> None:
        self._states, self._takes_any = states, takes_any
        self._status: Tensor | None = None
        self.rows: Tensor | None = None

    @classmethod
    def of(cls, work: SolverAtWork, states: Tensor | None = None, *, takes_any: bool = False) -> Failing | None:
        """Return what notes failing rows; None where they raise."""
        return None if work.policy.filling is None else cls(states, takes_any=takes_any)

    def noting(self, solve: Callable[..., Solutions]) -> Callable[..., Solutions]:
        """Return what solves rows [..., B, *shape] and notes those that fail."""

        def run(*arguments: Any, **named: Any) -> Solutions:
            answers = solve(*arguments, **named)
            if answers.failed is not None:
                self._note(answers)
            return answers

        return run

    def _note(self, answers: Solutions) -> None:
        z: Tensor = answers.z
        failed: Tensor = answers.failed
        status = torch.where(failed, answers.status, -1).reshape(-1, failed.shape[-1]).amax(dim=0)
        if self._takes_any and self._states is not None and failed.shape[-2:-1] == self._states.shape[:1]:
            of_sample = failed.reshape(-1, *failed.shape[-2:]).any(dim=0)  # on either side of a step
            failed = of_sample.expand(failed.shape)
            status = torch.where(of_sample.all(dim=0), status, -1)
        if self.rows is None or self._status is None:
            self.rows, self._status = status >= 0, status
        else:
            self._status = torch.where(self.rows, self._status, status)
            self.rows = self.rows | (status >= 0)
        if self._states is None:
            answers.z = z.masked_fill(_like(failed, z), 0.0)
            return
        states = self._states
        if z.ndim < states.ndim or len(states) not in (1, z.shape[-states.ndim]):  # of other samples
            states = states[0]
        answers.z = torch.where(_like(failed, z), states, z)

    def marked(self, status: Tensor, work: SolverAtWork) -> Tensor:
        """Return the status [S, B] of a forward pass, in which each row shows whether any of its solves failed."""
        if self.rows is None or self._status is None:
            return status
        is_hidden = self.rows & ~work.policy.are_unsolved(status).any(dim=0)
        return torch.where(is_hidden, self._status, status)


def _like(failed: Tensor, z: Tensor) -> Tensor:
    return failed.reshape(*failed.shape, *[1] * (z.ndim - failed.ndim))
