"""What perturb-and-MAP does exactly, for the k best of n under independent noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

from mapgrad.batching import require_float
from mapgrad.errors import ShapeError
from mapgrad.exact._chunks import MAX_BYTES, require_fit, rows_together, within_budget
from mapgrad.exact._poisson_binomial import others
from mapgrad.exact._scaled_rows import NEVER, floored_rows, require_states_left
from mapgrad.exact._uncompiled import uncompiled
from mapgrad.problems import KSubset

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_PANELS: Final = 24
_POINTS: Final = 12

_NUMBERS: Final = 7
"""Numbers that are kept at a node of the quadrature for each entry and each count up to k, about."""

_OTHER_NUMBERS: Final = 40
"""The same for each entry, for its noise's law."""

_STATE_NUMBERS: Final = 8
"""The same for each state whose probability is asked for."""

_LEAST: Final = 1e-18
"""Stands for a probability of 0 where a logarithm is taken."""


class Law(Protocol):
    """A law of i.i.d. noise, such as `Gumbel`: float64 in, float64 out, element by element."""

    def icdf(self, u: Tensor) -> Tensor:
        """Return quantiles."""
        ...

    def cdf(self, x: Tensor) -> Tensor:
        """Return P(ε ≤ x)."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density."""
        ...


@uncompiled
def topk_marginals(
    theta: Tensor, k: int, noise: Law, temperature: float = 1.0, *, max_bytes: int = MAX_BYTES
) -> Tensor:
    """Return E MAP(θ + τε) over `KSubset(n, k)`: the probability that each entry is among the k largest.

        μ_i = ∫ ρ(x − θ_i / τ) P(at most k − 1 of the others exceed x) dx

    by Gauss–Legendre quadrature between quantiles of all n laws, whatever the spread of θ. Right to 12 digits or so,
    to 8 with `SumOfGamma`, whose table and sharp peak cost some. Time grows like n²k; memory doesn't.

    Args:
        theta: [*batch, n], utilities, any floating dtype and device.
        k: Number of entries chosen, 1 ≤ k ≤ n.
        noise: Law of the i.i.d. noise ε, with `icdf`, `cdf` and `log_prob`.
        temperature: τ > 0.
        max_bytes: What may be taken beside θ and the result.

    Returns:
        [*batch, n] of θ's dtype and device; each row sums to k.

    Raises:
        ShapeError: θ's dtype isn't a floating one, or θ has no dimension to choose along.
        ProblemError: `k` isn't an integer between 1 and n, or a node of the quadrature takes more than `max_bytes`.
        NonFiniteError: θ has NaN or +inf entries; one of −inf is never chosen.
        InfeasibleError: a row has fewer than k other entries.
        ValueError: `temperature` isn't positive, or θ / τ exceeds 1e280.
        TypeError: the noise can only be sampled.
        MapgradError: the noise is a finite `SumOfGamma`.
    """
    problem, rows, forbidden, quantiles = _rows(theta, k, noise, temperature)

    def integral(part: Tensor, is_out: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        density, below = _densities(noise, quantiles, part, is_out, x)
        chosen = others(1 - below, below, problem.k, at_most=True)
        return (weights.unsqueeze(2) * density * chosen).sum(dim=1)

    node_bytes = 8 * problem.n * (_NUMBERS * problem.k + _OTHER_NUMBERS)
    max_bytes = require_fit(f"exact.topk_marginals of {problem!r}", node_bytes, max_bytes)
    means = _integrated(integral, quantiles, node_bytes, max_bytes, rows, forbidden)
    return means.reshape(theta.shape).to(theta.dtype)


@uncompiled
def topk_probabilities(
    theta: Tensor, states: Tensor, k: int, noise: Law, temperature: float = 1.0, *, max_bytes: int = MAX_BYTES
) -> Tensor:
    """Return P(MAP(θ + τε) = z) over `KSubset(n, k)`: the probability that the k largest are those of a state.

        P(z) = ∫ Σ_{i in z} ρ(x − θ_i / τ) P(the others in z exceed x, and those outside don't) dx

    by the quadrature of `topk_marginals`, right to an absolute 1e-12 or so, to 1e-8 with `SumOfGamma`.

    Args:
        theta: [*batch, n], utilities, any floating dtype and device.
        states: [N, *batch, n], N states for each row, of k ones; another vector's number means nothing.
        k: Number of entries chosen, 1 ≤ k ≤ n.
        noise: Law of the i.i.d. noise ε, with `icdf`, `cdf` and `log_prob`.
        temperature: τ > 0.
        max_bytes: What may be taken beside θ, the states and the result.

    Returns:
        [N, *batch] of θ's dtype and device, differentiable in θ.

    Raises:
        MapgradError, TypeError, ValueError: As for `topk_marginals`; ShapeError where the states don't fit.
    """
    problem, rows, forbidden, quantiles = _rows(theta, k, noise, temperature)
    if states.ndim == 0 or states.shape[1:] != theta.shape:
        raise ShapeError(f"states must have shape [N, *{tuple(theta.shape)}], got {tuple(states.shape)}")
    chosen = states.to(rows).reshape(len(states), *rows.shape).transpose(0, 1)

    def integral(part: Tensor, is_out: Tensor, z: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        density, below = _densities(noise, quantiles, part, is_out, x)
        above, below = (each.clamp(min=_LEAST) for each in (1 - below, below))
        hazard = (density / above).transpose(1, 2)
        odds = (above.log() - below.log()).transpose(1, 2)
        rest = torch.exp(z @ odds + below.log().sum(dim=2).unsqueeze(1))
        return ((z @ hazard) * rest * weights.unsqueeze(1)).sum(dim=2)

    node_bytes = 8 * (problem.n * _OTHER_NUMBERS + _STATE_NUMBERS * len(states))
    max_bytes = require_fit(f"exact.topk_probabilities of {problem!r}", node_bytes, max_bytes)
    found = _integrated(integral, quantiles, node_bytes, max_bytes, rows, forbidden, chosen)
    impossible = (chosen * forbidden.unsqueeze(1)).any(dim=2)
    return torch.where(impossible, 0.0, found).T.reshape(states.shape[:-1]).to(theta.dtype)


def _rows(theta: Tensor, k: int, noise: Law, temperature: float) -> tuple[KSubset, Tensor, Tensor, Tensor]:
    """Return the problem, θ / τ [B, n] float64, which entries are forbidden, and quantiles of the law.

    A forbidden entry has another's θ. What is added to all of a row, and what gaps between its entries have beyond the
    law's width, is left out, as it would take digits and changes nothing.
    """
    missing = [name for name in ("icdf", "cdf", "log_prob") if not hasattr(noise, name)]
    if missing:
        raise TypeError(f"exact marginals need the noise's {', '.join(missing)}, which {noise!r} doesn't have")
    if require_float(theta).ndim == 0:
        raise ShapeError("θ must have shape [*batch, n]: n entries to choose from; got a scalar")
    problem = KSubset(theta.shape[-1], k)
    rows = floored_rows(problem, theta, temperature)
    forbidden = rows.detach() <= NEVER
    require_states_left(problem, (~forbidden).sum(dim=1) >= k)
    rows = torch.where(forbidden, rows.detach().amax(dim=1, keepdim=True), rows)  # where quantiles are needed anyway
    quantiles = _quantiles(noise, theta.device)
    ordered, order = rows.detach().sort(dim=1)
    gaps = ordered.diff(dim=1).clamp(max=float(quantiles[-1] - quantiles[0]))
    places = torch.cat((torch.zeros_like(ordered[:, :1]), gaps.cumsum(dim=1)), dim=1).gather(1, order.argsort(dim=1))
    return problem, places + (rows - rows.detach()), forbidden, quantiles  # the sum is for derivatives


def _quantiles(noise: Law, device: torch.device) -> Tensor:
    """Return quantiles of the law, increasing, between which its mass lies but for 1e-15."""
    return noise.icdf(torch.sigmoid(torch.linspace(-36, 36, _PANELS + 1, dtype=torch.float64, device=device)))


def _densities(noise: Law, quantiles: Tensor, rows: Tensor, is_out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return each entry's density at nodes x [B, Q], and its chance of being below: [B, Q, n]."""
    distance = x.unsqueeze(2) - rows.unsqueeze(1)
    # beyond its outer quantiles a law has no mass; there a log density may overflow, and its gradient be NaN
    inside = (distance > quantiles[0]) & (distance < quantiles[-1])
    distance = distance.clamp(quantiles[0], quantiles[-1])
    density = torch.where(inside & ~is_out.unsqueeze(1), noise.log_prob(distance).exp(), 0.0)
    return density, torch.where(is_out.unsqueeze(1), 1.0, noise.cdf(distance))


def _integrated(
    integral: Callable[..., Tensor],
    quantiles: Tensor,
    node_bytes: int,
    max_bytes: int,
    rows: Tensor,
    *along: Tensor,
) -> Tensor:
    """Return the integrals for all rows, worked on by some rows and some nodes at a time.

    Args:
        integral: Sums over nodes, for some rows, what lies along them, and nodes and weights [B, Q].
        quantiles: Of the noise's law, increasing.
        node_bytes: What a node takes for a row.
        max_bytes: The budget.
        rows: [B, n], θ / τ.
        along: [B, …], what else a row has.
    """
    num_nodes = _POINTS * ((_PANELS + 1) * rows.shape[1] - 1)
    nodes = rows_together(rows, node_bytes, max_bytes)
    run = within_budget(integral, rows, len(rows) * num_nodes * node_bytes, max_bytes)
    count = max(1, nodes // num_nodes)
    found: list[Tensor] = []
    for part, *more in zip(*(torch.split(each, count) for each in (rows, *along)), strict=True):
        x, weights = _quadrature((part.detach().unsqueeze(2) + quantiles).flatten(1).sort(dim=1).values)
        places = zip(torch.split(x, nodes, dim=1), torch.split(weights, nodes, dim=1), strict=True)
        found.append(torch.stack([run(part, *more, *each) for each in places]).sum(dim=0))
    return torch.cat(found)


def _quadrature(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, [B, Q], of Gauss–Legendre rules between neighbours of the increasing rows [B, E]."""
    nodes, weights = (torch.as_tensor(rule).to(edges) for rule in np.polynomial.legendre.leggauss(_POINTS))
    half = edges.diff(dim=1).unsqueeze(2) / 2
    return (edges[:, :-1].unsqueeze(2) + half * (1 + nodes)).flatten(1), (half * weights).flatten(1)
