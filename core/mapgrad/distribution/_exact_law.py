# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Perturb-and-MAP laws whose probabilities are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mapgrad.errors import ShapeError
from mapgrad.exact import enumerate_states, oracle, topk_probabilities
from mapgrad.gradients import Gumbel, SumOfGamma, has_functions
from mapgrad.problems import KSubset

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients import Noise
    from mapgrad.problems import Problem


class ExactLaw(Protocol):
    """What a law with known probabilities gives."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probabilities of states [*sample, *batch, n]."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropy, [*batch]."""
        ...


def exact_law(problem: Problem, theta: Tensor, noise: Noise | None, temperature: float) -> ExactLaw | None:
    """Return the law of MAP(θ + τε), θ [*batch, *shape] utilities, as far as its probabilities are known."""
    if not isinstance(problem, KSubset):
        return None
    # one of n under Gumbel noise, of which SumOfGamma(1) is another name
    if problem.k == 1 and noise in (Gumbel(), SumOfGamma(1)):
        return _OneHot(problem, theta, temperature)
    if has_functions(noise, "icdf", "cdf", "log_prob"):
        return _Subsets(problem, theta, noise, temperature)
    return None


class _OneHot:
    """Gibbs' law of one of n."""

    def __init__(self, problem: KSubset, theta: Tensor, temperature: float) -> None:
        self._problem, self._theta, self._temperature = problem, theta, temperature

    def log_prob(self, value: Tensor) -> Tensor:
        value = _like(value, self._theta)
        scores = torch.where(value == 0, 0.0, self._theta.double() * value).sum(dim=-1) / self._temperature
        found = scores - oracle(self._problem).log_partition(self._theta.double(), self._temperature)
        return _of_states(self._problem, value, found).to(self._theta.dtype)

    def entropy(self) -> Tensor:
        return oracle(self._problem).entropy(self._theta, self._temperature)


class _Subsets:
    """The law of the k best of n under independent noise."""

    def __init__(self, problem: KSubset, theta: Tensor, noise: Any, temperature: float) -> None:
        self._problem, self._theta, self._noise, self._temperature = problem, theta, noise, temperature

    def log_prob(self, value: Tensor) -> Tensor:
        value = _like(value, self._theta)
        lead = value.shape[: value.ndim - self._theta.ndim]
        chances = self._probabilities(value.reshape(math.prod(lead), *self._theta.shape))
        chances = chances.reshape((*lead, *self._theta.shape[:-1]))
        found = torch.where(chances > _SMALLEST, chances, 1.0).log()
        found = torch.where(chances > _SMALLEST, found, -torch.inf)
        return _of_states(self._problem, value, found).to(self._theta.dtype)

    def entropy(self) -> Tensor:
        states = enumerate_states(self._problem).to(self._theta.device)
        shape = (len(states), *(1 for _ in self._theta.shape[:-1]), states.shape[1])
        chances = self._probabilities(states.reshape(shape).expand(len(states), *self._theta.shape))
        return torch.special.entr(chances.clamp(min=_SMALLEST**2)).sum(dim=0).to(self._theta.dtype)

    def _probabilities(self, states: Tensor) -> Tensor:
        """Return those of states [N, *batch, n], [N, *batch] float64."""
        return topk_probabilities(self._theta.double(), states, self._problem.k, self._noise, self._temperature)


_SMALLEST = 1e-10
"""A probability that the quadrature tells from 0, with two digits and more."""


def _like(value: Tensor, theta: Tensor) -> Tensor:
    """Return states that a user gave, [*sample, *batch, n] float64.

    Raises:
        ShapeError: they don't fit.
    """
    try:
        shape = torch.broadcast_shapes(value.shape, theta.shape)
    except RuntimeError:
        shape = None
    if shape is None or value.ndim == 0 or value.shape[-1] != theta.shape[-1] or value.is_complex():
        raise ShapeError(
            f"states must be real and of shape [*sample, *batch, *shape] with [*batch, *shape] = {tuple(theta.shape)}, "
            f"got {value.dtype} {tuple(value.shape)}"
        )
    return value.detach().to(theta.device).double().expand(shape)


def _of_states(problem: KSubset, value: Tensor, found: Tensor) -> Tensor:
    """Return what was found, −inf for what isn't a state."""
    return torch.where(problem.contains(value), found, -torch.inf)
