"""What a layer notices about its backward passes: rows that no step moves."""

from __future__ import annotations

import warnings
from itertools import groupby
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem

_WATCHED_STEPS: Final = 100
_COUNTED: Final = 1 << 18
"""Entries that are counted at a time, about, so that what it takes meanwhile stays small."""

_WAITING: Final = 4096
"""Entries up to which a backward pass waits to be counted together with others: one by one, counting costs more."""


_Step = tuple["Tensor", "Tensor", "Tensor", "Problem | None"]
"""A difference, a gradient and the answers of one backward pass, and what was solved."""


class Monitor:
    """Counts rows whose step changed nothing although it could have, and warns once when they are most."""

    def __init__(self) -> None:
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
            self._gather()

    def counts(self) -> dict[str, float]:
        """Return the counts so far; reading them changes none, nor when a warning comes."""
        improvable, dead = self._recent()
        return {"improvable": self._totals[0] + improvable, "dead": self._totals[1] + dead}

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

    def _recent(self) -> tuple[float, float]:
        """Return how many rows could improve, and were dead, since they were last gathered."""
        self._count_waiting()
        improvable, dead = (float(sum(map(float, counts))) for counts in (self._improvable, self._dead))
        return improvable, dead

    def _gather(self) -> None:
        improvable, dead = self._recent()
        self._totals = [self._totals[0] + improvable, self._totals[1] + dead]
        self._improvable.clear()
        self._dead.clear()
        if not self._warned and dead > improvable / 2:
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
