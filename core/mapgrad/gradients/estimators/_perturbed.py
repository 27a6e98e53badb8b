"""Perturbed optimizers: the score function's gradient of the mean state."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor

from mapgrad.batching import require_bool, users_level
from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._noise import log_mean, require_density, scores
from mapgrad.gradients._temperature import require_multiplier
from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Solve

_GAUSSIAN: Final = Gaussian()


class Perturbed(Estimator):
    """Perturbed optimizers (Berthet, Blondel, Teboul, Cuturi, Vert and Bach, NeurIPS 2020, arXiv 2002.08676).

    With the mean over s as output it estimates the gradient of the loss of the mean, L(E MAP(θ + σε)), without bias:
    (1/S) Σ_s ⟨z_s, g̃_s⟩ (−∇ log ρ(ε_s)) / σ. With all samples as output, that of Σ_s ⟨z_s, g̃_s⟩ with g̃ held. It costs
    no backward solve.

    Multiplicative noise keeps the signs of θ, as costs of paths need it, and its mean (Dalle, Baty, Bouvier and
    Parmentier 2022, arXiv 2207.13513): θ ∘ exp(σε − log E e^{σε}) in place of θ + σε, and a gradient that is divided by
    θ, too. It is for θ of one sign: let the network end in softplus, and pass ``minimize=True`` for costs. An entry
    whose sign is wrong keeps it under all noise, so that no sample tells what the right one would be worth, and next to
    0 the gradient has no bound.

    A pass without noise, as in eval mode, has a gradient of 0 by construction, with a warning when one is
    differentiated.

    Args:
        noise: ρ, a law with a differentiable `log_prob`; for `multiplicative` one of ours, or with `log_mgf`.
        samples: S.
        temperature: σ; see `Estimator`. A number for `multiplicative`.
        multiplicative: Whether noise multiplies θ. The gradient is then 0 where θ is, as it has no value there.
        baseline: ``"loo"`` subtracts from each ⟨z_s, g̃_s⟩ what the mean of the other samples' states would give, which
            adds no bias. It needs S > 1, and without it the variance has no bound as σ goes to 0. None for none;
            ``"auto"`` for ``"loo"``, or None where S = 1.

    Raises:
        TypeError: `noise` isn't a law with `log_prob`, `multiplicative` isn't a bool, or the temperature of
            multiplicative noise is relative; or as `Estimator`.
        ValueError: the temperature is 0, `baseline` is unknown, or ``"loo"`` for one sample, or multiplicative noise of
            this law and temperature has no mean; or as `Estimator`.
    """

    noise: Noise

    def __init__(
        self,
        noise: Noise = _GAUSSIAN,
        *,
        samples: int = 10,
        temperature: Temperature = 1.0,
        multiplicative: bool = False,
        baseline: Literal["auto", "loo"] | None = "auto",
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        require_density(noise, self.temperature)
        if baseline not in ("auto", "loo", None):
            raise ValueError(f"baseline must be 'auto', 'loo' or None, got {baseline!r}")
        if baseline == "loo" and samples == 1:
            raise ValueError(
                "baseline='loo' is the mean of the other samples, of which samples=1 has none: take samples=2 or more, "
                "or baseline=None"
            )
        self.multiplicative = require_bool("multiplicative", multiplicative)
        self.baseline: Literal["loo"] | None = None if baseline is None or samples == 1 else "loo"
        self._log_mean = log_mean(noise, require_multiplier(self.temperature)) if self.multiplicative else 0.0
        self._warned = False

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def forward(self, theta: Tensor, sampler: Sampler, solve: Solve) -> Forward:
        """Return MAP(θ + σε_s), or MAP(θ ∘ exp(σε_s − log E e^{σε}))."""
        if not self.multiplicative:
            return super().forward(theta, sampler, solve)
        rows = theta * (sampler.perturb(torch.zeros_like(theta), self.temperature) - self._log_mean).exp()
        answers = solve(rows)
        return Forward(answers.z, answers.status, rows, variables=answers.variables)

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s ⟨z_s − baseline_s, g̃_s⟩ (−∇ log ρ(ε_s)) / σ, divided by θ if multiplicative.

        Without noise it is 0: no law says how likely another state was.
        """
        if not forward.sampler.has_noise:
            self._warn_of_no_noise(gradient)
            return torch.zeros_like(forward.theta)
        z = states = forward.z
        if self.baseline is not None and len(z) > 1:
            states = z - (z.sum(dim=0) - z) / (len(z) - 1)
        return self.scored(forward, (states * gradient).sum(dim=tuple(range(2, z.ndim)), keepdim=True))

    def _warn_of_no_noise(self, gradient: Tensor) -> None:
        if self._warned or not bool(gradient.any()):
            return
        self._warned = True
        warnings.warn(
            "Perturbed has a gradient of 0 in passes without noise, as in eval mode, since it is made of the noise "
            "alone: call train() on the layer, or take an estimator that has one there, such as TwoSided()",
            stacklevel=users_level(),
        )

    def scored(self, forward: Forward, values: Tensor) -> Tensor:
        """Return (1/S) Σ_s values_s ∇ log p(θ_s; θ), [B, *shape], for values [S, B, *] that fit θ_s."""
        theta = forward.theta
        slopes = scores(self.noise, forward.sampler.perturb(torch.zeros_like(theta), 1.0))
        found = (values * slopes).mean(dim=0) / forward.sampler.row_temperatures(self.temperature)
        if self.multiplicative:
            found = torch.where(theta == 0, 0, found / torch.where(theta == 0, 1, theta))
        return found

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"noise={self.noise}, samples={self.samples}, temperature={self.temperature}, "
            f"multiplicative={self.multiplicative}, baseline={self.baseline!r}"
        )
