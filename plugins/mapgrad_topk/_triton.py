# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
"""The k largest entries of each row on a GPU, with the rows' noise made on the way: one read and one write of a row.

A row lies in the registers of one program. Its k-th largest entry is searched for by counting the entries above a
guess: first along the normal law with the row's mean and variance, then by regula falsi (the Illinois rule) between
the nearest guesses, and at last by bisection over floats' bits, whose order is that of integers.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    import mapgrad

_SHORT: Final = 1 << 12
"""Entries of a row up to which a thread gets 16, not 32: measured on an H100."""

_NORMAL: Final = NormalDist()

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_SAMPLE = tl.constexpr(0xD1342543DE82EF95)
_GUESSES = tl.constexpr(10)
_BEYOND = tl.constexpr(0x7F800001)
"""The order that comes after infinity's."""


@triton.jit
def _scrambled(bits):
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB
    return bits ^ (bits >> 31)


@triton.jit
def _noise(start, entries, table, width: tl.constexpr):
    """Return the quantiles, float32, of some entries' uniforms, as `CounterNoise` says."""
    bits = _scrambled(start + (entries + 1).to(tl.uint64) * _GOLDEN)
    high, low = (bits >> 32).to(tl.uint32), bits.to(tl.uint32)
    flip = (high.to(tl.int32, bitcast=True) >> 31).to(tl.uint32, bitcast=True)
    tail = ((low ^ flip) & 0xFFFFF000) | 0x800
    v = (high ^ flip).to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-32 + tail.to(tl.float32) * 2.0**-64
    v = v.to(tl.uint32, bitcast=True)
    cell = ((v | (high & 0x80000000)) >> 19) * 4
    t = ((v & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.5
    cubics = tl.load(table + cell[:, None] + tl.arange(0, 4)[None, :])  # 16 bytes at a time
    even, odd = tl.split(tl.reshape(cubics, (width, 2, 2)))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a + t * (b + t * (c + t * d))


@triton.jit
def _order(value):
    """Return an integer; they are ordered as floats are, and both zeros are one."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _value(order):
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _fold(least, most, total, square, other_least, other_most, other_total, other_square):
    least, most = tl.minimum(least, other_least), tl.maximum(most, other_most)
    return least, most, total + other_total, square + other_square


@triton.jit
def _bounds(values):
    """Return the least and the largest value, the sum and the sum of squares, of those that aren't NaN."""
    counted = tl.where(values == values, values, 0.0)
    return tl.reduce((values, values, counted, counted * counted), 0, _fold)


@triton.jit
def _count(mask):
    return tl.sum(tl.where(mask, 1.0, 0.0))  # takes half as many instructions as integers


@triton.jit
def _first_bits(key, name):
    """Return where the bits of a row's noise in a sample begin; `key` has the sample in it."""
    return _scrambled(key + (name + 1).to(tl.uint64) * _GOLDEN)


@triton.jit
def _largest(values, n, k, place, density):
    """Return which k of the n values that aren't NaN are the largest, ties by the lower index.

    `place` is the standard normal law's quantile at 1 − k / n, and `density` n times its density there. The counts of
    values ≥ left and ≥ right lie on either side of k.
    """
    wanted, count = k.to(tl.float32), n.to(tl.float32)
    left, most, total, square = _bounds(values)
    if left == float("-inf"):
        finite = values > float("-inf")
        count_finite = _count(finite)
        if count_finite >= wanted:
            left, most, total, square = _bounds(tl.where(finite, values, float("nan")))
            count = count_finite
    right = _value(_order(most) + 1)
    mean = total / count
    deviation = tl.sqrt(tl.maximum(square / count - mean * mean, 0.0))
    threshold, guess = left, mean + deviation * place
    step = 1.25 * deviation / density  # a little too far, so that the place lies between the first two guesses
    miss, miss_left, miss_right, count_right = count - wanted, count - wanted, -wanted, 0.0
    side = 0
    guesses = 0
    while (guesses < _GUESSES) & (miss != 0) & (guess > left) & (guess < right):
        threshold = guess
        count = _count(values >= threshold)
        miss = count - wanted
        if miss > 0:
            left, miss_left = threshold, miss
            miss_right = tl.where(side > 0, 0.5 * miss_right, miss_right)
            side = 1
        else:
            right, miss_right, count_right = threshold, miss, count
            miss_left = tl.where(side < 0, 0.5 * miss_left, miss_left)
            side = -1
        guess = left + (right - left) * tl.fdiv(miss_left, miss_left - miss_right)
        guess = tl.where(guesses == 0, threshold + step * miss, guess)
        guesses += 1
    low, high = _order(left), tl.minimum(_order(right), _BEYOND)
    while (miss != 0) & (high > low + 1):
        threshold = _value(tl.maximum((low >> 1) + (high >> 1) + (low & high & 1), low + 1))
        count = _count(values >= threshold)
        miss = count - wanted
        if miss > 0:
            low = _order(tl.min(tl.where(values >= threshold, values, float("inf"))))
        else:
            high = _order(tl.max(tl.where(values < threshold, values, float("-inf")))) + 1
            count_right = count
    chosen = values >= threshold
    if miss != 0:
        tied = values == _value(low)
        chosen = (values > _value(low)) | (tied & (tl.cumsum(tl.where(tied, 1.0, 0.0), 0) <= wanted - count_right))
    return chosen


@triton.jit(do_not_specialize=["key", "first", "temperature", "k", "rows", "samples", "place", "density"])
def _select(
    theta,
    z,
    ids,
    table,
    key,
    first,
    temperature,
    n,
    k,
    rows,
    samples,
    place,
    density,
    has_noise: tl.constexpr,
    has_ids: tl.constexpr,
    is_each: tl.constexpr,
    part: tl.constexpr,
    width: tl.constexpr,
):
    number = tl.program_id(0).to(tl.int64)
    row = number % rows
    source = number
    if not is_each:
        source = number // (rows * samples) * rows + row
    theta += source * n
    z += number * n
    entries = tl.arange(0, width)
    inside = entries < n
    start = tl.zeros((), tl.uint64)
    if has_noise:
        name = first + row
        if has_ids:
            name = tl.load(ids + row)
        sample = (number // rows) % samples
        start = _first_bits(key.to(tl.uint64) + (sample + 1).to(tl.uint64) * _SAMPLE, name)
    if part < width:  # of the row, as noise takes many registers; z holds what is done
        for begin in range(0, n, part):
            some = begin + tl.arange(0, part)
            values = tl.load(theta + some, mask=some < n, other=0.0)
            values += temperature * _noise(start, some, table, part)
            tl.store(z + some, values, mask=some < n)
        tl.debug_barrier()
        values = tl.load(z + entries, mask=inside, other=float("nan"))
    else:
        values = tl.load(theta + entries, mask=inside, other=float("nan")).to(tl.float32)
        if has_noise:
            values += temperature * _noise(start, entries, table, width)
    chosen = _largest(values, n, k, place, density)
    tl.store(z + entries, tl.where(chosen, 1.0, 0.0).to(z.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["key", "first", "temperature", "k", "samples", "place", "density"])
def _average(
    theta,
    less,
    z,
    ids,
    table,
    key,
    first,
    temperature,
    n,
    k,
    samples,
    place,
    density,
    has_less: tl.constexpr,
    has_ids: tl.constexpr,
    width: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    entries = tl.arange(0, width)
    inside = entries < n
    place_of_row = row * n + entries
    name = first + row
    if has_ids:
        name = tl.load(ids + row)
    values = tl.load(theta + place_of_row, mask=inside, other=float("nan")).to(tl.float32)
    others = values
    if has_less:
        others = tl.load(less + place_of_row, mask=inside, other=float("nan")).to(tl.float32)
    total = tl.zeros((width,), tl.float32)
    key_of_sample = key.to(tl.uint64)
    for _ in range(samples):
        key_of_sample += _SAMPLE
        noise = temperature * _noise(_first_bits(key_of_sample, name), entries, table, width)
        total += tl.where(_largest(values + noise, n, k, place, density), 1.0, 0.0)
        if has_less:
            total -= tl.where(_largest(others + noise, n, k, place, density), 1.0, 0.0)
    mean = tl.div_rn(total, tl.zeros((width,), tl.float32) + samples)
    tl.store(z + place_of_row, mean.to(z.dtype.element_ty), mask=inside)


def mean_of_largest(theta: Tensor, k: int, noise: mapgrad.CounterNoise, less: Tensor | None = None) -> Tensor:
    """Return the mean of what `largest` finds in S samples, less that of other rows with the same noise.

    A row's samples are taken one after another, and their sum stays in registers.

    Args:
        theta: [B, n], as for `largest`, but n up to 4,096.
        k: See there.
        noise: What is added.
        less: Like θ; None for nothing that is subtracted.

    Returns:
        [B, n] of θ's dtype and device.
    """
    rows, n = theta.shape
    if k == n:
        return torch.full_like(theta, 1.0 if less is None else 0.0)
    z = torch.empty_like(theta)
    if z.numel() == 0:
        return z
    width = triton.next_power_of_2(n)
    place = _NORMAL.inv_cdf(1 - k / n)
    launch: Any = _average[(rows,)]
    with torch.cuda.device_of(z):
        launch(
            theta,
            less,
            z,
            noise.rows,
            noise.quantiles,
            noise.key,
            noise.first,
            noise.temperature,
            n,
            k,
            noise.samples,
            place,
            n * _NORMAL.pdf(place),
            has_less=less is not None,
            has_ids=noise.rows is not None,
            width=width,
            num_warps=max(width // 512, 1),
            enable_fp_fusion=True,
        )
    return z


def largest(theta: Tensor, k: int, noise: mapgrad.CounterNoise | None = None) -> Tensor:
    """Return 1 for the k largest entries of each row, ties by the lower index, and 0 for the others.

    Args:
        theta: [N, n], or with noise [G, S or 1, B, n], contiguous; float16, bfloat16 or float32, n up to 32,768,
            as a row lies in the registers of one program.
            Noise is added in float32.
        k: At least 1 and at most n.
        noise: What is added for each of the S samples; None for nothing.

    Returns:
        [N, n], or [G, S, B, n], of θ's dtype and device.
    """
    *lead, each, rows, n = theta.shape if noise is not None else (1, *theta.shape)
    samples = each if noise is None else noise.samples
    z = theta.new_empty((*lead, samples, rows, n) if noise is not None else theta.shape)
    if k == n:
        return z.fill_(1)
    if z.numel() == 0:
        return z
    width = triton.next_power_of_2(n)
    is_long = width > _SHORT
    warps = width // (32 * (32 if is_long else 16))
    in_parts = noise is not None and is_long and theta.dtype == torch.float32
    place = _NORMAL.inv_cdf(1 - k / n)
    launch: Any = _select[(z.numel() // n,)]
    with torch.cuda.device_of(z):
        launch(
            theta,
            z,
            None if noise is None else noise.rows,
            None if noise is None else noise.quantiles,
            0 if noise is None else noise.key,
            0 if noise is None else noise.first,
            1.0 if noise is None else noise.temperature,
            n,
            k,
            rows,
            samples,
            place,
            n * _NORMAL.pdf(place),
            has_noise=noise is not None,
            has_ids=noise is not None and noise.rows is not None,
            is_each=each == samples,
            part=width // 2 if in_parts else width,
            width=width,
            num_warps=max(warps, 1),
            enable_fp_fusion=True,
        )
    return z
