"""Gibbs distributions p(z; θ) ∝ exp(⟨θ, z⟩ / τ) over a feasible set, state by state.

θ is used as it comes: states are enumerated whatever its sign, so nothing is clipped to the problem's domain. An entry
−inf, where a variable's lower bound is 0, leaves the law of the states that don't hold it, and gets no gradient. Where
variables that θ doesn't price have utilities, the best that these may add to a state counts with ⟨θ, z⟩.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from mapgrad.errors import ShapeError
from mapgrad.exact import _subsets
from mapgrad.exact._scaled_rows import require_states_left, scaled_rows
from mapgrad.problems import KSubset, batch_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.problems import Problem


def enumerate_states(problem: Problem) -> Tensor:
    """Return all states: float64 CPU tensor [N, *shape], distinct, always in the same order.

    Raises:
        ProblemError: there are too many to enumerate.
    """
    return _states(problem).clone()


def map_state(problem: Problem, theta: Tensor) -> Tensor:
    """Return argmax ⟨θ, z⟩ by looking at every state; among equals, the one that `enumerate_states` lists first.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.

    Returns:
        [*batch, *shape] of θ's dtype and device; not differentiable.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
    """
    rows = scaled_rows(problem, theta, 1.0).detach()
    best = _scores(problem, rows, 1.0).argmax(dim=1)
    return _states(problem).to(theta.device)[best].reshape(theta.shape).to(theta.dtype)


def probabilities(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return p(z; θ) = exp(⟨θ, z⟩ / τ − A(θ / τ)) of every state.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.
        temperature: τ > 0.

    Returns:
        [*batch, N] of θ's dtype and device, states in the order of `enumerate_states`.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
        ValueError: `temperature` isn't positive.
    """
    chances = _probabilities(problem, theta, temperature)
    return chances.reshape((*batch_shape(problem, theta, "θ"), chances.shape[1])).to(theta.dtype)


def log_partition(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return A(θ / τ) = log Σ_z exp(⟨θ, z⟩ / τ), of which τ times the gradient in θ is `marginals`.

    For `KSubset` by dynamic programming in O(nk), so that n may be large; else by enumeration.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.
        temperature: τ > 0.

    Returns:
        [*batch] of θ's dtype and device.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
        ValueError: `temperature` isn't positive.
    """
    if isinstance(problem, KSubset):
        result = _subsets.log_partition(_subset_rows(problem, theta, temperature), problem.k)
    else:
        result = _scores(problem, scaled_rows(problem, theta, temperature), temperature).logsumexp(dim=1)
    return result.reshape(batch_shape(problem, theta, "θ")).to(theta.dtype)


def marginals(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return E z under the Gibbs distribution.

    For `KSubset` by dynamic programming in O(nk), so that n may be large; else by enumeration.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.
        temperature: τ > 0.

    Returns:
        [*batch, *shape] of θ's dtype and device.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
        ValueError: `temperature` isn't positive.
    """
    if isinstance(problem, KSubset):
        result = _subsets.marginals(_subset_rows(problem, theta, temperature), problem.k)
    else:
        chances = _probabilities(problem, theta, temperature)
        result = chances @ _states(problem).to(theta.device).flatten(1)
    return result.reshape(theta.shape).to(theta.dtype)


def expectation(problem: Problem, theta: Tensor, f: Callable[[Tensor], Tensor], temperature: float = 1.0) -> Tensor:
    """Return E f(z) under the Gibbs distribution.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.
        f: Maps all states, float64 [N, *shape] on θ's device and not to be written to, to values [N, ...]. What it
            depends on besides may need a gradient too.
        temperature: τ > 0.

    Returns:
        [*batch, ...] of θ's dtype and device.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype, or that of f's values, doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
        ValueError: `temperature` isn't positive.
    """
    chances = _probabilities(problem, theta, temperature)
    values = _values(problem, theta, f)
    mean = chances @ values.flatten(1) if values.ndim > 1 else chances @ values
    return mean.reshape((*batch_shape(problem, theta, "θ"), *values.shape[1:])).to(theta.dtype)


def gradient(problem: Problem, theta: Tensor, f: Callable[[Tensor], Tensor], temperature: float = 1.0) -> Tensor:
    """Return ∇_θ E f(z) = Cov(f(z), z) / τ under the Gibbs distribution, for a scalar f.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.
        f: Maps all states, float64 [N, *shape] on θ's device and not to be written to, to values [N]; θ isn't
            differentiated through it.
        temperature: τ > 0.

    Returns:
        [*batch, *shape] of θ's dtype and device.

    Raises:
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype, or that of f's values, doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
        ValueError: `temperature` isn't positive.
    """
    chances = _probabilities(problem, theta, temperature)
    values = _values(problem, theta, f)
    if values.ndim != 1:
        raise ShapeError(f"f must map states [N, *shape] to one number each, [N]; it gave {tuple(values.shape)}")
    centred = values - (chances @ values).unsqueeze(1)
    covariance = (chances * centred) @ _states(problem).to(theta.device).flatten(1)
    return (covariance / temperature).reshape(theta.shape).to(theta.dtype)


@functools.lru_cache(maxsize=8)
def _states(problem: Problem) -> Tensor:
    # a tensor born under inference_mode would be unfit for autograd for as long as it is kept
    with torch.inference_mode(mode=False):
        return problem.states()


@functools.lru_cache(maxsize=8)
def _completion_values(problem: Problem) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.as_tensor(problem.completion_values(_states(problem).numpy()))


def _scores(problem: Problem, rows: Tensor, temperature: float) -> Tensor:
    """Return what each state is worth divided by τ, [B, N], for rows of θ / τ [B, d]."""
    states, others = (part.to(rows.device) for part in (_states(problem).flatten(1), _completion_values(problem)))
    forbidden = rows.detach().isneginf()
    if not forbidden.any():
        return rows @ states.T + others / temperature
    is_barred = forbidden.double() @ (states != 0).double().T > 0
    require_states_left(problem, ~is_barred.all(dim=1))
    scores = rows.masked_fill(forbidden, 0.0) @ states.T + others / temperature
    return scores.masked_fill(is_barred, -torch.inf)


def _subset_rows(problem: KSubset, theta: Tensor, temperature: float) -> Tensor:
    rows = scaled_rows(problem, theta, temperature)
    require_states_left(problem, rows.detach().isfinite().sum(dim=1) >= problem.k)
    return rows


def _probabilities(problem: Problem, theta: Tensor, temperature: float) -> Tensor:
    return _scores(problem, scaled_rows(problem, theta, temperature), temperature).softmax(dim=1)


def _values(problem: Problem, theta: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    states = _states(problem).to(theta.device)
    values = f(states)
    if values.ndim == 0 or len(values) != len(states):
        raise ShapeError(
            f"f must map the {len(states)} states {tuple(states.shape)} to as many values, not {tuple(values.shape)}"
        )
    return values.double()
