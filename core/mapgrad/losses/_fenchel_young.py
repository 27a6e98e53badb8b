"""Fenchel–Young losses of perturbed and of regularised optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mapgrad.batching import new_handle, require_bool
from mapgrad.errors import DomainError, NonFiniteError
from mapgrad.gradients import Gaussian, KeyStream, StraightThrough, log_mean, require_multiplier, require_row_ids
from mapgrad.losses._loss import Loss
from mapgrad.losses._regularisers import Regulariser
from mapgrad.losses._smoothing import drawn, drawn_each, regularised
from mapgrad.losses._values import linear_of, unfilled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.gradients import Estimator, Noise, Temperature
    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem


class FenchelYoung(Loss):
    """Fenchel–Young losses, from true states (Blondel, Martins and Niculae, JMLR 2020, arXiv 1901.02324).

    They compare z* with the best state under a smoothing of strength τ; `smoothing` says which one:

    - Noise: (1/S) Σ_s max_z ⟨θ_s, z⟩ − ⟨θ_s, z*⟩, sample by sample, of which each term is at least 0, and all are 0
      where all samples' states are z*. With θ_s = θ + τε_s, it is the perturbed loss (Berthet, Blondel, Teboul, Cuturi,
      Vert and Bach, NeurIPS 2020, arXiv 2002.08676) up to a constant, with the gradient z̄ − z*. With multiplicative
      noise, θ_s = θ ∘ e_s with e_s = exp(τε_s − log E e^{τε}) (Dalle, Baty, Bouvier and Parmentier 2022, arXiv
      2207.13513), it keeps the signs of θ, as costs of paths need it, and has the gradient mean_s e_s ∘ (z_s − z*).
    - `Gibbs()`: τ A(θ/τ) − ⟨θ, z*⟩ = −τ log p(z*), with A the exact log-partition: the negative log-likelihood. Its
      gradient is μ − z*, where μ are the marginals.
    - `Quadratic()`: max_μ ⟨θ, μ⟩ − (τ/2) ‖μ‖² + (τ/2) ‖z*‖² − ⟨θ, z*⟩ over the means μ of states, with the gradient
      μ − z*.
    - None: max_z ⟨θ, z⟩ − ⟨θ, z*⟩, the loss of the structured perceptron (Collins 2002), which all of them are for τ
      to 0.

    The noise is that of a `MAPLayer` with the same law, samples, temperature and seed, at its same step. With a seed, a
    call in eval mode has the noise of the coming step and isn't one, so that validation changes nothing.

    Args:
        solver: See `Loss`, as for the others. `Gibbs` asks it for nothing but its problem.
        smoothing: A noise law ρ(ε), `Gibbs`, `Quadratic`, None, or "auto". "auto" is Sum-of-Gamma noise with the
            problem's κ, of mean 0 unless `Problem.constant_sums` has some: the perturbed loss. For problems that are
            defined for θ ≤ 0 alone, as shortest paths with cycles and grids are, and for functions that don't say what
            they solve, "auto" is None: the perceptron's loss, as additive noise would leave the domain. Smooth these
            with ``multiplicative=True``, which needs a law with `log_mgf` and for which "auto" is `Gaussian`, or with
            `Quadratic`.
        samples: S, of noise.
        temperature: τ, a number or `Relative`, whose scale counts as a constant in the gradient; a number for
            multiplicative noise.
        multiplicative: Whether noise multiplies θ.
        minimize: Whether predictions are costs.
        reduction: "mean", "sum" or "none" over the rows.
        return_solution: Whether z̄ comes back too, the mean of the samples' states, or μ.
        seed: As for `MAPLayer`: None takes noise from torch's default generators; an int makes it a function of (seed,
            step, row id, sample), and (seed, step) are saved in `state_dict`.

    Raises:
        TypeError: `samples`, `smoothing`, `multiplicative` or `seed` has the wrong type, or `multiplicative` noise no
            `log_mgf` or a relative temperature.
        ValueError: `samples` is below 1, `temperature` negative or not finite, or 0 for `Gibbs` or `Quadratic`;
            multiplicative noise has no mean; samples or multiplicative noise are asked of `Gibbs` or `Quadratic`; or
            the problem isn't known, which `Gibbs` needs.
        UnsupportedProblemError, ProblemError: `Gibbs` has no exact oracle for the problem.
    """

    takes_nan = True

    def __init__(
        self,
        solver: SolverOrFunction,
        smoothing: Noise | Regulariser | Literal["auto"] | None = "auto",
        *,
        samples: int = 1,
        temperature: Temperature = 1.0,
        multiplicative: bool = False,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(solver, minimize=minimize, reduction=reduction, return_solution=return_solution)
        self.multiplicative = require_bool("multiplicative", multiplicative)
        is_law = callable(getattr(smoothing, "sample", None))
        if isinstance(smoothing, type) or not (
            is_law or smoothing in ("auto", None) or isinstance(smoothing, Regulariser)
        ):
            raise TypeError(
                f'smoothing must be "auto", a noise law such as mapgrad.Gaussian(), Gibbs(), Quadratic() or None, got '
                f"{smoothing!r}"
            )
        self.regulariser = smoothing if isinstance(smoothing, Regulariser) else None
        noise = None if isinstance(smoothing, Regulariser) else smoothing
        if multiplicative and noise == "auto":
            noise = Gaussian()
        # what draws the noise of a layer, whose gradient isn't asked for
        self.estimator: Estimator = StraightThrough(noise, samples=samples, temperature=temperature)
        if self.regulariser is not None:
            self._require_regular(self.regulariser, multiplicative=multiplicative)
            self.solver, self.drops = unfilled(self.solver, takes_nan=False), False
        self.noise = self.estimator.noise_for(self.solver.problem)
        scales = multiplicative and self.noise is not None
        self.log_mean = log_mean(self.noise, require_multiplier(self.estimator.temperature)) if scales else 0.0
        self.keys = KeyStream(seed)
        self.handle = new_handle(self)

    def _require_regular(self, regulariser: Regulariser, *, multiplicative: bool) -> None:
        if multiplicative or self.estimator.samples != 1:
            raise ValueError(
                f"{regulariser} smooths in place of noise, of which there are no samples, got "
                f"samples={self.estimator.samples} and multiplicative={multiplicative}: leave them out, or take a "
                f"noise law such as mapgrad.Gaussian()"
            )
        if self.estimator.temperature == 0:
            raise ValueError(
                f"{regulariser} needs a temperature above 0, got 0: take smoothing=None for the loss without any"
            )
        if self.solver.problem is not None:
            regulariser.require_fit(self.solver.problem)
        elif not regulariser.solves and not self.solver.takes_problems:
            self.require_problem()

    def forward(
        self,
        pred: Tensor,
        z_true: Tensor,
        *,
        rows: Tensor | Sequence[int] | None = None,
        problems: Sequence[Problem] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            rows: [*batch] integers that stand for the rows in the noise, as for `MAPLayer`.
            problems: One problem a row, in place of the solver's own; pred is then [B, *shape]. The noise is that of a
                layer that is given them.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units of θ.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: a row that is solved lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry; or `Gibbs` has no exact oracle
                for one of `problems`.
            UnsupportedProblemError: as the last.
            ValueError: θ/τ exceeds 1e280, which is too much for `Gibbs`.
            RowsError: a row has no acceptable answer; its number is that in `pred`, whatever the sample.
        """
        theta = self.utilities(pred, problems)
        z_true = self.true_states(z_true, theta, problems)
        if self.regulariser is not None:
            return self._regularised(theta, z_true, problems)
        split = self.split(theta, problems)
        ids = None if rows is None else require_row_ids(rows, tuple(theta.shape[:split]), theta.device)
        try:
            found = self._drawn(theta.detach(), ids, problems)
        except (DomainError, NonFiniteError) as error:
            raise self.explained(error, "pred with noise", theta, problems) from error
        if found is None:
            z = self.solve(theta, "pred", problems)
            return self.result(self.excess(theta, z, z_true, problems), z)
        noise, z = found
        values = self.excess(self.perturbed(theta, noise), z, z_true, problems).mean(dim=0)
        return self.result(values, z.mean(dim=0))

    def begin(self, key: int) -> None:
        """Begin a step; with a seed, a call in eval mode isn't one."""
        if self.keys.seed is not None and not self.training:
            self.keys.step -= 1

    def _drawn(
        self, theta: Tensor, ids: Tensor | None, problems: Sequence[Problem] | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the noise and the states of its samples; None without noise."""
        if problems is None:
            return None if self.noise is None else drawn(self, theta, ids)
        return None if self.estimator.noise is None else drawn_each(self, theta, ids, problems)

    def _regularised(
        self, theta: Tensor, z_true: Tensor, problems: Sequence[Problem] | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        try:
            values, mean = regularised(self, theta.detach(), z_true, problems)
        except DomainError as error:
            raise self.explained(error, "pred", theta, problems) from error
        return self.result(linear_of(theta, values, mean - z_true, self.split(theta, problems)), mean)

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
        smoothing = self.noise if self.regulariser is None else self.regulariser
        found = f"{super().extra_repr()}, smoothing={smoothing}, temperature={self.estimator.temperature}"
        if self.regulariser is not None:
            return found
        return f"{found}, samples={self.estimator.samples}, multiplicative={self.multiplicative}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self.handle = new_handle(self)
