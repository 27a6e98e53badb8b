"""The noise of a pass: a function of its key and the rows' ids, so that it needn't be kept."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.errors import ShapeError
from mapgrad.gradients._counter import can_repeat, counter_noise, mix, signed
from mapgrad.gradients._quantiles import quantiles
from mapgrad.gradients._temperature import Relative
from mapgrad.solvers import CounterNoise

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature

_KEPT: Final = 1 << 20
"""Entries up to which noise is kept for the backward pass, as drawing it again would cost more than its memory."""

_ELEMENT: Final = -0x2B2AD4B0C7A5E3D1
"""Lies between a row's ids in two elements of a map, its square in a map of maps, modulo 2⁶⁴: ids seldom meet."""

_OTHERS: Final = 0x6F746865
"""Tells the key of `Sampler.others` from the step's."""


class Sampler:
    """The noise of one pass, [S, B, *shape].

    Args:
        noise: The law; None for no noise.
        key: What the noise is a function of, beside row, sample and entry; None in passes that belong to no step.
        samples: S.
        lead: Mapped and batch dimensions, B elements in all.
        event: The shape of a row.
        mapped: For each mapped dimension, which come first in `lead`, whether its elements get noise of their own.
        ids: int64 [*mapped, *batch], what stands for the rows in the noise; 1 for a mapped dimension where all elements
            have the same. None for their places, counted from `first`.
        first: What stands for the first row.
        by_row: Whether the noise of a law that must be drawn is drawn for each row and sample apart, as a function of
            them, too; always done with ids.
        rows: (start, stop) of the rows that this sampler is for; None for all.
        kept: Where noise is kept, shared by the samplers of all parts of a batch; None for a place of its own.
        scale: [B, 1, …] of all rows, what a relative temperature is relative to; None where none is asked for.
    """

    def __init__(
        self,
        noise: Noise | None,
        key: int | None,
        samples: int,
        lead: tuple[int, ...],
        event: tuple[int, ...],
        *,
        mapped: tuple[bool, ...] = (),
        ids: Tensor | None = None,
        first: int = 0,
        by_row: bool = False,
        rows: tuple[int, int] | None = None,
        kept: list[Tensor] | None = None,
        scale: Tensor | None = None,
    ) -> None:
        self.samples = samples
        self.key = key
        self._noise = noise
        self._lead, self._event = lead, event
        self._mapped, self._ids = mapped, ids
        self._first, self._by_row = first, by_row
        self._rows = (0, math.prod(lead)) if rows is None else rows
        self._kept: list[Tensor] = [] if kept is None else kept
        self._scale = scale
        self._sources: Tensor | None = None

    def unrepeatable(self, like: Tensor) -> Tensor | None:
        """Return the noise [S, B, *shape] of this pass, of a dtype and device, if its law doesn't give it again."""
        if self._noise is None or can_repeat(self._noise):
            return None
        if not self._kept:
            self._kept.append(self._drawn(self._noise, like))
        return self._kept[0]

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """The noise that is kept for the backward pass."""
        return tuple(self._kept)

    def keep(self, noise: Tensor) -> None:
        """Take noise [S, B, *shape] that was drawn before."""
        self._kept.append(noise)

    def part(self, start: int, stop: int) -> Sampler:
        """Return the sampler of some rows."""
        return self._with(self.key, self.samples, (start, stop), self._kept)

    def from_samples(self, sources: Tensor) -> Sampler:
        """Return the sampler of the same rows in which each sample has the noise of one of them, int64 [S, B]."""
        found = self.part(*self._rows)
        found._sources = sources  # noqa: SLF001 (an object of this class)
        return found

    def others(self, samples: int) -> Sampler:
        """Return the sampler of so many other noises of the same rows, independent of these."""
        return self._with(None if self.key is None else mix(self.key, _OTHERS), samples, self._rows, [])

    def _with(self, key: int | None, samples: int, rows: tuple[int, int], kept: list[Tensor]) -> Sampler:
        return Sampler(
            self._noise,
            key,
            samples,
            self._lead,
            self._event,
            mapped=self._mapped,
            ids=self._ids,
            first=self._first,
            by_row=self._by_row,
            rows=rows,
            kept=kept,
            scale=self._scale,
        )

    def row_temperatures(self, temperature: Temperature) -> float | Tensor:
        """Return τ: the number itself, or [B, 1, …] of a relative one, from the scale of the forward pass's rows.

        Raises:
            TypeError: it is relative, but the estimator's own `temperature`, for which scales are measured, isn't.
        """
        if not isinstance(temperature, Relative):
            return temperature
        if self._scale is None:
            raise TypeError(f"{temperature!r} needs an estimator whose own temperature is relative")
        return temperature.factor * self._scale[slice(*self._rows)]

    def perturb(self, theta: Tensor, temperature: Temperature) -> Tensor:
        """Return θ + τε_s for each sample s.

        Args:
            theta: [B, *shape], [S or 1, B, *shape] or [..., S or 1, B, *shape], utilities; not written to.
            temperature: τ; a relative one has the scale of the forward pass's rows, whatever θ is here.

        Returns:
            [..., S, B, *shape], with the same noise for each leading element; without noise, a view of θ.
        """
        if theta.ndim == len(self._event) + 1:
            theta = theta[None]
        if self._noise is None or temperature == 0:
            if self.samples == 1:
                return theta
            place = theta.ndim - len(self._event) - 2
            return theta.expand(*theta.shape[:place], self.samples, *theta.shape[place + 1 :])
        noise, is_fresh = self._draw(self._noise, theta)
        tau = self.row_temperatures(temperature)
        if not is_fresh or noise.ndim < theta.ndim:
            return theta + (noise if temperature == 1 else tau * noise)
        return (noise if temperature == 1 else noise.mul_(tau)).add_(theta)

    def counted(self, temperature: Temperature, device: torch.device) -> CounterNoise | None:
        """Return the noise τε_s as numbers that make it.

        None where there is none, its law has no table, its temperature is relative, or samples share noise.
        """
        if isinstance(temperature, Relative) or self._sources is not None:
            return None
        table = quantiles(self._noise, device)
        if table is None or self.key is None or temperature == 0:
            return None
        start, stop = self._rows
        if self._ids is None and not self._mapped:
            return CounterNoise(self.key, self.samples, temperature, table, first=self._first + start)
        ids = self._numbers(start, stop)
        assert ids is not None
        return CounterNoise(self.key, self.samples, temperature, table, ids.to(device).contiguous())

    @property
    def has_noise(self) -> bool:
        """Whether there is any."""
        return self._noise is not None

    def noise_std(self, theta: Tensor, temperature: Temperature) -> float | Tensor:
        """Return the standard deviation of the noise τε.

        Args:
            theta: [B, *shape], utilities.
            temperature: τ.

        Returns:
            τ times what the law says of itself, else times that of the noise of each row: a number, or [1, B, 1, …]
            like θ.
        """
        if self._noise is None:
            return 0.0
        tau = self.row_temperatures(temperature)
        if isinstance(tau, Tensor):
            tau = tau[None]
        known = getattr(self._noise, "std", None)
        if known is not None:
            return tau * _std(self._noise, known)
        noise = self._draw(self._noise, theta)[0]
        return tau * noise.var(dim=(0, *range(2, noise.ndim)), correction=0, keepdim=True).sqrt()

    def _draw(self, law: Noise, like: Tensor) -> tuple[Tensor, bool]:
        """Return ε [S, rows of this part, *shape], and whether it may be written to."""
        noise, is_fresh = self._draw_each(law, like)
        if self._sources is None:
            return noise, is_fresh
        return of_samples(noise, self._sources), True

    def _draw_each(self, law: Noise, like: Tensor) -> tuple[Tensor, bool]:
        start, stop = self._rows
        if not self._kept:
            count = math.prod(self._lead)
            repeats = can_repeat(law)
            if repeats and self.samples * count * math.prod(self._event) > _KEPT:
                return self._counted(law, like, start, stop), True
            self._kept.append(self._counted(law, like, 0, count) if repeats else self._drawn(law, like))
        return self._kept[0][:, start:stop], False

    def _counted(self, law: Noise, like: Tensor, start: int, stop: int) -> Tensor:
        assert self.key is not None
        shape = self.samples, stop - start, *self._event
        ids = self._numbers(start, stop)
        return counter_noise(
            law, self.key, shape, event_ndim=len(self._event), dtype=like.dtype, device=like.device, rows=ids
        )

    def _drawn(self, law: Noise, like: Tensor) -> Tensor:
        """Return the whole noise of a law that must be drawn, as it doesn't give it again."""
        assert self.key is not None
        if self._ids is not None or self._by_row:
            return self._drawn_each(law, like, self.key)
        shape = self.samples, *self._distinct(), *self._event
        noise = _asked(law, shape, mix(self.key, self._first) if self._first else self.key, like, self._event)
        return noise.expand(self.samples, *self._lead, *self._event).reshape(self.samples, -1, *self._event)

    def _drawn_each(self, law: Noise, like: Tensor, key: int) -> Tensor:
        """Return noise of which each row and sample is a function of what stands for them."""
        count = math.prod(self._lead)
        ids = self._numbers(0, count)
        numbers = [*range(count)] if ids is None else [int(number) for number in ids]
        if not numbers:
            return like.new_empty((self.samples, 0, *self._event))
        one = (1, 1, *self._event)
        rows = {
            number: torch.cat(
                [_asked(law, one, mix(mix(key, number), sample), like, self._event) for sample in range(self.samples)]
            )
            for number in dict.fromkeys(numbers)
        }
        return torch.cat([rows[number] for number in numbers], dim=1)

    def _distinct(self) -> tuple[int, ...]:
        """Return the batch dimensions, 1 where all elements of a map share their noise."""
        return tuple(size if differs else 1 for size, differs in zip_longest(self._lead, self._mapped, fillvalue=True))

    def _numbers(self, start: int, stop: int) -> Tensor | None:
        """Return what stands for some rows, int64; None for 0, 1, 2 and so on."""
        if self._ids is None and not self._mapped:
            first = self._first + start
            return torch.arange(first, self._first + stop, device="cpu") if first else None
        split = len(self._mapped)
        numbers = self._ids
        if numbers is None:
            inner = self._lead[split:]
            places = torch.arange(self._first, self._first + math.prod(inner), device="cpu")
            numbers = places.reshape(*[1] * split, *inner)
        apart = 1
        for dim, differs in enumerate(self._mapped):
            if differs:  # others are left out, as a backward pass may have more of them than its forward pass
                apart *= _ELEMENT
                if numbers.shape[dim] == 1:
                    elements = torch.arange(self._lead[dim], device=numbers.device) * signed(apart)
                    numbers = numbers + elements.reshape(-1, *[1] * (numbers.ndim - dim - 1))
        return numbers.expand(self._lead).reshape(-1)[start:stop]


def of_samples(values: Tensor, sources: Tensor) -> Tensor:
    """Return for each sample [S, B] the values [S, B, *] of the one that it names."""
    places = sources.reshape(*sources.shape, *[1] * (values.ndim - sources.ndim))
    return values.gather(0, places.expand(values.shape))


def _std(law: Noise, known: object) -> float:
    try:
        std = float(known)  # pyright: ignore[reportArgumentType] (a user's)
    except (TypeError, ValueError):
        std = math.nan
    if not 0 <= std < math.inf:
        raise ValueError(f"{type(law).__qualname__}.std must be a finite number of at least 0, got {known!r}")
    return std


def _asked(law: Noise, shape: tuple[int, ...], key: int, like: Tensor, event: tuple[int, ...]) -> Tensor:
    noise: Any = counter_noise(law, key, shape, event_ndim=len(event), dtype=like.dtype, device=like.device)
    if not isinstance(noise, Tensor):
        raise TypeError(
            f"{type(law).__qualname__}.sample must return a tensor of shape {shape}, got {type(noise).__name__}"
        )
    if tuple(noise.shape) != shape:
        raise ShapeError(f"{law!r} drew noise of shape {tuple(noise.shape)} where {shape} was asked for")
    return noise.to(like)
