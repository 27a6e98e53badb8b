"""Fenchel–Young losses of perturbed and of regularised optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from mapgrad.batching import is_traced, new_handle, row_numbers
from mapgrad.errors import DomainError, NonFiniteError
from mapgrad.gradients import Gaussian, KeyStream, StraightThrough, log_mean, require_multiplier, require_row_ids
from mapgrad.gradients._arguments import positive
from mapgrad.losses._loss import Loss
from mapgrad.losses._smoothing import drawn, regularised
from mapgrad.losses._values import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.gradients import Estimator, Noise, Temperature
    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction


class FenchelYoung(Loss):
    """Fenchel–Young losses, from true states, sample by sample.

    (1/S) Σ_s max_z ⟨θ_s, z⟩ − ⟨θ_s, z*⟩, of which each term is at least 0, and all are 0 where all samples' states are
    z*. With θ_s = θ + τε_s, it is the perturbed Fenchel–Young loss (Berthet, Blondel, Teboul, Cuturi, Vert and Bach,
    NeurIPS 2020, arXiv 2002.08676) up to a constant, with the gradient z̄ − z*. With multiplicative noise,
    θ_s = θ ∘ e_s with e_s = exp(τε_s − log E e^{τε}) (Dalle, Baty, Bouvier and Parmentier 2022, arXiv 2207.13513), it
    keeps the signs of θ, as costs of paths need it, and has the gradient mean_s e_s ∘ (z_s − z*). Without noise it is
    the loss of the structured perceptron (Collins 2002). In eval mode the noise is the same as in training.

    With `quadratic`, a term Ω(μ) = (w/2) ‖μ‖² smooths in place of noise (Blondel, Martins and Niculae, JMLR 2020, arXiv
    1901.02324): max_μ ⟨θ, μ⟩ − Ω(μ) + Ω(z*) − ⟨θ, z*⟩ over the means μ of states, at least (w/2) ‖μ − z*‖², and 0 where
    z* wins by a margin. Its gradient is μ − z*. μ is found to a relative gap of 1e-10 by Frank–Wolfe steps, as by
    `FrankWolfe`, whose w is relative to θ; this one isn't, so that the loss is convex.

    The noise is that of a `MAPLayer` with the same law, samples, temperature and seed, at its same step.

    Args:
        solver: See `Loss`, as for the others.
        noise: ρ(ε); "auto" and None as for the estimators of a layer, see `Estimator`. Multiplicative noise needs a law
            with `log_mgf`, and "auto" is then `Gaussian`.
        samples: S.
        temperature: τ, a number or `Relative`, whose scale counts as a constant in the gradient; a number for
            multiplicative noise.
        multiplicative: Whether noise multiplies θ.
        quadratic: w > 0, in units of θ for states of zeros and ones; None for noise.
        minimize: Whether predictions are costs.
        reduction: "mean", "sum" or "none" over the rows.
        return_solution: Whether z̄ comes back too, the mean of the samples' states, or μ.
        seed: As for `MAPLayer`: None takes noise from torch's default generators; an int makes it a function of (seed,
            step, row id, sample), and (seed, step) are saved in `state_dict`.

    Raises:
        TypeError: `samples`, `noise` or `seed` has the wrong type, or `multiplicative` noise no `log_mgf` or a relative
            temperature.
        ValueError: `samples` is below 1, `temperature` negative or not finite, multiplicative noise has no mean, or
            `quadratic` isn't positive and finite, or is given with noise.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        noise: Noise | Literal["auto"] | None = "auto",
        *,
        samples: int = 1,
        temperature: Temperature = 1.0,
        multiplicative: bool = False,
        quadratic: float | None = None,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(solver, minimize=minimize, reduction=reduction, return_solution=return_solution)
        self.quadratic = None if quadratic is None else positive("quadratic", quadratic)
        if quadratic is not None:
            if multiplicative or noise not in ("auto", None):
                raise ValueError(
                    f"a quadratic term smooths in place of noise, got quadratic={quadratic:g} with noise={noise!r} and "
                    f"multiplicative={multiplicative}: leave out one of the two"
                )
            noise = None
        elif multiplicative and noise == "auto":
            noise = Gaussian()
        # what draws the noise of a layer, whose gradient isn't asked for
        self.estimator: Estimator = StraightThrough(noise, samples=samples, temperature=temperature)
        self.multiplicative = multiplicative
        self.noise = self.estimator.noise_for(self.solver.problem)
        scales = multiplicative and self.noise is not None
        self.log_mean = log_mean(self.noise, require_multiplier(self.estimator.temperature)) if scales else 0.0
        self.keys = KeyStream(seed)
        self.handle = new_handle(self)

    def forward(
        self, pred: Tensor, z_true: Tensor, *, rows: Tensor | Sequence[int] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            rows: [*batch] integers that stand for the rows in the noise, as for `MAPLayer`.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units of θ.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: a row that is solved lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state.
            RowsError: a row has no acceptable answer; its number is that in `pred`, whatever the sample.
        """
        theta = self.utilities(pred)
        z_true = self.true_states(z_true, theta)
        if self.quadratic is not None:
            return self._regularised(theta, z_true, self.quadratic)
        if self.noise is None:
            z = self.solve(theta, "pred")
            return self.result(self.excess(theta, z, z_true), z)
        split = self.split(theta)
        ids = None if rows is None else require_row_ids(rows, tuple(theta.shape[:split]), theta.device)
        try:
            noise, z = drawn(self, theta.detach(), ids)
        except (DomainError, NonFiniteError) as error:
            raise self.explained(error, "pred with noise", theta) from error
        values = self.excess(self.perturbed(theta, noise), z, z_true).mean(dim=0)
        return self.result(values, z.mean(dim=0))

    def _regularised(self, theta: Tensor, z_true: Tensor, weight: float) -> Tensor | tuple[Tensor, Tensor]:
        try:
            mean = regularised(self, theta.detach())
        except (DomainError, NonFiniteError) as error:
            raise self.explained(error, "pred", theta) from error
        split = self.split(theta)
        gain = inner(theta, mean - z_true, split)
        change = inner(mean + z_true, mean - z_true, split)
        values = gain - weight / 2 * change
        if not is_traced(values) and bool((values < 0).any()):
            rounding = 1e-6 * (gain.detach().abs() + weight / 2 * inner(mean + z_true, mean + z_true, split))
            self.require_states(z_true, row_numbers((values < -rounding).flatten()), None)
        return self.result(values, mean)

    def perturbed(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Return θ_s, [S, *] of θ [*] and noise τε_s [S, *]."""
        return theta * (noise - self.log_mean).exp() if self.multiplicative else theta + noise

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as int64, or nothing without a seed."""
        return self.keys.saved()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved loss, if both have a seed.

        Raises:
            ValueError: `state` isn't what `get_extra_state` returns.
        """
        self.keys.restore(state, "FenchelYoung")

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{super().extra_repr()}, noise={self.noise}, samples={self.estimator.samples}, "
            f"temperature={self.estimator.temperature}, multiplicative={self.multiplicative}, "
            f"quadratic={self.quadratic}"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self.handle = new_handle(self)
