"""What a layer notices about its passes: rows that no step moves, that a domain cuts off, or whose scale runs away."""

from __future__ import annotations

import warnings
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import torch
from torch import Tensor

from mapgrad.batching import name_problem, to_list, users_level
from mapgrad.gradients._scale import counted, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mapgrad.batching import Record
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients.estimators import Estimator
    from mapgrad.problems import Problem

_WATCHED_STEPS: Final = 100
_LOOKED_AT: Final = 8192
"""Entries of a backward pass that are looked at, and wait to be counted together with others: one by one, that costs
more. All of a large batch would cost as much as a few noises."""

_FEWEST: Final = 16
"""Rows that are looked at in any case, as they are compared with each other."""

_COMPARED: Final = 32
"""States that a row is compared with, which costs as much as a few elementwise operations."""

_WATCHED_PASSES: Final = 50
_NEARLY_ALL: Final = 0.95

_FAR: Final = 1000.0
"""How many times larger or smaller the scale of θ may become before a warning."""

_FROM_NOISE: Final = 100.0
"""How many times larger or smaller than the noise it must then be."""

_norm = cast("Callable[..., Tensor]", torch.linalg.vector_norm)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
_split = cast("Callable[[Tensor, list[int]], tuple[Tensor, ...]]", torch.split)


