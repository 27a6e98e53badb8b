"""Which exact oracle fits a problem, and the functions that ask it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import ByteCache
from mapgrad.errors import ProblemError, UnsupportedProblemError
from mapgrad.exact._chunks import MAX_BYTES
from mapgrad.exact._diagram import Diagram
from mapgrad.exact._enumeration import Enumeration
from mapgrad.exact._k_subsets import OneHot, Subsets
from mapgrad.exact._paths import Paths
from mapgrad.exact._permanents import Permanents
from mapgrad.exact._trees import Trees
from mapgrad.exact._uncompiled import uncompiled
from mapgrad.problems import (
    Arborescence,
    Assignment,
    Domain,
    KSubset,
    Ranking,
    ShortestPath,
    SpanningTree,
)
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.exact._oracle import Oracle
    from mapgrad.problems import Problem

_logger = logging.getLogger("mapgrad")

_KEPT_BYTES: Final = 2**28
"""What oracles that are kept may take together: those of some thousand small problems."""


@uncompiled
def oracle(problem: Problem, *, max_bytes: int = MAX_BYTES) -> Oracle:
    """Return the exact oracle of a problem's Gibbs laws, and log its name on the logger `mapgrad`.

    ============== ================================================== =============================================
    name           problems                                           work for a row
    ============== ================================================== =============================================
    `one-hot`      `KSubset(n, 1)`                                    n
    `k-subset`     `KSubset(n, k)`                                    n k
    `star-mesh`    `SpanningTree`, `Arborescence`                     num_nodes³
    `paths`        `ShortestPath` of a directed graph without cycles  edges
    `permanent`    `Assignment`, `Ranking`                            n m 2ⁿ, n the smaller side
    `diagram`      those of 0/1 variables that fit                    nodes of `Diagram`
    `enumeration`  the others, with at most 100,000 states            states
    ============== ================================================== =============================================

    Args:
        problem: The feasible set.
        max_bytes: What an answer may take beside θ and its result, in bytes.

    Raises:
        TypeError: `problem` isn't a `Problem`.
        ProblemError: a single row takes more than `max_bytes`; or there are too many states to enumerate.
        UnsupportedProblemError: nothing fits: the message says why.
    """
    return _oracles((require_problem(problem), max_bytes))


def _made(key: tuple[Problem, int]) -> Oracle:
    problem, max_bytes = key
    with torch.inference_mode(mode=False):  # what is born under it would be unfit for autograd
        found = _picked(problem, max_bytes)
    _logger.info("%r", found)
    return found


def _bytes_of(found: Oracle) -> int:
    return found.held_bytes


_oracles: Final = ByteCache(_made, _bytes_of, _KEPT_BYTES)


def _picked(problem: Problem, max_bytes: int) -> Oracle:
    match problem:
        case KSubset(k=1):
            return OneHot(problem, max_bytes)
        case KSubset():
            return Subsets(problem, max_bytes)
        case SpanningTree() | Arborescence():
            return Trees(problem, max_bytes)
        case ShortestPath(domain=Domain.REAL):
            return Paths(problem, max_bytes)
        case Assignment() | Ranking():
            return Permanents(problem, max_bytes)
        case _:
            return _general(problem, max_bytes)


def _general(problem: Problem, max_bytes: int) -> Oracle:
    try:
        return Diagram(problem, max_bytes=max_bytes)
    except UnsupportedProblemError as error:
        refusal = error
    try:
        return Enumeration(problem, max_bytes)
    except (ProblemError, UnsupportedProblemError) as error:
        raise type(error)(f"no exact oracle fits: {error}. Nor does a diagram: {refusal}") from error


@uncompiled
def log_partition(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return A(θ / τ) = log Σ_z exp(⟨θ, z⟩ / τ): `Oracle.log_partition` of the `oracle` that fits, [*batch]."""
    return oracle(problem).log_partition(theta, temperature)


@uncompiled
def marginals(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return E z under p(z; θ) ∝ exp(⟨θ, z⟩ / τ): `Oracle.marginals` of the `oracle` that fits, [*batch, *shape]."""
    return oracle(problem).marginals(theta, temperature)


@uncompiled
def entropy(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return −E log p(z; θ): `Oracle.entropy` of the `oracle` that fits, [*batch]."""
    return oracle(problem).entropy(theta, temperature)


@uncompiled
def kl_to_uniform(problem: Problem, theta: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(p(z; θ) ‖ uniform law): `Oracle.kl_to_uniform` of the `oracle` that fits, [*batch]."""
    return oracle(problem).kl_to_uniform(theta, temperature)


@uncompiled
def sample(
    problem: Problem,
    theta: Tensor,
    count: int,
    temperature: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw states from p(z; θ) ∝ exp(⟨θ, z⟩ / τ): `Oracle.sample` of the `oracle` that fits, [S, *batch, *shape]."""
    return oracle(problem).sample(theta, count, temperature, generator=generator)
