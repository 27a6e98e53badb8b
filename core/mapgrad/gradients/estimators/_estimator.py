"""What every estimator of a gradient is, and what its forward pass leaves to its backward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mapgrad.arguments import whole_number
from mapgrad.gradients._centred import Centred
from mapgrad.gradients._noise import SumOfGamma
from mapgrad.gradients._temperature import require_temperature
from mapgrad.problems import Domain
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.problems import Problem

Solve = Callable[[Tensor], Solutions]
"""From rows [..., B, *shape] to their states z, of the same shape, and their status [..., B]."""


@dataclass(slots=True)
class Forward:
    """What a forward pass found, and all that the backward pass may use.

    An estimator gives the first five; the others are there once `Estimator.gradient` is called.

    Attributes:
        z: [S, B, *shape], the states of the pass, of θ's dtype and device as `rows` are. Only for a gradient of our own
            that asks for no more, [1, B, *shape], the mean of the S states.
        status: [S, B] int64, `Status` values: where a row has no optimum, a gradient may look elsewhere.
        rows: [S, B, *shape], the rows whose states z are: backward rows equal to them needn't be solved. May be dropped
            where a solve takes no longer than a comparison.
        state: What else the estimator wants to find again: each a tensor without dimensions, or with one entry a row in
            its first dimension.
        variables: `Solutions.variables` of the rows, for `MAPLayer.last`; None if the states aren't those of one solve.
        theta: [B, *shape], the utilities.
        sampler: The same noise as in the forward pass.
        is_training: Whether the layer is in training mode, so that what adapts may learn from this pass.
        problem: What is solved; None for a function that doesn't say.
    """

    z: Tensor
    status: Tensor
    rows: Tensor | None = None
    state: tuple[Tensor, ...] = ()
    variables: Tensor | None = field(default=None, kw_only=True)
    theta: Tensor = None  # pyright: ignore[reportAssignmentType] (there when `gradient` is called)
    sampler: Sampler = None  # pyright: ignore[reportAssignmentType] (as above)
    is_training: bool = False
    problem: Problem | None = None
    _solve: Callable[[Tensor, Forward], Solutions] = field(init=False, repr=False)
    _perturbed: Callable[[Tensor, Forward, Temperature], Solutions | None] = field(init=False, repr=False)
    _average: Callable[[Tensor, Tensor | None, Forward, Temperature], Tensor | None] = field(init=False, repr=False)
    _observe: Callable[[Tensor, Tensor, Tensor], None] = field(init=False, repr=False)

    def begin_backward(
        self,
        solve: Callable[[Tensor, Forward], Solutions],
        perturbed: Callable[[Tensor, Forward, Temperature], Solutions | None],
        average: Callable[[Tensor, Tensor | None, Forward, Temperature], Tensor | None],
        observe: Callable[[Tensor, Tensor, Tensor], None],
        *,
        is_training: bool,
        problem: Problem | None,
    ) -> None:
        """Take what the layer knows and the estimator may ask for; the layer does so before it calls `gradient`."""
        self._solve, self._perturbed, self._average, self._observe = solve, perturbed, average, observe
        self.is_training, self.problem = is_training, problem

    def solve(self, rows: Tensor) -> Solutions:
        """Return states of rows [..., S, B, *shape], as in the forward pass; rows equal to its own have its states."""
        return self._solve(rows, self)

    def solve_perturbed(self, theta: Tensor, temperature: Temperature) -> Solutions:
        """Return states of θ + τε_s with the forward pass's noise, θ [..., S or 1, B, *shape].

        As ``solve(sampler.perturb(theta, temperature))``, but for solvers that add the noise without its memory.
        """
        found = self._perturbed(theta, self, temperature)
        return self.solve(self.sampler.perturb(theta, temperature)) if found is None else found

    @property
    def is_mean(self) -> bool:
        """Whether z is the mean of all samples."""
        return len(self.z) < self.sampler.samples

    def states(self, theta: Tensor, temperature: Temperature) -> Tensor:
        """Return the states of θ + τε_s, [S, B, *shape], or their mean where z is one; θ [S or 1, B, *shape]."""
        found = self._average(theta, None, self, temperature) if self.is_mean and len(theta) == 1 else None
        return self._like_z(self.solve_perturbed(theta, temperature).z) if found is None else found

    def difference(self, theta: Tensor, less: Tensor, temperature: Temperature) -> Tensor:
        """Return what `states` does, less that of other rows like θ."""
        found = None
        if len(self.z) == len(theta) == len(less) == 1:
            found = self._average(theta, less, self, temperature)
        if found is None:
            one, other = self.solve_perturbed(torch.stack([theta, less]), temperature).z
            found = self._like_z(one - other)
        return found

    def _like_z(self, states: Tensor) -> Tensor:
        return states.mean(dim=0, keepdim=True) if self.is_mean else states

    def observe(self, difference: Tensor, gradient: Tensor) -> None:
        """Let the layer count the rows that a step [S, B, *shape] of the answers moved, and that it could have."""
        self._observe(difference, gradient, self.z)


class Estimator(nn.Module, ABC):
    """Perturbs θ in the forward pass and turns the loss's gradient into one for θ in the backward pass.

    A subclass gives `gradient`, and `forward` where it does more than solve perturbed rows. Both see plain tensors and
    are never traced, whatever happens around the layer: they may loop, branch on values and call NumPy. A layer raises
    TypeError where they return something else than is said here, ShapeError where it is a tensor that doesn't fit.

    Args:
        noise: A noise law, any object with its `sample` method, None for no noise, or "auto": Sum-of-Gamma with the
            problem's κ, of mean 0 unless all states have the same sum, as its own mean would else make states with a
            larger sum more likely; or no noise where the problem's domain would clip it or no problem is known.
        samples: S, the number of perturbed copies of θ.
        temperature: τ, what the noise is multiplied by: a number, or `Relative` to the scale of each row.

    Attributes:
        is_adaptive: Whether what a step learns changes the steps after it, so that `begin` must be called.

    Raises:
        TypeError: `samples` isn't an int, or `noise` isn't one.
        ValueError: `samples` is below 1, or `temperature` negative, infinite or NaN.
    """

    is_adaptive: bool = False

    def __init__(self, noise: Noise | Literal["auto"] | None, *, samples: int, temperature: Temperature) -> None:
        super().__init__()
        samples = whole_number("samples", samples, 1)
        is_law = callable(getattr(noise, "sample", None)) and not isinstance(noise, type)
        if noise is not None and noise != "auto" and not is_law:
            raise TypeError(
                f'noise must be "auto", None or an object with a method sample(shape, *, generator, dtype, device), '
                f"got {noise!r}"
            )
        self.noise = noise
        self.samples = samples
        self.temperature = require_temperature("temperature", temperature)

    def noise_for(self, problem: Problem | None) -> Noise | None:
        """Return the noise that is drawn for a problem; None where none is."""
        noise = self.noise
        if noise is None or self.largest_temperature == 0:
            return None
        if not isinstance(noise, str):
            return noise
        if problem is None or problem.domain is not Domain.REAL:
            return None
        return self.auto_noise(problem)

    def auto_noise(self, problem: Problem) -> Noise:
        """Return the law that noise="auto" stands for, for a problem whose domain clips nothing."""
        law = SumOfGamma(problem.kappa)
        return law if problem.constant_sums else Centred(law)

    @property
    def largest_temperature(self) -> Temperature:
        """The largest factor by which noise is ever multiplied; where it is zero, none is drawn."""
        return self.temperature

    def begin(self, key: int) -> None:
        """Begin a training step: take in what the steps before have learnt.

        Args:
            key: What stands for the step, and is `sampler.key` in each of its passes, of which there are several where
                rows have different problems. A pass that a checkpoint repeats has the key of the step that it repeats,
                and begins none: what a pass uses of what was learnt must be kept under its key.
        """

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's gradient depends on that row alone, so that a batch may be handled in parts."""
        return False

    @property
    def copies(self) -> int:
        """How many rows like it a row's gradient holds at a time beside its S states; batches are cut by it."""
        return 0

    @property
    def advice(self) -> str:
        """What to do where most rows that could improve get a zero gradient, to end a warning."""
        return "take more samples, or a longer step"

    def forward(self, theta: Tensor, sampler: Sampler, solve: Solve) -> Forward:
        """Return the states of a pass; by default, those of θ + τε_s.

        Args:
            theta: [B, *shape], utilities, at least float32; not written to.
            sampler: The noise; `sampler.perturb(theta, τ)` adds it, and `sampler.samples` is S.
            solve: Returns the states of rows [..., B, *shape]; may be asked several times. Where θ = −inf, an entry
                is forbidden whatever the rows have there; −inf elsewhere is refused.
        """
        answers, rows = None, None
        perturbed = getattr(solve, "perturbed", None)  # of a solver that adds the noise itself
        if perturbed is not None:
            answers = perturbed(theta, sampler, self.temperature)
        if answers is None:
            rows = sampler.perturb(theta, self.temperature)
            answers = solve(rows)
        return Forward(answers.z, answers.status, rows, variables=answers.variables)

    @abstractmethod
    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return the gradient for θ, [B, *shape] of its dtype and device.

        Args:
            forward: What the forward pass saw and found.
            gradient: g̃, [S, *] = S · ∂L/∂z_s where the layer returns all samples, [1, *] = ∂L/∂z̄ where it returns their
                mean, for which S · ∂L/∂z_s is the same for all s; not written to.
        """

    def state_like(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Return tensors of the shapes and dtypes of `Forward.state`; torch.compile and torch.func need them.

        Args:
            theta: [B, *shape], as for `forward`.
        """
        return ()

    @property
    def stats(self) -> dict[str, float]:
        """What `MAPLayer.stats` shows of the estimator beside the layer's own counts; reading changes nothing."""
        return {}
