"""Noise as a pure function of (key, row, sample, entry), however a batch is split or moved between devices."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from mapgrad.gradients._noise import StandardNoise, SumOfGamma, has_functions
from mapgrad.gradients._noise_kernel import NOISE
from mapgrad.gradients._sum_of_gamma import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from mapgrad.gradients._noise import Noise

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_SAMPLE: Final = 0xD1342543DE82EF95
"""The steps from entry to entry as from row to row, and from sample to sample: odd numbers without a pattern."""

_ROUNDS: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
"""The shifts and factors of SplitMix64's finaliser."""

_FRACTION: Final = (1 << 52) - 1
_ONE: Final = 0x3FF << 52
"""The bits of 1.0: with 52 random bits as its fraction a number of [1, 2)."""

_ONE_LESS_HALF_A_STEP: Final = 1 - 2.0**-53
"""What takes such a number to (0, 1), exactly: odd multiples of 2⁻⁵³."""

_WORDS: Final = {
    word: np.array(word, np.uint64) for word in (1, 12, _GOLDEN, _ONE, *(word for step in _ROUNDS for word in step))
}
"""The constants as arrays: NumPy takes twice as long for a small array and a scalar."""

_NUMPY: Final = {torch.float32: np.float32, torch.float64: np.float64}

_BLOCK: Final = 1 << 15
"""How many numbers are made at once on the CPU: few enough to stay in a core's cache."""

_BLOCK_ELSEWHERE: Final = 1 << 18
"""The same on a device, whose kernels want many; 2 MB for each of a few float64."""


def mix(a: int, b: int) -> int:
    """Hash two integers, taken modulo 2⁶⁴, to a key between 0 and 2⁶³ − 1, such as (seed, step)."""
    return _scrambled(_scrambled((a + _GOLDEN) & _MASK) + b * _GOLDEN & _MASK) & (_MASK >> 1)


def can_repeat(noise: Noise) -> bool:
    """Tell whether a law's noise is a function of uniforms, so that the same ones give it again."""
    return has_functions(noise, "icdf")


def counter_noise(
    noise: Noise,
    key: int,
    shape: tuple[int, ...],
    *,
    event_ndim: int,
    dtype: torch.dtype,
    device: torch.device,
    rows: Tensor | None = None,
    first_sample: int = 0,
) -> Tensor:
    """Draw noise that depends on nothing but the key and each number's row, sample and entry.

    A law with `icdf` gets its uniforms from SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at the entry's number,
    started anew for each sample and row: 52 bits, strictly between 0 and 1, and the same on every device. Another law
    gets a generator of its own for the whole shape, seeded from the key and `first_sample`: it knows no rows.

    Args:
        noise: The law.
        key: 64 bits, such as mix(seed, step).
        shape: [S, *batch, *shape] of the result.
        event_ndim: How many trailing dimensions make one row.
        dtype: Floating dtype of the result; numbers are worked out in float64 and rounded last.
        device: Where the result lives; one with float64.
        rows: int64 [*batch], the number that each row goes by, repeated or in any order; None is 0, 1, … in the
            batch's order.
        first_sample: Number of the first of the S samples; samples s to t − 1 of a larger S are those of S = t − s
            with first_sample = s.

    Returns:
        A fresh tensor of this shape, dtype and device. A few MB are needed besides.
    """
    if not can_repeat(noise):
        seed = mix(key, first_sample) if first_sample else key & _MASK
        generator = torch.Generator(device).manual_seed(seed)
        return noise.sample(shape, generator=generator, dtype=dtype, device=device)
    split = len(shape) - event_ndim
    sizes = (shape[0], math.prod(shape[1:split]), math.prod(shape[split:]))
    if device.type != "cpu":
        result = torch.empty(shape, dtype=dtype, device=device)
        _fill_elsewhere(result.view(-1), noise, key, sizes, rows, first_sample)
    elif dtype in _NUMPY:
        memory = np.empty(shape, _NUMPY[dtype])
        result = torch.from_numpy(memory)  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)
        _fill(memory.reshape(-1), noise, key, sizes, rows, first_sample)
    else:
        result = torch.empty(shape, dtype=dtype, device=device)
        _fill(result.view(-1), noise, key, sizes, rows, first_sample)
    return result


