"""The gradient of the loss of the mean, L(E MAP(θ + τε)), that the gradient lab measures against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from mapgrad.exact import topk_marginals
from mapgrad.gradients import scores
from mapgrad.problems import KSubset

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.batching import Solver

_ENTRIES: Final = 1 << 21
"""Of θ that are perturbed at a time."""


class Truth(NamedTuple):
    """A gradient, and what is known of it.

    Attributes:
        gradient: [n] float64.
        error: Its standard error, relative to its length; 0 where it is exact.
    """

    gradient: Tensor
    error: float


def truth_of(
    solver: Solver, theta: Tensor, slope: Tensor, noise: Any, tau: float, draws: int, generator: torch.Generator
) -> Truth:
    """Return the gradient of ⟨g, E MAP(θ + τε)⟩: by quadrature for k-subsets, else by the score function.

    The score function holds for whatever answers: for a heuristic, and where rows are clipped, it is the gradient of
    the mean answer as well.

    Args:
        solver: Who answers.
        theta: [*shape] float64.
        slope: g, [*shape] float64.
        noise: ρ, with `log_prob`.
        tau: τ > 0.
        draws: Solves, where the gradient isn't exact.
        generator: Draws the noise.
    """
    problem = solver.problem
    if isinstance(problem, KSubset) and all(hasattr(noise, name) for name in ("icdf", "cdf")):
        leaf = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(topk_marginals(leaf, problem.k, noise, tau) @ slope, leaf)
        return Truth(gradient, 0.0)
    count, n = 0, theta.numel()
    moments = torch.zeros(5, n, dtype=torch.float64)
    while count < draws:
        some = min(draws - count, max(_ENTRIES // n, 1))
        epsilon = noise.sample((some, *theta.shape), generator=generator, dtype=torch.float64, device=theta.device)
        z = solver((theta + tau * epsilon).float()).double()
        value = (z * slope).flatten(1).sum(dim=1, keepdim=True)
        score = scores(noise, epsilon).flatten(1)
        sums = score, value * score, score.square(), value * score.square(), (value * score).square()
        moments += torch.stack([each.sum(dim=0) for each in sums])
        count += some
    # a baseline b gives mean (v − b) s: the v of least variance, entry by entry, adds a bias of 1 / draws
    one, first, square, second, fourth = moments / count
    baseline = second / square
    mean = first - baseline * one
    variance = fourth - 2 * baseline * second + baseline.square() * square - mean.square()
    error = (variance.clamp(min=0).sum() / count).sqrt()
    return Truth(mean / tau, float(error / mean.square().sum().sqrt()))
