"""A backward pass for some rows of a forward pass: those whose ∂L/∂z is finite."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from torch import Tensor

from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import CounterNoise


class SamplerOfSome:
    """The noise of some rows of a pass, as `Sampler` gives it.

    Args:
        sampler: The noise of all rows.
        rows: [N] int64, ascending, which rows these are.
        like: [B, *shape], all rows.
    """

    def __init__(self, sampler: Sampler, rows: Tensor, like: Tensor) -> None:
        self.samples, self.key = sampler.samples, sampler.key
        self.has_noise = sampler.has_noise
        self._sampler, self._rows, self._like = sampler, rows, like

    def others(self, samples: int) -> SamplerOfSome:
        """Return the sampler of so many other noises of the same rows, independent of these."""
        return SamplerOfSome(self._sampler.others(samples), self._rows, self._like)

    def row_temperatures(self, temperature: Temperature) -> float | Tensor:
        """Return τ, a number or [N, 1, …]."""
        tau = self._sampler.row_temperatures(temperature)
        return tau.index_select(0, self._rows) if isinstance(tau, Tensor) else tau

    def perturb(self, theta: Tensor, temperature: Temperature) -> Tensor:
        """Return θ + τε_s, [..., S, N, *shape], for θ [N, *shape] or [..., S or 1, N, *shape]."""
        dim = theta.ndim - self._like.ndim
        whole = theta.new_zeros((*theta.shape[:dim], *self._like.shape)).index_copy_(dim, self._rows, theta)
        perturbed = self._sampler.perturb(whole, temperature)
        return perturbed.index_select(perturbed.ndim - self._like.ndim, self._rows)

    def counted(self, temperature: Temperature, device: torch.device) -> CounterNoise | None:
        """Return the noise of these rows as numbers, as `Sampler` does."""
        noise = self._sampler.counted(temperature, device)
        if noise is None:
            return None
        rows = self._rows + noise.first if noise.rows is None else noise.rows[self._rows]
        return replace(noise, rows=rows, first=0)

    def noise_std(self, theta: Tensor, temperature: Temperature) -> float | Tensor:
        """Return the standard deviation of the noise τε, a number or [1, N, 1, …] for θ [N, *shape]."""
        std = self._sampler.noise_std(self._like, temperature)
        return std.index_select(1, self._rows) if isinstance(std, Tensor) else std


def forward_of_some(forward: Forward, rows: Tensor) -> Forward:
    """Return what a forward pass found for some rows [N] int64, ascending."""
    return Forward(
        forward.z.index_select(1, rows),
        forward.status.index_select(1, rows),
        None if forward.rows is None else forward.rows.index_select(1, rows),
        tuple(tensor[rows] if tensor.ndim else tensor for tensor in forward.state),
        forward.theta[rows],
        cast("Sampler", SamplerOfSome(forward.sampler, rows, forward.theta)),
    )


def solve_among_all(
    solve: Callable[[Tensor, Forward], Solutions], forward: Forward, chosen: Tensor, temperature: Temperature
) -> Callable[[Tensor, Forward], Solutions]:
    """Return what solves some rows within whole batches, of which the other rows are as in the forward pass.

    Args:
        solve: Solves whole batches [..., B, *shape] of a forward pass.
        forward: What the forward pass found for all rows.
        chosen: [N] int64, ascending, which rows are asked for.
        temperature: τ of the forward pass.
    """

    def solve_some(rows: Tensor, _: Forward) -> Solutions:
        dim = rows.ndim - forward.theta.ndim
        lead = rows.shape[:dim]
        has_samples = lead[-1:] == forward.z.shape[:1]
        before = forward.sampler.perturb(forward.theta, temperature) if has_samples else forward.theta
        whole = before.expand(*lead, *forward.theta.shape).clone().index_copy_(dim, chosen, rows)
        answers = solve(whole, forward)
        answers.z, answers.status = answers.z.index_select(dim, chosen), answers.status.index_select(dim, chosen)
        if answers.failed is not None:
            answers.failed = answers.failed.index_select(dim, chosen)
        return answers

    return solve_some
