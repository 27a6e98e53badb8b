"""Noise, seeds and ids: the noise of a pass is a function of its key, so that it needn't be kept."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.errors import ShapeError
from mapgrad.gradients._counter import can_repeat, counter_noise, mix

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise

_KEPT: Final = 1 << 16
"""Entries up to which noise is kept for the backward pass, as drawing it again would cost more than its memory."""

_ELEMENT: Final = 1 << 40
"""Lies between the ids of one row in two elements of a map."""


class KeyStream:
    """Gives each training pass the key of its noise.

    Args:
        seed: None draws keys from torch's default generator for the CPU; an int makes a key a function of (seed, step).

    Attributes:
        seed: As given.
        step: How many keys a seed has given.
    """

    def __init__(self, seed: int | None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"seed must be an int or None, got {seed!r}")
        self.seed = seed
        self.step = 0

    def next(self) -> int:
        """Return the key of the coming pass."""
        if self.seed is None:
            return int(torch.empty((), dtype=torch.int64, device="cpu").random_())
        key = mix(self.seed, self.step)
        self.step += 1
        return key


class Sampler:
    """The noise of one pass, [S, B, *shape].

    Args:
        noise: The law; None for no noise.
        key: What the noise is a function of, beside row, sample and entry.
        samples: S.
        lead: Mapped and batch dimensions, B elements in all.
        event: The shape of a row.
        mapped: For each mapped dimension, which come first in `lead`, whether its elements get noise of their own.
        ids: Integers for the rows of the other dimensions, which stand for them in the noise; None for their places.
        rows: (start, stop) of the rows that this sampler is for; None for all.
        kept: Where noise is kept, shared by the samplers of all parts of a batch; None for a place of its own.
    """

    def __init__(
        self,
        noise: Noise | None,
        key: int,
        samples: int,
        lead: tuple[int, ...],
        event: tuple[int, ...],
        *,
        mapped: tuple[bool, ...] = (),
        ids: Tensor | None = None,
        rows: tuple[int, int] | None = None,
        kept: list[Tensor] | None = None,
    ) -> None:
        self.samples = samples
        self._noise, self._key = noise, key
        self._lead, self._event = lead, event
        self._mapped, self._ids = mapped, ids
        self._rows = (0, math.prod(lead)) if rows is None else rows
        self._kept: list[Tensor] = [] if kept is None else kept

    def unrepeatable(self, like: Tensor) -> Tensor | None:
        """Return the noise [S, B, *shape] of this pass, of a dtype and device, if its law doesn't give it again."""
        if self._noise is None or can_repeat(self._noise):
            return None
        if not self._kept:
            self._kept.append(self._drawn(self._noise, like))
        return self._kept[0]

    def keep(self, noise: Tensor) -> None:
        """Take noise [S, B, *shape] that was drawn before."""
        self._kept.append(noise)

    def part(self, start: int, stop: int) -> Sampler:
        """Return the sampler of some rows."""
        return Sampler(
            self._noise,
            self._key,
            self.samples,
            self._lead,
            self._event,
            mapped=self._mapped,
            ids=self._ids,
            rows=(start, stop),
            kept=self._kept,
        )

    def perturb(self, theta: Tensor, temperature: float) -> Tensor:
        """Return θ + τε_s for each sample s.

        Args:
            theta: [B, *shape], [S or 1, B, *shape] or [..., S or 1, B, *shape], utilities; not written to.
            temperature: τ.

        Returns:
            [..., S, B, *shape], with the same noise for each leading element; without noise, a view of θ.
        """
        if theta.ndim == len(self._event) + 1:
            theta = theta.unsqueeze(0)
        if self._noise is None or temperature == 0:
            place = theta.ndim - len(self._event) - 2
            return theta.expand(*theta.shape[:place], self.samples, *theta.shape[place + 1 :])
        noise, is_fresh = self._draw(self._noise, theta)
        if not is_fresh or noise.ndim < theta.ndim:
            return theta + temperature * noise
        return (noise if temperature == 1 else noise.mul_(temperature)).add_(theta)

    @property
    def has_noise(self) -> bool:
        """Whether there is any."""
        return self._noise is not None

    def noise_std(self, theta: Tensor) -> float | Tensor:
        """Return the standard deviation of the noise.

        Args:
            theta: [B, *shape], utilities.

        Returns:
            What the law says of itself; else that of the noise of each row, [1, B, 1, …] like θ.
        """
        if self._noise is None:
            return 0.0
        known = getattr(self._noise, "std", None)
        if known is not None:
            return float(known)
        noise = self._draw(self._noise, theta)[0]
        return noise.var(dim=(0, *range(2, noise.ndim)), correction=0, keepdim=True).sqrt()

    def _draw(self, law: Noise, like: Tensor) -> tuple[Tensor, bool]:
        """Return ε [S, rows of this part, *shape], and whether it may be written to."""
        start, stop = self._rows
        if not self._kept:
            count = math.prod(self._lead)
            repeats = can_repeat(law)
            if repeats and self.samples * count * math.prod(self._event) > _KEPT:
                return self._counted(law, like, start, stop), True
            self._kept.append(self._counted(law, like, 0, count) if repeats else self._drawn(law, like))
        return self._kept[0][:, start:stop], False

    def _counted(self, law: Noise, like: Tensor, start: int, stop: int) -> Tensor:
        ids = self._numbers()
        if ids is not None:
            ids = ids[start:stop]
        elif start > 0:
            ids = torch.arange(start, stop, device="cpu")
        shape = self.samples, stop - start, *self._event
        return counter_noise(
            law, self._key, shape, event_ndim=len(self._event), dtype=like.dtype, device=like.device, rows=ids
        )

    def _drawn(self, law: Noise, like: Tensor) -> Tensor:
        """Return the whole noise of a law that must be asked for all rows at once, as it doesn't give them again."""
        if self._ids is not None:
            return self._drawn_each(law, like)
        shape = self.samples, *self._distinct(), *self._event
        noise = _asked(law, shape, self._key, like, event_ndim=len(self._event))
        return noise.expand(self.samples, *self._lead, *self._event).reshape(self.samples, -1, *self._event)

    def _drawn_each(self, law: Noise, like: Tensor) -> Tensor:
        """Return noise of which each row is a function of what stands for it."""
        shape = self.samples, 1, *self._event
        numbers = self._numbers()
        assert numbers is not None
        return torch.cat(
            [_asked(law, shape, mix(self._key, int(number)), like, event_ndim=len(self._event)) for number in numbers],
            dim=1,
        )

    def _distinct(self) -> tuple[int, ...]:
        """Return the batch dimensions, 1 where all elements of a map share their noise."""
        return tuple(size if differs else 1 for size, differs in zip_longest(self._lead, self._mapped, fillvalue=True))

    def _numbers(self) -> Tensor | None:
        """Return what stands for the rows, [B] int64; None for 0, 1, 2 and so on."""
        if self._ids is None and all(self._mapped):
            return None
        distinct = self._distinct()
        if self._ids is None:
            numbers = torch.arange(math.prod(distinct), device="cpu").reshape(distinct)
        else:
            inner = self._lead[len(self._mapped) :]
            elements = torch.arange(math.prod(distinct[: len(self._mapped)]), device="cpu") * _ELEMENT
            numbers = (elements.unsqueeze(1) + self._ids.cpu()).reshape(*distinct[: len(self._mapped)], *inner)
        return numbers.expand(self._lead).reshape(-1)


def _asked(law: Noise, shape: tuple[int, ...], key: int, like: Tensor, *, event_ndim: int) -> Tensor:
    noise: Any = counter_noise(law, key, shape, event_ndim=event_ndim, dtype=like.dtype, device=like.device)
    if tuple(noise.shape) != shape:
        raise ShapeError(f"{law!r} drew noise of shape {tuple(noise.shape)} where {shape} was asked for")
    return noise.to(like)
