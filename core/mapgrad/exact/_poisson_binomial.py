"""How many of n independent events happen: the dynamic program behind k-subsets."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def others(happens: Tensor, fails: Tensor, k: int, *, at_most: bool) -> Tensor:
    """Return, for each of n events, the probability that exactly (or at most) k − 1 of the others happen.

    Counts over the events before and after are combined, in O(nk) together; sums of products of probabilities
    throughout, so nothing cancels and small results are as exact as large ones.

    Args:
        happens: [..., n], float64 probabilities.
        fails: [..., n], 1 − `happens`, which the caller knows without rounding it away.
        k: At least 1.
        at_most: Whether fewer than k − 1 count, too.

    Returns:
        [..., n].
    """
    events = list(zip(happens.unsqueeze(-1).unbind(dim=-2), fails.unsqueeze(-1).unbind(dim=-2), strict=True))
    none_yet = F.pad(torch.ones_like(events[0][0]), (0, k - 1))
    before = accumulate(events[:-1], _count, initial=none_yet)
    after = accumulate(events[:0:-1], _count, initial=torch.ones_like(none_yet) if at_most else none_yet)
    pairs = zip(before, reversed(list(after)), strict=True)
    return torch.stack([(left * right.flip(-1)).sum(dim=-1) for left, right in pairs], dim=-1)


def counts_after(happens: Tensor, fails: Tensor, k: int) -> list[Tensor]:
    """Return for i = 0 .. n the probabilities [..., k + 1] that 0 .. k of the events i .. n − 1 happen."""
    events = list(zip(happens.unsqueeze(-1).unbind(dim=-2), fails.unsqueeze(-1).unbind(dim=-2), strict=True))
    none_yet = F.pad(torch.ones_like(events[0][0]), (0, k))
    return list(accumulate(reversed(events), _count, initial=none_yet))[::-1]


def _count(counts: Tensor, event: tuple[Tensor, Tensor]) -> Tensor:
    """Take one more event into the probabilities [..., k] of 0 .. k − 1 (or of at most 0 .. k − 1) events."""
    happens, fails = event
    return fails * counts + happens * F.pad(counts[..., :-1], (1, 0))
