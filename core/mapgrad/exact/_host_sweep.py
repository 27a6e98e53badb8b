"""The sweep for the best states once more, in NumPy: on a CPU several times as fast as in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.exact._sweeps import Levels


def best(
    levels: Levels, theta: NDArray[np.float64], factor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what `_sweeps.best` does, the same bits, for levels on the CPU."""
    layers = [(layer.entry, layer.low.numpy(), layer.high.numpy()) for layer in levels.layers]
    widths = [len(low) for _, low, _ in layers]
    widest, rows = max(widths), theta.shape[1]
    taken = theta.clip(min=0)
    low_gain, high_gain = -taken, theta - taken
    lows, highs = np.empty((2, widest, rows))
    buffers = np.empty((2, 1 + max(widest, len(levels.leaves)), rows))
    buffers[:, 0] = -np.inf
    below = np.multiply(levels.leaves.numpy()[:, None], factor, out=buffers[0, : len(levels.leaves)])
    is_high = np.empty((sum(widths), rows), dtype=np.bool_)
    choices: list[NDArray[np.bool_]] = []
    end = sum(widths)
    for number, ((entry, low, high), width) in enumerate(zip(reversed(layers), reversed(widths), strict=True), 1):
        # "clip" writes to `out` without a buffer between
        left = np.take(below, low, axis=0, out=lows[:width], mode="clip")
        right = np.take(below, high, axis=0, out=highs[:width], mode="clip")
        left += low_gain[entry]
        right += high_gain[entry]
        choices.append(np.greater_equal(right, left, out=is_high[end - width : end]))
        end -= width
        np.maximum(left, right, out=buffers[number % 2, 1 : 1 + width])
        below = buffers[number % 2, : 1 + width]
    z = np.zeros_like(theta)
    place, columns = np.zeros(rows, dtype=np.int64), np.arange(rows, dtype=np.int64)
    for entry, low, high in layers:
        if not len(low):  # the set is empty
            break
        is_one = choices.pop()[place, columns]
        z[entry] = is_one
        place = np.maximum(np.where(is_one, high[place], low[place]) - 1, 0)
    return z, below[-1]
