"""Perturbed rows for a solver that adds the noise itself, in both directions of a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.errors import SolverCrashError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients.estimators import Forward
    from mapgrad.solutions import Solutions


def solve_perturbed(
    work: SolverAtWork,
    theta: Tensor,
    sampler: Sampler,
    temperature: float,
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
    noise = sampler.counted(temperature, theta.device) if work.adds_noise_on(theta.device) else None
    if noise is None or work.problem is None:
        return None
    split = theta.ndim - len(work.problem.shape)
    lead, rows = theta.shape[: max(split - 2, 0)], theta.shape[split - 1 :]
    theta = theta.reshape(-1, theta.shape[split - 2] if split > 1 else 1, *rows)
    found = work.solve_perturbed(
        theta, noise, None if may_forbid is None else lambda: may_forbid().expand(theta.shape).flatten(0, 2)
    )
    if found is not None:
        found.z = found.z.view(*lead, sampler.samples, *rows)
        found.status = found.status.view(*lead, sampler.samples, rows[0])
    return found


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
