"""What a layer notices about its passes: rows that no step moves, or that its problem's domain cuts off."""

from __future__ import annotations

import warnings
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from mapgrad.batching import name_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from mapgrad.batching import Record
    from mapgrad.gradients._noise import Noise
    from mapgrad.problems import Problem

_WATCHED_STEPS: Final = 100
_COUNTED: Final = 1 << 18
"""Entries that are counted at a time, about, so that what it takes meanwhile stays small."""

_WAITING: Final = 4096
"""Entries up to which a backward pass waits to be counted together with others: one by one, counting costs more."""


_WATCHED_PASSES: Final = 50
_NEARLY_ALL: Final = 0.95

_Step = tuple["Tensor", "Tensor", "Tensor", "Problem | None"]
"""A difference, a gradient and the answers of one backward pass, and what was solved."""


class Clipping(NamedTuple):
    """What may have moved rows into a domain.

    Attributes:
        problem: Whose domain it is.
        noise: The law of the noise; None for none.
        utilities: [B, *shape], the rows without it.
        is_cost: Whether the layer's input are costs.
    """

    problem: Problem
    noise: Noise | None
    utilities: Tensor
    is_cost: bool

    def explain(self) -> str:
        """Return why they were moved, and what to do."""
        named = f"{name_problem(self.problem)} is defined for {self.problem.domain.value}"
        inside = self.problem.domain.contains(self.utilities).flatten(1).all(dim=1)
        if self.noise is not None and bool(inside.double().mean() > 0.5):
            return f"{named}, and the noise {self.noise!r} pushes θ out: take noise=None, or a smaller temperature"
        if self.is_cost:
            return f"{named}, that is for costs ≥ 0: let the network end so, with softplus for example"
        return f"{named}: is minimize=True forgotten? Without it, what the layer is given are utilities, −costs"


class Monitor:
    """Counts rows, and warns once about each thing that makes most of them useless.

    Attributes:
        last: What the last forward pass answered; None after one that failed or that somebody traced.
        clipped_backward: How many rows of backward passes were moved into the domain.
    """

    def __init__(self) -> None:
        self.last: Record | None = None
        self.clipped_backward = 0
        self._passes = self._rows = 0
        self._clipped = self._clipped_before = 0
        self._warned_of_clipping = False
        self._waiting: list[_Step] = []
        self._improvable: list[Tensor] = []
        self._dead: list[Tensor] = []
        self._totals = [0.0, 0.0]
        self._steps = 0
        self._warned = False

    def observe(self, difference: Tensor, gradient: Tensor, z: Tensor, problem: Problem | None) -> None:
        """Count the rows of a backward pass; nothing waits for the device before many steps have come together.

        Args:
            difference: [S, B, *shape], of the answers.
            gradient: [S or 1, B, *shape], the loss's.
            z: [S, B, *shape], the forward pass's answers.
            problem: What bounds them.
        """
        self._steps += 1
        entries = difference.numel()
        if 0 < entries <= _WAITING:
            self._waiting.append((difference, gradient, z.clone(), problem))  # users may write to a layer's output
        elif entries:
            rows = difference.shape[1]
            step = max(_COUNTED * rows // entries, 1)
            for part in (slice(start, start + step) for start in range(0, rows, step)):
                self._count(difference[:, part], gradient[:, part], z[:, part], problem)
        if self._steps % _WATCHED_STEPS == 0:
            self._gather(warn=True)

    def finds_clipped(self, record: Record) -> bool:
        """Count the clipped rows of a forward pass; tell, once, that nearly all of many passes were."""
        self._passes += 1
        self._rows += record.rows
        self._clipped += record.clipped
        if self._passes % _WATCHED_PASSES:
            return False
        clipped = self._clipped - self._clipped_before
        found = clipped > _NEARLY_ALL * self._rows and not self._warned_of_clipping
        self._rows, self._clipped_before = 0, self._clipped
        self._warned_of_clipping |= found
        return found

    @staticmethod
    def warn_of_clipping(suspects: Iterable[Clipping | None]) -> None:
        """Warn that nearly all rows of many forward passes were clipped, as the first suspect explains it."""
        reasons = (each.explain() for each in suspects if each is not None)
        warnings.warn(
            f"nearly all rows of the last {_WATCHED_PASSES} forward passes were clipped into their problem's domain, "
            f"which loses what θ says there: {next(reasons, 'other problems than those of the last pass have one')}",
            stacklevel=2,
        )

    def counts(self) -> dict[str, float]:
        """Return the counts so far."""
        self._gather(warn=False)
        return {
            "clipped": self._clipped,
            "clipped_backward": self.clipped_backward,
            "improvable": self._totals[0],
            "dead": self._totals[1],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def _count_waiting(self) -> None:
        for (problem, *_), steps in groupby(self._waiting, lambda step: (step[3], step[0].shape, step[1].shape)):
            difference, gradient, z = (torch.cat(tensors, dim=1) for tensors in list(zip(*steps, strict=True))[:3])
            self._count(difference, gradient, z, problem)
        self._waiting.clear()

    def _count(self, difference: Tensor, gradient: Tensor, z: Tensor, problem: Problem | None) -> None:
        moved = difference.flatten(2).abs().amax(dim=2) != 0
        lower, upper = z.aminmax() if problem is None else (_finite(bound, z) for bound in problem.bounds)
        # to first order, some state within the bounds is better where g (z − lower) or g (z − upper) is positive
        gain = (z - lower).mul_(gradient)
        gain = torch.maximum(gain, (z - upper).mul_(gradient), out=gain)
        improvable = gain.flatten(2).amax(dim=2) > 0
        self._improvable.append(improvable.sum())
        self._dead.append((improvable & ~moved).sum())

    def _gather(self, *, warn: bool) -> None:
        self._count_waiting()
        improvable, dead = (float(sum(map(float, counts))) for counts in (self._improvable, self._dead))
        self._totals = [self._totals[0] + improvable, self._totals[1] + dead]
        self._improvable.clear()
        self._dead.clear()
        if warn and not self._warned and dead > improvable / 2:
            self._warned = True
            warnings.warn(
                f"in the last {_WATCHED_STEPS} backward passes {dead / improvable:.0%} of the rows that could improve "
                f"got a zero gradient: the step is too short to change their answers, or the loss is the same for all "
                f"states. Take target=RelativeStep(1.0), which no scale of θ or of the loss affects, or a larger λ (a "
                f"loss that is a mean over the batch divides a fixed step by the batch size)",
                stacklevel=2,
            )


def _finite(bound: Tensor, z: Tensor) -> Tensor:
    """Return a bound as a tensor like z, cut where it is infinite: 0 · ∞ isn't 0."""
    limits = torch.finfo(z.dtype)
    return bound.to(z).clamp(limits.min, limits.max)
