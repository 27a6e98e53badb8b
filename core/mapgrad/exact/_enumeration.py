"""Gibbs distributions p(z; θ) ∝ exp(⟨θ, z⟩ / τ) over a feasible set, state by state.

θ is used as it comes: states are enumerated whatever its sign, so nothing is clipped to the problem's domain. An entry
−inf, where a variable's lower bound is 0, leaves the law of the states that don't hold it, and gets no gradient. Where
variables that θ doesn't price have utilities, the best that these may add to a state counts with ⟨θ, z⟩.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import ByteCache, require_float
from mapgrad.errors import ShapeError
from mapgrad.exact._chunks import MAX_BYTES, in_chunks
from mapgrad.exact._oracle import NEARLY_ONE, Moments, Oracle
from mapgrad.exact._scaled_rows import NO_STATE, floored_rows, require_states_left
from mapgrad.exact._uncompiled import uncompiled
from mapgrad.problems import batch_shape
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.problems import Problem

_KEPT_BYTES: Final = 2**28
"""What states that are kept may take together, of all problems; at least those of one are."""


@uncompiled
def enumerate_states(problem: Problem) -> Tensor:
    """Return all states: float64 CPU tensor [N, *shape], distinct, always in the same order.

    Raises:
        TypeError: `problem` isn't a `Problem`.
        ProblemError: there are too many to enumerate.
    """
    return _states(require_problem(problem)).clone()


@uncompiled
def map_state(problem: Problem, theta: Tensor) -> Tensor:
    """Return argmax ⟨θ, z⟩ by looking at every state; among equals, the one that `enumerate_states` lists first.

    Args:
        problem: The feasible set.
        theta: [*batch, *shape], utilities, any floating dtype and device.

    Returns:
        [*batch, *shape] of θ's dtype and device; not differentiable.

    Raises:
        TypeError: `problem` isn't a `Problem`.
        ProblemError: there are too many states to enumerate.
        ShapeError: θ's shape or dtype doesn't fit.
        NonFiniteError: θ has NaN or infinite entries that forbid nothing.
        InfeasibleError: a row has no state without forbidden entries.
    """
    rows = floored_rows(require_problem(problem), require_float(theta).detach(), 1.0)

    def best(part: Tensor) -> Tensor:
        return torch.stack(_scores(problem, part, 1.0).max(dim=1), dim=1)

    found = _by_chunks(problem, best, rows)
    require_states_left(problem, found[:, 0] > NO_STATE)
    return _states(problem).to(theta.device)[found[:, 1].long()].reshape(theta.shape).to(theta.dtype)


@uncompiled
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
    rows = floored_rows(problem, theta, temperature)
    scores = _scores(problem, rows, temperature)
    require_states_left(problem, scores.detach().amax(dim=1) > NO_STATE)
    return scores.softmax(dim=1).reshape((*batch_shape(problem, theta, "θ"), scores.shape[1])).to(theta.dtype)


@uncompiled
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
    values = _values(problem, theta, f)

    def means(part: Tensor, numbers: Tensor) -> Tensor:
        scores = _scores(problem, part, temperature)
        return torch.cat((scores.softmax(dim=1) @ numbers, scores.amax(dim=1, keepdim=True)), dim=1)

    mean = _by_chunks(problem, means, floored_rows(problem, theta, temperature), values.reshape(len(values), -1))
    require_states_left(problem, mean[:, -1].detach() > NO_STATE)
    return mean[:, :-1].reshape((*batch_shape(problem, theta, "θ"), *values.shape[1:])).to(theta.dtype)


@uncompiled
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
    values = _values(problem, theta, f)
    if values.ndim != 1:
        raise ShapeError(f"f must map states [N, *shape] to one number each, [N]; it gave {tuple(values.shape)}")
    states = _states(problem).to(theta.device).flatten(1)

    def covariances(part: Tensor) -> Tensor:
        scores = _scores(problem, part, temperature)
        chances = scores.softmax(dim=1)
        centred = values - (chances @ values).unsqueeze(1)
        return torch.cat(((chances * centred) @ states, scores.amax(dim=1, keepdim=True)), dim=1)

    found = _by_chunks(problem, covariances, floored_rows(problem, theta, temperature))
    require_states_left(problem, found[:, -1].detach() > NO_STATE)
    return (found[:, :-1] / temperature).reshape(theta.shape).to(theta.dtype)


class Enumeration(Oracle):
    """State by state."""

    name = "enumeration"

    def __init__(self, problem: Problem, max_bytes: int) -> None:
        super().__init__(problem, _row_bytes(problem), max_bytes)

    @cached_property
    def log_num_states(self) -> float:
        """The logarithm of the number of states."""
        return math.log(len(_states(self.problem)))

    @property
    def _uniforms(self) -> int:
        return 1

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        return _scores(self.problem, rows, temperature).logsumexp(dim=1)

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        scores = _scores(self.problem, rows, temperature)
        chances = scores.softmax(dim=1)
        states, others = _states_on(self.problem, rows.device)
        return Moments(chances @ states, scores.logsumexp(dim=1), chances @ others / temperature)

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        sums = _scores(self.problem, rows, temperature).softmax(dim=1).cumsum(dim=1)
        heights = uniform[:, :, 0].T * NEARLY_ONE * sums[:, -1:]
        chosen = torch.searchsorted(sums, heights.contiguous(), right=True)
        return _states_on(self.problem, rows.device)[0][chosen.T]


def _states_of(problem: Problem) -> Tensor:
    # a tensor born under inference_mode would be unfit for autograd for as long as it is kept
    with torch.inference_mode(mode=False):
        return problem.states()


def _completion_values_of(problem: Problem) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.as_tensor(problem.completion_values(_states(problem).numpy()))


def _bytes_of(tensor: Tensor) -> int:
    return tensor.nbytes


_states: Final = ByteCache(_states_of, _bytes_of, _KEPT_BYTES)
_completion_values: Final = ByteCache(_completion_values_of, _bytes_of, _KEPT_BYTES)


def _states_on(problem: Problem, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return states, [N, d], and what they are worth beside ⟨θ, z⟩, [N]."""
    with torch.inference_mode(mode=False):
        return _states(problem).to(device).flatten(1), _completion_values(problem).to(device)


def _scores(problem: Problem, rows: Tensor, temperature: float) -> Tensor:
    """Return what each state is worth divided by τ, [B, N], for rows of θ / τ [B, d]; below `NO_STATE` if forbidden."""
    states, others = _states_on(problem, rows.device)
    return rows @ states.T + others / temperature


def _row_bytes(problem: Problem) -> int:
    return 8 * 5 * len(_states(problem))


def _by_chunks(problem: Problem, function: Callable[..., Tensor], rows: Tensor, *shared: Tensor) -> Tensor:
    return in_chunks(function, rows, _row_bytes(problem), MAX_BYTES, *shared)


def _values(problem: Problem, theta: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    states = _states(problem).to(theta.device)
    values = f(states)
    if values.ndim == 0 or len(values) != len(states):
        raise ShapeError(
            f"f must map the {len(states)} states {tuple(states.shape)} to as many values, not {tuple(values.shape)}"
        )
    return values.double()
