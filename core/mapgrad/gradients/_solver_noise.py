"""Perturbed rows for a solver that adds the noise itself, in both directions of a pass: their states, or the means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import torch

from mapgrad.errors import SolverCrashError
from mapgrad.gradients._forbidden import AVERAGED, PLAIN
from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators import Estimator
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import CounterNoise

_MANY: Final = 1 << 24
"""Entries of S states of B rows, above which averaging them takes less time than writing them: on an H100, a step of
10,000 × 1,000 with 16 samples took 5 ms in place of 17, one of 512 × 1,000 took 3.6 ms in place of 2.6."""


class _Pass(Protocol):
    """What is used of a `Pass`."""

    estimator: Estimator
    work: SolverAtWork
    samples: int
    is_mean: bool
    is_masked: bool


def solve_perturbed(
    work: SolverAtWork,
    theta: Tensor,
    sampler: Sampler,
    temperature: Temperature,
    may_forbid: Callable[[], Tensor] | None = None,
) -> Solutions | None:
    """Return what solving ``sampler.perturb(theta, temperature)`` does, or None where the solver doesn't add the noise.

    Args:
        work: The solver.
        theta: [B, *shape] or [..., S or 1, B, *shape], utilities.
        sampler: The noise.
        temperature: τ.
        may_forbid: Returns bool [B, *shape] or [], where −inf may forbid; None for all.
    """
    adder = work.adder
    noise = None if adder is None or not adder.adds_on(theta.device) else sampler.counted(temperature, theta.device)
    if adder is None or noise is None or work.problem is None:
        return None
    split = theta.ndim - len(work.problem.shape)
    lead, rows = theta.shape[: max(split - 2, 0)], theta.shape[split - 1 :]
    theta = theta.reshape(-1, theta.shape[split - 2] if split > 1 else 1, *rows)
    found = adder.solve(
        theta, noise, None if may_forbid is None else lambda: may_forbid().expand(theta.shape).flatten(0, 2)
    )
    if found is not None:
        found.z = found.z.view(*lead, sampler.samples, *rows)
        found.status = found.status.view(*lead, sampler.samples, rows[0])
    return found


def perturb_forward(pass_: _Pass, theta: Tensor, sampler: Sampler, temperature: Temperature) -> Solutions | None:
    """Return `solve_perturbed` of a forward pass."""
    found = solve_perturbed(pass_.work, theta, sampler, temperature)
    pass_.is_masked |= found is not None and found.forbidden is not None
    return found


def perturb_again(pass_: _Pass, theta: Tensor, forward: Forward, temperature: Temperature) -> Solutions | None:
    """Return `solve_perturbed` of a backward pass, whose forbidden entries are those of its forward pass."""
    adder = pass_.work.adder
    if adder is None or not adder.adds_on(theta.device):
        return None
    forbidden = _forbidden(pass_, forward)
    rows = theta.masked_fill(forbidden, -torch.inf) if pass_.is_masked else theta
    found = solve_perturbed(pass_.work, rows, forward.sampler, temperature, lambda: forbidden)
    if found is not None:
        require_own_memory(found, forward, pass_.work.factory.label)
    return found


def average_forward(pass_: _Pass, theta: Tensor, sampler: Sampler) -> Forward | None:
    """Return a forward pass that found nothing but the mean of S states, as z [1, B, *shape].

    None where somebody may need the states, or the solver doesn't average.
    """
    work, estimator = pass_.work, type(pass_.estimator)
    if work.adder is None or not work.adder.averages_on(theta.device):
        return None
    is_enough = estimator.forward in PLAIN and estimator.gradient in AVERAGED and not pass_.estimator.is_adaptive
    if not (is_enough and pass_.is_mean):
        return None
    noise = _noise_to_average(work, theta, sampler, pass_.estimator.temperature)
    found = None if noise is None else work.adder.mean(theta, noise)
    if found is None:
        return None
    pass_.is_masked |= found.forbidden is not None
    return Forward(found.z[None], found.status[None], theta=theta, sampler=sampler)


def average_again(
    pass_: _Pass, theta: Tensor, less: Tensor | None, forward: Forward, temperature: Temperature
) -> Tensor | None:
    """Return the mean of S states in a backward pass, less that of others where there are such.

    Args:
        pass_: The pass.
        theta: [1, B, *shape].
        less: Like θ, or None.
        forward: Its forward pass.
        temperature: τ.

    Returns:
        [1, B, *shape]; None where the solver doesn't average.
    """
    work = pass_.work
    noise = _noise_to_average(work, theta, forward.sampler, temperature)
    if noise is None or work.adder is None:
        return None
    forbidden = _forbidden(pass_, forward)
    sides = (None if rows is None else rows[0] for rows in (theta, less))
    if pass_.is_masked:
        sides = (None if rows is None else rows.masked_fill(forbidden, -torch.inf) for rows in sides)
    rows, other = sides
    assert rows is not None
    found = work.adder.mean(rows, noise, other, lambda: forbidden.expand(forward.theta.shape))
    if found is None:
        return None
    require_own_memory(found, forward, work.factory.label)
    return found.z[None]


def _forbidden(pass_: _Pass, forward: Forward) -> Tensor:
    """Return which entries are forbidden, bool [B, *shape], or [] where none is."""
    if pass_.is_masked:
        return forward.theta.isneginf()
    return torch.zeros((), dtype=torch.bool, device=forward.theta.device)


def _noise_to_average(
    work: SolverAtWork, theta: Tensor, sampler: Sampler, temperature: Temperature
) -> CounterNoise | None:
    """Return the noise with which the solver averages S states of θ [..., *shape]; None where states are found."""
    is_large = sampler.samples > 1 and sampler.samples * theta.numel() > _MANY
    is_worth_it = is_large and work.adder is not None and work.adder.averages_on(theta.device)
    return sampler.counted(temperature, theta.device) if is_worth_it else None


def require_own_memory(answers: Solutions, forward: Forward, label: str) -> None:
    """Refuse answers of a backward pass that lie where those of its forward pass lay.

    Raises:
        SolverCrashError: they do.
    """
    if answers.z.data_ptr() == forward.z.data_ptr() and answers.z.numel():
        raise SolverCrashError(
            f"{label} answered the backward pass in the memory of the forward pass's states, which are lost by that: "
            f"let it return a tensor of its own each time"
        )