class _Seen(NamedTuple):
    """What was looked at in one backward pass, or in several alike.

    Attributes:
        values: [d + g + s, N, *shape]: differences, gradients and answers of N rows.
        sizes: d, g and s.
        problem: Whose answers they are.
        share: Which share of all rows they are.
    """

    values: Tensor
    sizes: list[int]
    problem: Problem | None
    share: float


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

    A row counts as improvable where another answer of the same problem, of those that came up beside it, serves it
    better to first order. So a row that is right counts for no feasible set, whatever its constraints; one that only
    unseen states would serve better is missed. Of a pass of more than 8,192 entries some rows stand for all, evenly
    apart and other ones each time.

    Attributes:
        last: What the last forward pass answered; None after one that failed or that somebody traced.
        scale: The median spread of rows of θ in the last backward pass that was looked at; None before one.
        clipped_backward: How many rows of backward passes were moved into the domain.
        unsolved: How many rows of forward passes failed and were filled in.
        unsolved_backward: How many rows failed in backward passes alone, and got a gradient of 0.
    """

    def __init__(self) -> None:
        self.last: Record | None = None
        self.clipped_backward = 0
        self.unsolved = self.unsolved_backward = 0
        self._passes = self._rows = 0
        self._clipped = self._clipped_before = 0
        self._warned_of_clipping = False
        self._waiting: list[_Seen] = []
        self._counted: list[Tensor] = []
        self._totals = [0.0, 0.0]
        self._window = [0.0] * 6
        self._steps = 0
        self._warned = False
        self.scale: float | None = None
        self._first_scales = (0.0, 0.0)
        self._backwards = 0
        self._warned_of_scale = False

    def observe(
        self, difference: Tensor, gradient: Tensor, z: Tensor, problem: Problem | None, estimator: Estimator
    ) -> None:
        """Count rows of a backward pass; nothing waits for the device before many steps have come together.

        Args:
            difference: [S, B, *shape], of the answers.
            gradient: [S or 1, B, *shape], the loss's.
            z: [S, B, *shape], the forward pass's answers.
            problem: Whose answers they are.
            estimator: What a warning gives advice on.
        """
        self._steps += 1
        entries, rows = difference.numel(), difference.shape[1]
        if entries:
            parts = [difference, gradient, z]
            apart = max(min(-(-entries // _LOOKED_AT), rows // _FEWEST), 1)
            if apart > 1:
                parts = [values[:, self._steps % apart :: apart] for values in parts]
            # a copy, as users may write to a layer's output, and what is looked at shouldn't hold the rest
            values = torch.cat(parts)
            seen = _Seen(values, [len(each) for each in parts], problem, values.shape[1] / rows)
            if parts[0].numel() <= _LOOKED_AT:
                self._waiting.append(seen)
            else:
                self._count(seen)
        if self._steps % _WATCHED_STEPS == 0:
            self._gather(estimator)

    def watch(self, theta: Tensor, problem: Problem | None, noise_std: Callable[[], float | Tensor]) -> None:
        """Look at the scale of θ, once in many backward passes, and warn once where it has run away.

        Args:
            theta: [B, *shape], utilities.
            problem: What is solved.
            noise_std: Returns the standard deviation of what perturbs it; a tensor where rows have their own.
        """
        self._backwards += 1
        if self._backwards % _WATCHED_STEPS or not theta.numel():
            return
        some = theta[:: -(-theta.numel() // _LOOKED_AT)]
        event_ndim = theta.ndim - 1
        self.scale = now = float(spread(some, event_ndim, problem, counted(some, event_ndim, problem)).median())
        # with what counts as masked, too: a peaked softmax has most entries next to 0, and is no smaller for it
        whole = float(spread(some, event_ndim, problem, some.isfinite().to(some)).median())
        if not all(self._first_scales):
            self._first_scales = now, whole
        first, first_whole = self._first_scales
        has_fallen = now * _FAR < first and whole * _FAR < first_whole
        has_risen = now > first * _FAR and whole > first_whole * _FAR
        if self._warned_of_scale or not (has_fallen or has_risen):
            return
        size = noise_std()
        if isinstance(size, Tensor) or not size:
            effect = "its gradient grows as it shrinks" if has_fallen else "its gradient shrinks as it grows"
        elif size / _FROM_NOISE < now < size * _FROM_NOISE:
            return
        else:
            effect = f"noise of {size:.2g} {'drowns it' if has_fallen else 'changes hardly an answer any more'}"
        self._warned_of_scale = True
        warnings.warn(
            f"the scale of θ {'fell' if has_fallen else 'rose'} from {first:.2g} to {now:.2g} within "
            f"{self._backwards - _WATCHED_STEPS} backward passes, and {effect}: a loss of the answers alone doesn't "
            f"hold it, as θ and 2 θ have the same ones. Pass normalize=True to the layer, which divides each row by "
            f"its own spread, or add to the loss what holds θ, such as its distance to true values",
            stacklevel=users_level(),
        )

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
            stacklevel=users_level(),
        )

    def counts(self) -> dict[str, float]:
        """Return the counts so far; reading them changes none, nor when a warning comes."""
        recent = self._recent()
        counts = {
            "clipped": self._clipped,
            "clipped_backward": self.clipped_backward,
            "unsolved": self.unsolved,
            "unsolved_backward": self.unsolved_backward,
            "improvable": self._totals[0] + recent[0],
            "dead": self._totals[1] + recent[1],
        }
        zeros, entries, power, noise = (
            now + before for now, before in list(zip(recent, self._window, strict=True))[2:]
        )
        if entries:
            counts["sparsity"] = zeros / entries
        if noise:
            counts["snr"] = max(power / noise - 1, 0.0)
        if self.scale is not None:
            counts["scale"] = self.scale
        return counts

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def _count_waiting(self) -> None:
        for _, group in groupby(self._waiting, _alike):
            alike = list(group)
            self._count(alike[0]._replace(values=torch.cat([seen.values for seen in alike], dim=1)))
        self._waiting.clear()

    def _count(self, seen: _Seen) -> None:
        difference, gradient, z = _split(seen.values.flatten(2), seen.sizes)
        moved = _norm(difference, dim=2) != 0
        count = z.shape[0] * z.shape[1]
        others = z.reshape(count, -1)[:: -(-count // _COMPARED)]
        best = (gradient @ others.T).amin(dim=2)
        rounding = gradient.abs().sum(dim=2) * (64 * torch.finfo(z.dtype).eps * others.abs().max())
        improvable = (z * gradient).sum(dim=2) - best > rounding
        mean = difference.mean(dim=0) if len(difference) > 1 else difference[0]
        entries = mean.numel()
        found = [
            improvable.sum(),
            (improvable & ~moved).sum(),
            entries - mean.count_nonzero(),
            mean.new_full((), entries),
        ]
        if len(difference) > 1:
            found += [mean.square().sum(), difference.var(dim=0).sum() / len(difference)]
        self._counted.append(torch.stack([each.double() for each in found]) / seen.share)

    def _recent(self) -> list[float]:
        """Return what was counted since it was last gathered.

        These are the rows that could improve, those of them that were dead, the zeros among the entries of the samples'
        mean difference, these entries, and, of several samples, the square of that mean and of its standard error.
        """
        self._count_waiting()
        counts = [0.0] * 6
        for each in self._counted:
            for place, count in enumerate(to_list(each)):
                counts[place] += count
        return counts

    def _gather(self, estimator: Estimator) -> None:
        self._window = self._recent()
        improvable, dead, *_ = self._window
        self._totals = [self._totals[0] + improvable, self._totals[1] + dead]
        self._counted.clear()
        if not self._warned and dead > improvable / 2:
            self._warned = True
            warnings.warn(
                f"in the last {_WATCHED_STEPS} backward passes {dead / improvable:.0%} of the rows that could improve "
                f"got a zero gradient: {estimator.advice}",
                stacklevel=users_level(),
            )


def _alike(seen: _Seen) -> tuple[Any, ...]:
    """Return what is in common to passes that can be counted together: all but the number of rows."""
    values = seen.values
    return seen.problem, seen.sizes, values.shape[2:], values.dtype, values.device, seen.share
