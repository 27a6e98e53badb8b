"""The log-density of what is drawn, in place of the states' own gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.gradients.estimators._perturbed import Perturbed

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients.estimators._estimator import Forward


class LogDensity(Perturbed):
    """States whose sum over entries has the gradient of the log-density of the perturbed θ in place of its own.

    Σ_s ⟨g_s 1, z_s⟩ then has the gradient Σ_s g_s ∇ log p(θ_s; θ), from which expectations are made. Arguments as for
    `Perturbed`, whose noise it draws.
    """

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s g̃_s ∘ (−∇ log ρ(ε_s)) / σ, divided by θ if multiplicative."""
        return self.scored(forward, gradient)