def _blocks(sizes: tuple[int, int, int], limit: int) -> Iterator[tuple[range, range, range]]:
    """Cut [S, B, n] into runs of at most `limit` numbers that follow each other in memory."""
    samples, batch, entries = sizes
    if 0 in sizes:
        return
    some_entries = min(entries, limit)
    some_rows = min(batch, limit // entries or 1)
    some_samples = min(samples, limit // (batch * entries) or 1)
    for s in range(0, samples, some_samples):
        for b in range(0, batch, some_rows):
            for e in range(0, entries, some_entries):
                yield (
                    range(s, min(s + some_samples, samples)),
                    range(b, min(b + some_rows, batch)),
                    range(e, min(e + some_entries, entries)),
                )


def _fill(
    result: Tensor | NDArray[Any],
    noise: Any,
    key: int,
    sizes: tuple[int, int, int],
    rows: Tensor | None,
    first_sample: int,
) -> None:
    """Fill a flat result on the CPU, by NumPy: torch has no logical shift, and its logarithm takes longer."""
    if not isinstance(result, Tensor) and type(noise) is SumOfGamma:
        kernel = NOISE[result.dtype].ready()
        if kernel is not None:
            quantiles = table(float(noise.kappa), torch.device("cpu")).quantiles.numpy()
            _fill_by(kernel, result, quantiles, key, sizes, rows, first_sample)
            return
    icdf_ = noise.icdf_ if isinstance(noise, StandardNoise) else functools.partial(StandardNoise.icdf_, noise)
    size = min(_BLOCK, len(result))
    bits, scratch = np.empty(size, np.uint64), np.empty(size, np.uint64)
    entries = np.arange(1, min(_BLOCK, sizes[2]) + 1, dtype=np.uint64)
    np.multiply(entries, _WORDS[_GOLDEN], entries)
    done = 0
    for s, b, e in _blocks(sizes, _BLOCK):
        keys = _row_keys(_sample_keys(key, first_sample, s), _row_numbers(rows, b))
        if e.start:
            keys += np.uint64(e.start * _GOLDEN & _MASK)
        end = done + len(keys) * len(e)
        numbers = bits[: end - done]
        np.add(keys[:, None], entries[: len(e)], numbers.reshape(len(keys), -1))
        _scramble(numbers, scratch[: end - done])
        np.right_shift(numbers, _WORDS[12], numbers)
        np.bitwise_or(numbers, _WORDS[_ONE], numbers)
        u = numbers.view(np.float64)
        np.subtract(u, _ONE_LESS_HALF_A_STEP, u)
        icdf_(u)
        if isinstance(result, Tensor):
            result[done:end] = torch.as_tensor(u, device="cpu")
        else:
            result[done:end] = u
        done = end


def _fill_by(
    kernel: Callable[..., None],
    result: NDArray[Any],
    quantiles: NDArray[np.float64],
    key: int,
    sizes: tuple[int, int, int],
    rows: Tensor | None,
    first_sample: int,
) -> None:
    """Fill a flat result on the CPU by one kernel."""
    samples, batch, entries = sizes
    states = result.reshape(samples, batch, entries)
    for start in range(0, batch, _BLOCK):
        some = range(start, min(start + _BLOCK, batch))
        numbers = _row_numbers(rows, some)
        for sample in range(samples):
            (of_sample,) = _sample_keys(key, first_sample, range(sample, sample + 1))
            kernel(np.uint64(of_sample), numbers, quantiles, states[sample, some.start : some.stop])


def _row_numbers(rows: Tensor | None, some: range) -> NDArray[np.uint64]:
    """Return what stands for some rows."""
    if rows is None:
        return np.arange(some.start, some.stop, dtype=np.uint64)
    return rows.reshape(-1)[some.start : some.stop].cpu().contiguous().numpy().view(np.uint64)


def _sample_keys(key: int, first_sample: int, samples: range) -> list[int]:
    return [key + (first_sample + sample + 1) * _SAMPLE & _MASK for sample in samples]


def _row_keys(samples: list[int], rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a key for each sample and row, [S · B]."""
    if len(samples) * len(rows) < 4:  # NumPy takes longer
        numbers = rows.tolist()
        keys = [_scrambled(sample + (row + 1) * _GOLDEN & _MASK) for sample in samples for row in numbers]
        return np.array(keys, np.uint64)
    steps = (rows + _WORDS[1]) * _WORDS[_GOLDEN]
    keys = np.add.outer(np.array(samples, np.uint64), steps).reshape(-1)
    _scramble(keys, np.empty_like(keys))
    return keys


def _scramble(bits: NDArray[np.uint64], scratch: NDArray[np.uint64]) -> None:
    """Scramble in place by the finaliser of SplitMix64."""
    for shift, factor in _ROUNDS:
        np.right_shift(bits, _WORDS[shift], scratch)
        np.bitwise_xor(bits, scratch, bits)
        if factor != 1:
            np.multiply(bits, _WORDS[factor], bits)


def _scrambled(bits: int) -> int:
    for shift, factor in _ROUNDS:
        bits = (bits ^ bits >> shift) * factor & _MASK
    return bits


def _fill_elsewhere(
    result: Tensor, noise: Any, key: int, sizes: tuple[int, int, int], rows: Tensor | None, first_sample: int
) -> None:
    """Fill a flat result on any device, by torch's signed integers."""
    device = result.device
    ids = None if rows is None else rows.reshape(-1).to(device)
    done = 0
    for s, b, e in _blocks(sizes, _BLOCK_ELSEWHERE):
        samples = torch.arange(first_sample + s.start, first_sample + s.stop, device=device)
        block = torch.arange(b.start, b.stop, device=device) if ids is None else ids[b.start : b.stop]
        entries = torch.arange(e.start, e.stop, device=device)
        keys = (samples[:, None] + 1) * signed(_SAMPLE) + signed(key & _MASK)
        keys = _scrambled_tensor(keys + (block + 1) * signed(_GOLDEN))
        bits = _scrambled_tensor(keys[..., None] + (entries + 1) * signed(_GOLDEN)).reshape(-1)
        u = ((bits >> 12) & _FRACTION | _ONE).view(torch.float64) - _ONE_LESS_HALF_A_STEP
        result[done : done + len(u)].copy_(noise.icdf(u))
        done += len(u)


def _scrambled_tensor(bits: Tensor) -> Tensor:
    for shift, factor in _ROUNDS:
        bits = (bits ^ (bits >> shift) & ((1 << 64 - shift) - 1)) * signed(factor)
    return bits


def signed(value: int) -> int:
    """Return an integer, taken modulo 2⁶⁴, as int64 has it."""
    return (value + (1 << 63) & _MASK) - (1 << 63)
