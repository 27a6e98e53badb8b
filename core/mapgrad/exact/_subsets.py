"""The Gibbs distribution over k-subsets by dynamic programming.

It is the law of n independent events with probabilities σ(θ_i − c), given that k of them happen, whatever c. Where k
events are expected, k is the most probable number (Darroch 1964), so no probability underflows and no logarithms are
needed until the end. The results don't depend on c, hence no gradient flows through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F

from mapgrad.exact._poisson_binomial import others

if TYPE_CHECKING:
    from torch import Tensor

_BISECTIONS: Final = 64


def marginals(theta: Tensor, k: int) -> Tensor:
    """Return E z for float64 rows θ [B, n]: [B, n]."""
    weights = _weights(theta, _centre(theta, k), k)
    return k * weights / weights.sum(dim=1, keepdim=True)


def log_partition(theta: Tensor, k: int) -> Tensor:
    """Return log Σ_z exp ⟨θ, z⟩ for float64 rows θ [B, n]: [B]."""
    centre = _centre(theta, k)
    chance = _weights(theta, centre, k).sum(dim=1) / k
    return chance.log() - F.logsigmoid(centre - theta).sum(dim=1) + k * centre.squeeze(1)


def _weights(theta: Tensor, centre: Tensor, k: int) -> Tensor:
    """Return the probability that event i happens and k events in all, [B, n]."""
    happens, fails = torch.sigmoid(theta - centre), torch.sigmoid(centre - theta)
    return happens * others(happens, fails, k, at_most=False)


def _centre(theta: Tensor, k: int) -> Tensor:
    """Return c of [B, 1] such that Σ_i σ(θ_i − c) = k, as far as floats allow."""
    theta = theta.detach()
    low = theta.masked_fill(theta.isneginf(), torch.inf).amin(dim=1, keepdim=True) - 40
    high = theta.amax(dim=1, keepdim=True) + 40
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_many = torch.sigmoid(theta - middle).sum(dim=1, keepdim=True) > k
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return high
