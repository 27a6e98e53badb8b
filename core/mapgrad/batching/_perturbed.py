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
from mapgrad.recording import RECORDERS
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers import BatchSolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.batching._counts import Counts
    from mapgrad.problems import Problem
    from mapgrad.solvers import CounterNoise

_LARGEST: Final = 2.0**120
"""Up to which θ and temperature can't make a sum that overflows float32."""


class NoiseAdder:
    """A solver of batches that adds a layer's noise itself, where it is worth asking.

    Args:
        solver: The solver.
        problem: What it solves.
        counts: Get what it does.
    """

    def __init__(self, solver: BatchSolver[Any], problem: Problem, counts: Counts) -> None:
        self._solver, self._problem, self._counts = solver, problem, counts
        self._adds, self._averages = _has(solver, "solve_perturbed"), _has(solver, "mean_perturbed")

    @classmethod
    def of(cls, solver: BatchSolver[Any], problem: Problem, counts: Counts) -> NoiseAdder | None:
        """Return what asks the solver; None where it adds no noise."""
        adder = cls(solver, problem, counts)
        return adder if adder._adds or adder._averages else None

    def adds_on(self, device: torch.device) -> bool:
        """Whether `solve` is worth asking: on the CPU, noise in blocks that its cache holds costs as much."""
        return self._adds and device.type != "cpu" and not RECORDERS.wants_all

    def averages_on(self, device: torch.device) -> bool:
        """Whether `mean` is worth asking."""
        return self._averages and device.type != "cpu" and not RECORDERS.wants_all

    def solve(
        self, theta: Tensor, noise: CounterNoise, may_forbid: Callable[[], Tensor] | None = None
    ) -> Solutions | None:
        """Return states of θ [G, S or 1, B, *shape] with noise that the solver adds: see `solve_perturbed`."""
        found = solve_perturbed(self._solver, self._problem, theta, noise, may_forbid)
        self._counts.add({} if found is None else found.stats)
        return found

    def mean(
        self,
        theta: Tensor,
        noise: CounterNoise,
        less: Tensor | None = None,
        may_forbid: Callable[[], Tensor] | None = None,
    ) -> Solutions | None:
        """Return means of states of θ [B, *shape], less others, with noise that the solver adds: `mean_perturbed`."""
        found = mean_perturbed(self._solver, self._problem, theta, noise, less, may_forbid)
        self._counts.add({} if found is None else found.stats)
        return found


def _has(solver: BatchSolver[Any], method: str) -> bool:
    plain: Any = vars(BatchSolver)[method]
    return getattr(type(solver), method, plain) is not plain


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
    theta = with_version(theta.detach().contiguous())
    is_masked = _is_masked(theta.flatten(0, 2), problem, noise, may_forbid)
    if is_masked is None:
        return None
    shape = (theta.shape[0], noise.samples, *theta.shape[2:])
    answer = _answer(solver, "solve_perturbed", [theta], shape, noise)
    if answer is None:
        return None
    forbidding = theta.expand(shape).flatten(0, 2) if is_masked else None
    return _solutions(solver, answer.flatten(0, 2), forbidding, math.prod(shape[:3]), started)


def mean_perturbed(
    solver: BatchSolver[Any],
    problem: Problem,
    theta: Tensor,
    noise: CounterNoise,
    less: Tensor | None,
    may_forbid: Callable[[], Tensor] | None,
) -> Solutions | None:
    """Have the means of rows' states with noise that the solver adds; as `solve_perturbed`, but for these.

    Args:
        solver: See there, likewise problem and noise.
        problem: See there.
        theta: [B, *shape].
        noise: See there.
        less: Like θ; None for nothing that is subtracted.
        may_forbid: As for `SolverAtWork.solve`, about θ and `less`, which have −inf in the same places.

    Returns:
        z [B, *shape], means or their differences, and status [B].
    """
    started = time.perf_counter()
    sides = [with_version(rows.detach().contiguous()) for rows in (theta, less) if rows is not None]
    are_masked = [_is_masked(rows, problem, noise, may_forbid) for rows in sides]
    if None in are_masked:
        return None
    answer = _answer(solver, "mean_perturbed", sides, tuple(theta.shape), noise)
    if answer is None:
        return None
    count = noise.samples * len(theta) * len(sides)
    return _solutions(solver, answer, sides[0] if any(are_masked) else None, count, started)


def _is_masked(
    rows: Tensor, problem: Problem, noise: CounterNoise, may_forbid: Callable[[], Tensor] | None
) -> bool | None:
    """Tell whether rows [N, *shape] have forbidden entries; None for rows that the solver isn't given."""
    if problem.domain is not Domain.REAL or not rows.numel():
        return None
    low, high = extremes(rows)
    is_masked = not (math.isfinite(low) and math.isfinite(high)) and has_forbidden(rows, problem, may_forbid)
    if is_masked:
        low, high = extremes(rows.masked_fill(rows.isneginf(), 0.0))
    return None if max(-low, high, noise.temperature) > _LARGEST else is_masked


def _answer(
    solver: BatchSolver[Any], method: str, sides: list[Tensor], shape: tuple[int, ...], noise: CounterNoise
) -> Tensor | None:
    """Return what a solver's method answers to θ, and to what is subtracted where there is such, once that fits."""
    theta, *less = sides
    versions = [rows._version for rows in sides]  # noqa: SLF001 (torch documents it for this use)
    with torch.no_grad():
        answer: Any = getattr(solver, method)(theta, noise, *less)
    if answer is None:
        return None
    if [rows._version for rows in sides] != versions:  # noqa: SLF001 (as above)
        raise ValueError("the solver wrote to θ, which must come out as it went in: let it work on a copy")
    if not isinstance(answer, Tensor):
        raise TypeError(f"{method} returned {type(answer).__name__} where a tensor or None was expected")
    if answer.shape != shape or answer.dtype != theta.dtype or answer.device != theta.device:
        raise ValueError(
            f"{method} returned {answer.dtype} {tuple(answer.shape)} on {answer.device} where {theta.dtype} "
            f"{shape} on {theta.device} was expected"
        )
    return answer.contiguous()


def _solutions(
    solver: BatchSolver[Any], z: Tensor, forbidding: Tensor | None, count: int, started: float
) -> Solutions | None:
    """Return z [N, *shape] as answers to `count` rows; None where a row fails.

    Args:
        solver: Whose answers they are.
        z: They.
        forbidding: Like z, −inf where an entry is forbidden; None where none is.
        count: How many rows were solved.
        started: When, by `time.perf_counter`.
    """
    status = Status.OPTIMAL if solver.traits.exact else Status.FEASIBLE
    solutions = Solutions(z, plain_status(int(status), len(z), z.device))
    if not are_finite(z):
        return None
    if forbidding is not None and not refuse_forbidden(solutions, forbidding, is_of_function=False):
        return None
    solutions.stats = {"rows": count, "solves": count, "seconds": time.perf_counter() - started}
    return solutions
