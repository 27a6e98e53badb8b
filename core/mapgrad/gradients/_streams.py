"""Seeded noise as a pure function of (seed, step, row, sample), however a batch is split or moved between devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1


@runtime_checkable
class _Invertible(Protocol):
    def icdf(self, u: Tensor) -> Tensor: ...


def seeded_noise(
    noise: Noise,
    seed: int,
    step: int,
    shape: tuple[int, ...],
    event_ndim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Draw noise of shape [S, *batch, *shape] that depends on nothing but its arguments.

    A law with `icdf` gets counter-based uniforms, so that a row's noise doesn't depend on the other rows; another one
    a generator of its own, seeded from seed and step.
    """
    if not isinstance(noise, _Invertible) or not getattr(noise, "invertible", True):
        generator = torch.Generator(device).manual_seed(_mix_int(seed, step))
        return noise.sample(shape, generator=generator, dtype=dtype, device=device)
    split = len(shape) - event_ndim
    samples, batch, event = shape[:1], shape[1:split], shape[split:]
    key = _mix(_counter(samples, device).reshape(-1, 1, 1) + _signed(_mix_int(seed, step)))
    key = _mix(key + _counter(batch, device).reshape(1, -1, 1))
    bits = _mix(key + _counter(event, device).reshape(1, 1, -1))
    uniforms = ((bits >> 12) & ((1 << 52) - 1)).double().add(0.5).mul(2.0**-52)
    return noise.icdf(uniforms.reshape(shape)).to(dtype)


def _counter(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return multiples of the golden ratio, 1 for each element of a shape, as 64-bit integers."""
    return torch.arange(1, torch.Size(shape).numel() + 1, device=device) * _signed(_GOLDEN)


def _mix(bits: Tensor) -> Tensor:
    """Scramble 64-bit integers by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _signed(_MIX_1)
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _signed(_MIX_2)
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def _mix_int(seed: int, step: int) -> int:
    bits = torch.tensor([_signed(seed & _MASK), _signed(step & _MASK)])
    mixed = _mix(_mix(bits[:1] + _signed(_GOLDEN)) + bits[1:] * _signed(_GOLDEN))
    return int(mixed) & (_MASK >> 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
