# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Perturb-and-MAP in the style of torch.distributions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl

from mapgrad.batching import Solver, require_float
from mapgrad.distribution._exact_law import exact_law
from mapgrad.distribution._expectation import mean_of, require_draws, values_of, weights_of
from mapgrad.errors import UnsupportedProblemError
from mapgrad.exact import enumerate_states
from mapgrad.gradients import LogDensity, Owner, Perturbed, Relative, has_functions, prepared, row_scale, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.distribution._exact_law import ExactLaw
    from mapgrad.distribution._expectation import Baseline
    from mapgrad.problems import Problem


class Layer(Owner, Protocol):
    """What a distribution needs of a `MAPLayer`."""

    solver: Solver

    def sample(
        self,
        theta: object,
        samples: int,
        *,
        perturb: bool = True,
        is_mean: bool = False,
        context: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Tensor:
        """Return MAP states of copies of θ."""
        ...


class Atoms(NamedTuple):
    """Distinct states of a law, and their chances.

    Attributes:
        states: [N, *batch, *shape]. A row with fewer than N holds some more than once.
        weights: [N, *batch], what each counts; 0 for what fills a row up. A row's sum is 1.
    """

    states: Tensor
    weights: Tensor


class PerturbAndMAP(Distribution):
    """The law of MAP(θ + τε) over a feasible set (Papandreou and Yuille, ICCV 2011).

    The noise ε and τ are those of the layer's estimator. Where the law has probabilities in closed form, `log_prob` and
    `entropy` give them: with k of n chosen under i.i.d. noise of a law with `cdf` and `log_prob`, by quadrature to
    about 1e-12; with one of n under Gumbel noise it is Gibbs' law, and they are exact at any θ.

    Args:
        layer: Solver, estimator and noise.
        theta: [*batch, *shape], costs if the layer minimises.
        context: What else a function takes in place of a solver, with each batch.
        named: The same by name.
        validate_args: Whether torch checks θ and the arguments of `log_prob`; None for False, as solving checks θ with
            a better message, and what isn't a state has the log-probability −inf.
    """

    arg_constraints = {"theta": constraints.real}  # noqa: RUF012  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] (as in torch's own)
    has_rsample = True
    has_enumerate_support = True

    def __init__(
        self,
        layer: Layer,
        theta: Tensor,
        context: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(getattr(layer, "solver", None), Solver):
            raise TypeError(f"layer must be a mapgrad.MAPLayer, got {type(layer).__name__}: make one of the solver")
        split = layer.solver.at_work().lead_ndim(require_float(theta))
        self.layer = layer
        self.theta = theta
        self._context = context
        self._named = named
        super().__init__(theta.shape[:split], theta.shape[split:], validate_args=bool(validate_args))

    def _draw(self, samples: int, *, layer: Layer | None = None, perturb: bool = True, is_mean: bool = False) -> Tensor:
        layer, theta = (self.layer, self.theta) if layer is None else (layer, widened(self.theta))
        return layer.sample(theta, samples, perturb=perturb, is_mean=is_mean, context=self._context, named=self._named)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> PerturbAndMAP:
        """Return the same law for a larger batch, whose rows are drawn independently; context stays as it is."""
        theta = self.theta.expand(*batch_shape, *self.event_shape)
        return PerturbAndMAP(self.layer, theta, self._context, self._named, validate_args=self._validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, with the estimator's gradient for θ.

        Returns:
            [*sample_shape, *batch, *shape] of θ's dtype and device.
        """
        shape = Size(sample_shape)
        z = self._draw(shape.numel())
        return z.reshape(*shape, *self.theta.shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def expectation(self, f: Callable[[Tensor], Any], samples: int = 10, *, baseline: Baseline = "loo") -> Tensor:
        """Return a Monte Carlo estimate of E f(z), with an unbiased gradient for θ whatever f is.

        That is the score function's, (1/S) Σ_s (f(z_s) − baseline_s) (−∇ log ρ(ε_s)) / τ; what f depends on besides
        gets its own gradient. f is called once, and its values alone are used. It holds under the domain's clip, and
        for solvers that aren't exact.

        Args:
            f: From states [S, *batch, *shape], of θ's dtype and device and without a gradient, to real numbers
                [S, *batch], as a tensor, an array or a list. Where a row's value isn't finite, its expectation and its
                gradient aren't either, and others keep theirs.
            samples: S.
            baseline: ``"loo"`` for the mean of the other samples' values, so that a constant in f changes no gradient
                and no bias is added; it needs S > 1. None for none.

        Returns:
            [*batch] of the values' dtype, θ's where they aren't floats.

        Raises:
            TypeError: the estimator has no noise with a log-density, or f doesn't return numbers.
            ShapeError: f returns another shape.
            ValueError: `samples` or `baseline` can't be.
            RowsError: as for the layer.

        Example:
            >>> import torch, mapgrad
            >>> layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(3, 1)))
            >>> theta = torch.zeros(3, requires_grad=True)
            >>> layer.distribution(theta).expectation(lambda z: z[..., 0] > 2).backward()
            >>> theta.grad
            tensor([0., 0., 0.])
        """
        z, weights = self._weighted(samples, baseline)
        return mean_of(weights, values_of(f, z, batch=tuple(self.batch_shape)))

    def atoms(self, samples: int = 100, *, baseline: Baseline = "loo") -> Atoms:
        """Return the distinct states among S draws, and their shares with an unbiased gradient for θ.

        Any function of the two is a function of the estimated law, with its gradient: a quantile of costs, say. For a
        small problem whose law is exact, ``enumerate_support()`` and ``log_prob`` of it are all atoms and their logs.

        Args:
            samples: S.
            baseline: As for `expectation`.

        Returns:
            States [N, *batch, *shape] and weights [N, *batch], of θ's dtype and device, N ≤ S.

        Raises:
            TypeError, ValueError, RowsError: As for `expectation`.
        """
        z, weights = self._weighted(samples, baseline)
        samples = len(z)
        rows = z.flatten(1 + len(self.batch_shape)).reshape(samples, -1, self.event_shape.numel())
        shares = weights.reshape(samples, -1)
        count = rows.shape[1]
        numbers = torch.arange(count, device=z.device).expand(samples, count)
        keys = torch.cat((numbers.unsqueeze(2).double(), rows.double()), dim=2).flatten(0, 1)
        distinct, places = torch.unique(keys, dim=0, return_inverse=True)
        before = (distinct[:, 0, None] < numbers[0]).sum(dim=0)  # those of rows before
        places = places.reshape(samples, count) - before
        size = int(places.max()) + 1 if places.numel() else 0
        states = rows[:1].repeat(size, 1, 1)
        states[places, numbers] = rows
        shares = shares.new_zeros(size, count).scatter_add(0, places, shares)
        return Atoms(
            states.reshape(size, *self.theta.shape), shares.reshape(size, *self.batch_shape).to(self.theta.dtype)
        )

    def _weighted(self, samples: int, baseline: Baseline) -> tuple[Tensor, Tensor]:
        """Return S draws, and their weights [S, *batch]."""
        drawn = self._draw(require_draws(samples, baseline), layer=_scored(self.layer))
        log_density = drawn if not self.event_shape else drawn.flatten(1 + len(self.batch_shape)).sum(dim=-1)
        return drawn.detach().to(self.theta.dtype), weights_of(log_density, baseline)

    @property
    def mode(self) -> Tensor:
        """MAP(θ), [*batch, *shape]: the state of the largest ⟨θ, z⟩.

        Where k of n are chosen under i.i.d. noise, no state is more likely; elsewhere one may be.
        """
        with torch.no_grad():
            return self._draw(1, perturb=False, is_mean=True)

    @property
    def mean(self) -> Tensor:
        """A Monte Carlo estimate of the marginals from the estimator's number of samples, with its gradient.

        Each access draws anew: `mapgrad.exact.topk_marginals` is exact where `log_prob` is.
        """
        return self._draw(self.layer.estimator.samples, is_mean=True)

    @property
    def variance(self) -> Tensor:
        """Not there: it is that of samples."""
        raise NotImplementedError("the variance has no closed form: take law.sample((1000,)).var(0)")

    @property
    def support(self) -> Any:
        """The problem's states, as a constraint whose `check` is `Problem.contains`."""
        return _States(self._problem)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of states, differentiable in θ, where the law has one.

        Args:
            value: [*sample, *batch, *shape], or what broadcasts to it.

        Returns:
            [*sample, *batch] of θ's dtype; −inf for what isn't a state, and by quadrature below 1e-10, too.

        Raises:
            NotImplementedError: the law has no closed form; the message says what to do.
            ShapeError: the shape doesn't fit.
            ValueError: `value` isn't a state, under ``validate_args=True``.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self._exact.log_prob(value).to(self.theta.dtype)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, [*batch] of θ's dtype, differentiable in θ, where the law has one.

        Raises:
            NotImplementedError: the law has no closed form; the message says what to do.
            ProblemError: there are too many states to enumerate.
        """
        return self._exact.entropy().to(self.theta.dtype)

    def perplexity(self) -> Tensor:
        """Return the exponential of the entropy; as `entropy`."""
        return self.entropy().exp()

    def cdf(self, value: Tensor) -> Tensor:
        """Not there: states have no order."""
        raise NotImplementedError(_NO_ORDER)

    def icdf(self, value: Tensor) -> Tensor:
        """Not there: states have no order."""
        raise NotImplementedError(_NO_ORDER)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all states of a small problem, [N, *batch, *shape], or [N, 1, …, *shape] without `expand`.

        Raises:
            ProblemError: there are too many to enumerate.
            NotImplementedError: a function doesn't say what it solves.
        """
        states = enumerate_states(self._problem).to(self.theta)
        states = states.reshape(len(states), *(1 for _ in self.batch_shape), *self.event_shape)
        return states.expand(len(states), *self.batch_shape, *self.event_shape) if expand else states

    @property
    def _problem(self) -> Problem:
        problem = self.layer.solver.problem
        if problem is None:
            raise NotImplementedError(
                f"{self.layer.solver!r} doesn't say what it solves: give the function an attribute problem"
            )
        return problem

    @property
    def _exact(self) -> ExactLaw:
        problem, estimator = self.layer.solver.problem, self.layer.estimator
        is_additive = not (isinstance(estimator, Perturbed) and estimator.multiplicative)
        law = None
        if is_additive and problem is not None:
            theta = prepared(self.layer, self.layer.solver.at_work(), self.theta)
            theta = -theta if self.layer.minimize else theta
            temperature = estimator.temperature
            if isinstance(temperature, Relative):  # the law of θ at τ = factor · scale is that of θ / scale
                theta = theta / row_scale(theta.detach(), len(self.event_shape), problem)
                temperature = temperature.factor
            law = exact_law(problem, theta, estimator.noise_for(problem), temperature)
        if law is None:
            raise NotImplementedError(f"{_NO_FORMULA}: {_BY_FREQUENCY}; {_GIBBS}")
        return law


class _States(constraints.Constraint):
    """The feasible set of a problem."""

    is_discrete = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.event_dim = len(problem.shape)  # pyright: ignore[reportIncompatibleMethodOverride, reportAttributeAccessIssue] (as in torch's own)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Return whether values [*batch, *shape] are states, [*batch]."""
        return self.problem.contains(value)

    def __repr__(self) -> str:
        return f"StatesOf({self.problem!r})"


_copies: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Copies of layers, which must live as long as these: a backward pass finds them by their handles."""


def _scored(layer: Layer) -> Layer:
    """Return a copy of a layer, with its noise and keys, whose estimator is a `LogDensity`.

    Raises:
        TypeError: the noise has no log-density.
    """
    estimator = layer.estimator
    noise = estimator.noise_for(layer.solver.problem)
    if not has_functions(noise, "log_prob"):
        raise TypeError(
            f"an expectation's gradient needs noise with a log-density, but {estimator!r} draws {noise!r}: take "
            f"mapgrad.IMLE(noise=mapgrad.Gaussian()) or mapgrad.Perturbed(), say"
        )
    assert noise is not None
    _make_copy(layer)
    scored: Any = _copies[layer]
    scored.estimator = LogDensity(
        noise,
        temperature=estimator.temperature,
        multiplicative=isinstance(estimator, Perturbed) and estimator.multiplicative,
    )
    for name in ("solver", "minimize", "normalize", "training", "keys"):  # whatever they were when it was made
        setattr(scored, name, getattr(layer, name))
    return scored


def _make_copy(layer: Any) -> None:
    """See to it that a layer has a copy, with its solver, keys and monitor."""
    if layer not in _copies:
        copied = _copies[layer] = copy.copy(layer)
        copied._modules = {**layer._modules}  # noqa: SLF001 (else both had one dictionary)


# what torch.compiler.assume_constant_result sets too, but that takes a second to import
_make_copy.__dict__["_dynamo_marked_constant"] = True


@register_kl(PerturbAndMAP, PerturbAndMAP)
def _kl(p: PerturbAndMAP, q: PerturbAndMAP) -> Tensor:
    """Return KL(p ‖ q) of two laws over one feasible set, [*batch], where both are exact."""
    mine, others = p.layer.solver.problem, q.layer.solver.problem
    if mine is None or mine != others:
        raise UnsupportedProblemError(f"KL needs two laws over one feasible set, got {mine!r} and {others!r}")
    states = p.enumerate_support(expand=False)
    log_p, log_q = p.log_prob(states), q.log_prob(states)
    chances = log_p.exp()
    impossible = chances == 0
    # by itself, as ∞ would leave NaN in the gradient
    ratios = log_p.masked_fill(impossible, 0.0) - log_q.masked_fill(impossible, 0.0)
    return (chances * ratios).sum(dim=0)


_NO_FORMULA: Final = "the law of MAP(θ + noise) has no closed form"
_BY_FREQUENCY: Final = "estimate it from the frequencies of law.sample((1000,))"
_GIBBS: Final = (
    "the Gibbs law, whose probabilities are proportional to exp ⟨θ, z⟩, has log-probabilities for small problems: "
    "mapgrad.exact.probabilities(problem, theta).log()"
)
_NO_ORDER: Final = (
    "states are vectors in a finite set, which have no order: law.mean gives marginals, law.mode the best state"
)
