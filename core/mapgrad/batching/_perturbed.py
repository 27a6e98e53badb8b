"""Perturbed rows on θ's device, for a `BatchSolver` that adds the noise itself."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.batching._batches import plain_status, with_version
from mapgrad.batching._forbidden import refuse_forbidden
from mapgrad.batching._theta import are_finite, extremes, has_forbidden
from mapgrad.problems import Domain
from mapgrad.solutions import Solutions, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.problems import Problem
    from mapgrad.solvers import BatchSolver, CounterNoise

_LARGEST: Final = 2.0**120
"""Up to which θ and temperature can't make a sum that overflows float32."""


def solve_perturbed(
    solver: BatchSolver[Any],
    problem: Problem,
    theta: Tensor,
    noise: CounterNoise,
    may_forbid: Callable[[], Tensor] | None,
) -> Solutions | None:
    """Have rows solved with noise that the solver adds.

    Args:
        solver: The solver.
        problem: What it solves.
        theta: [G, S or 1, B, *shape].
        noise: That of S samples of B rows.
        may_forbid: As for `SolverAtWork.solve`, about θ.

    Returns:
        z [G · S · B, *shape] and status [G · S · B], all of them answers; None where something stands against it, be it
        a row that fails: then noise is to be added to θ and the sum solved.

    Raises:
        NonFiniteError: rows of θ have NaN or infinite entries that forbid nothing.
        TypeError, ValueError: the solver's answer isn't what it must be.
    """
    started = time.perf_counter()
    if problem.domain is not Domain.REAL or not theta.numel():
        return None
    theta = with_version(theta.detach().contiguous())
    rows = theta.flatten(0, 2)
    low, high = extremes(rows)
    is_masked = not (math.isfinite(low) and math.isfinite(high)) and has_forbidden(rows, problem, may_forbid)
    if is_masked:
        low, high = extremes(rows.masked_fill(rows.isneginf(), 0.0))
    if max(-low, high, noise.temperature) > _LARGEST:
        return None
    version = theta._version  # noqa: SLF001 (torch documents it for this use)
    with torch.no_grad():
        answer: Any = solver.solve_perturbed(theta, noise)
    if answer is None:
        return None
    shape = (theta.shape[0], noise.samples, *theta.shape[2:])
    if theta._version != version:  # noqa: SLF001 (as above)
        raise ValueError("the solver wrote to θ, which must come out as it went in: let it work on a copy")
    if not isinstance(answer, Tensor):
        raise TypeError(f"solve_perturbed returned {type(answer).__name__} where a tensor or None was expected")
    if answer.shape != shape or answer.dtype != theta.dtype or answer.device != theta.device:
        raise ValueError(
            f"solve_perturbed returned {answer.dtype} {tuple(answer.shape)} on {answer.device} where {theta.dtype} "
            f"{shape} on {theta.device} was expected"
        )
    z = answer.contiguous().flatten(0, 2)
    status = Status.OPTIMAL if solver.traits.exact else Status.FEASIBLE
    solutions = Solutions(z, plain_status(int(status), len(z), z.device))
    if not are_finite(z):
        return None
    if is_masked and not refuse_forbidden(solutions, theta.expand(shape).flatten(0, 2), is_of_function=False):
        return None
    solutions.stats = {"rows": len(z), "solves": len(z), "seconds": time.perf_counter() - started}
    return solutions
