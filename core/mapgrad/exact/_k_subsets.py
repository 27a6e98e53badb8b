"""The Gibbs law over k-subsets, by dynamic programming, and for k = 1 by a softmax.

It is the law of n independent events with probabilities σ(θ_i − c), given that k of them happen, whatever c. Where k
events are expected, k is the most probable number (Darroch 1964), so no probability underflows and no logarithms are
needed until the end. The results don't depend on c, hence no gradient flows through it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F

from mapgrad.exact._oracle import Moments, Oracle, choose
from mapgrad.exact._poisson_binomial import counts_after, others
from mapgrad.exact._scaled_rows import NEVER

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import KSubset

_BISECTIONS: Final = 64

_FAR: Final = 80.0
"""Beyond which a difference of θ makes no difference: exp(−80) is less than the last bit of 1."""

_NUMBERS: Final = 7
"""Numbers that are kept for each of n events and k counts, about."""


class OneHot(Oracle):
    """1-subsets: p = softmax(θ / τ)."""

    name = "one-hot"

    def __init__(self, problem: KSubset, max_bytes: int) -> None:
        super().__init__(problem, 8 * 6 * problem.n, max_bytes)

    @property
    def _uniforms(self) -> int:
        return 1

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        return rows.logsumexp(dim=1)

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        return Moments(rows.softmax(dim=1), rows.logsumexp(dim=1))

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        chosen = choose(rows.softmax(dim=1).expand(len(uniform), -1, -1), uniform[:, :, 0])
        return F.one_hot(chosen, rows.shape[1]).double()


class Subsets(Oracle):
    """k-subsets, in O(nk)."""

    name = "k-subset"

    def __init__(self, problem: KSubset, max_bytes: int) -> None:
        super().__init__(problem, 8 * problem.n * (_NUMBERS * problem.k + 20), max_bytes)
        self._k = problem.k

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        return self._moments(rows, temperature).log_partition

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        centre = self._centre(rows)
        happens, fails = torch.sigmoid(rows - centre), torch.sigmoid(centre - rows)
        weights = happens * others(happens, fails, self._k, at_most=False)  # event i happens and k events in all
        total = weights.sum(dim=1, keepdim=True)
        is_left = (rows > NEVER).sum(dim=1) >= self._k
        chance = torch.where(is_left, total.squeeze(1) / self._k, 1.0)
        log_partition = chance.log() - F.logsigmoid(centre - rows).sum(dim=1) + self._k * centre.squeeze(1)
        return Moments(self._k * weights / total, torch.where(is_left, log_partition, NEVER))

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        centre = self._centre(rows)
        happens, fails = torch.sigmoid(rows - centre), torch.sigmoid(centre - rows)
        after = counts_after(happens, fails, self._k)
        left = torch.full(uniform.shape[:2], self._k, device=rows.device)
        z = torch.empty_like(uniform)
        for item in range(rows.shape[1]):
            rest = after[item + 1].expand(len(uniform), -1, -1)
            without = fails[:, item] * rest.gather(2, left.unsqueeze(2)).squeeze(2)
            one_less = (left - 1).clamp(min=0)
            with_it = happens[:, item] * rest.gather(2, one_less.unsqueeze(2)).squeeze(2) * (left > 0)
            is_in = choose(torch.stack((without, with_it), dim=-1), uniform[:, :, item])
            z[:, :, item] = is_in
            left -= is_in
        return z

    def _centre(self, rows: Tensor) -> Tensor:
        """Return c of [B, 1] such that Σ_i σ(θ_i − c) = k, as far as floats allow: near the k-th largest θ."""
        rows, k = rows.detach(), self._k
        largest = rows.topk(min(k + 1, rows.shape[1]), dim=1).values
        margin = math.log(rows.shape[1]) + 1
        high = largest[:, k - 1 : k] + margin
        low = torch.maximum(largest[:, -1:], high - _FAR) - 2 * margin
        if k == rows.shape[1]:
            low = high - _FAR / 2
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            too_many = torch.sigmoid(rows - middle).sum(dim=1, keepdim=True) > k
            low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
        return high
