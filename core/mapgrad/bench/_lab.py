"""The gradient lab: what gradients are worth, measured against the truth at equal numbers of solver calls."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import get_solver
from mapgrad.bench._clock import cpu_clock, one_thread
from mapgrad.bench._lab_cases import BUDGETS, EARLIER, METHODS, SETTINGS, SKEWED, Method, case_of
from mapgrad.bench._lab_truth import truth_of
from mapgrad.bench._machine import machine, versions
from mapgrad.bench._report import Report, Row
from mapgrad.errors import MapgradError, ShapeError
from mapgrad.gradients import Gaussian, MultiFidelity, Pooled, Relative, row_scale
from mapgrad.layer import MAPLayer
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.bench._lab_cases import LabCase, Setting
    from mapgrad.bench._lab_truth import Truth
    from mapgrad.gradients import Estimator
    from mapgrad.problems import Problem

_COUNT: Final = 3
"""θ that are drawn for a problem."""

_COUNTED: Final = 32
"""Rows whose solver calls are counted."""

_FRESH: Final = 200
"""Forward answers that tell how many of them a pool holds."""

_NEAR: Final = 0.3
"""How far the θ of earlier steps lie from the present one, in its scales."""

_ENTRIES: Final = 1 << 21
"""Entries that an estimator may ask a pool with, for all rows of a measurement; else there are fewer rows."""

_FEWEST: Final = 4

_NOTHING: Final = 1e-12
"""What rounding leaves of a gradient of 0, relative to the loss's."""


@dataclass(frozen=True)
class LabEffort:
    """How closely to look.

    Attributes:
        rows: Gradients that a figure is a mean over, for each θ; fewer for estimators that ask a pool very often.
        draws: Solves for the truth, where that isn't exact.
        count: θ that are drawn for a problem.

    Raises:
        TypeError: one of them isn't an int.
        ValueError: one is below 1, or `draws` below 2.
    """

    rows: int = 200
    draws: int = 500_000
    count: int = _COUNT

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("draws", 2), ("count", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))


QUICK_LAB: Final = LabEffort(rows=40, draws=20_000, count=1)


def lab(
    problem: Problem,
    estimators: Mapping[str, Callable[..., Estimator] | Method] | None = None,
    *,
    theta: Tensor | None = None,
    slope: Tensor | None = None,
    solver: Any = "auto",
    noise: Any = None,
    settings: Sequence[Setting] = SETTINGS,
    budgets: Sequence[int] = BUDGETS,
    earlier: int = EARLIER,
    effort: LabEffort | None = None,
    seed: int = 0,
    watch: Callable[[str], object] = lambda case: None,
) -> Report:
    """Measure what estimators' gradients are worth on a problem, against the gradient of ⟨g, E MAP(θ + τε)⟩.

    For each θ and budget an estimator gets as many samples as the budget has solver calls for. Each row of the report
    has, as means over θ or medians (§): the `cosine` of one row's gradient with the truth, 0 for a gradient of 0; that
    `of the mean` over rows, so without its variance; the mean's `length` along the truth (§), 1 where it is right; the
    `variance` of a row's gradient, by the truth's square (§); the share of rows that are `dead`, with a gradient of 0;
    `calls` of the solver; and CPU time. The truth is exact for k-subsets; else it has a standard error, `truth ±`,
    relative to its length.

    Args:
        problem: The feasible set.
        estimators: What makes estimators, by name: classes, or partials of them. Each gets what of ``problem``,
            ``noise``, ``temperature`` and ``samples`` is among its parameters. None for a selection of all kinds.
        theta: [N, *shape], utilities; None for some drawn within the problem's domain.
        slope: g = ∂L/∂z, [N, *shape]; None for −θ of the next row, as of a loss that is a regret, or of rows drawn like
            θ.
        solver: What `get_solver` takes.
        noise: ρ, a law with `log_prob`; None for Gaussian noise.
        settings: Temperatures and offsets; those that add a constant are left out where the problem sees it.
        budgets: Solver calls a row.
        earlier: How many solves of earlier steps fill a pool, each for a θ about .3 scales away.
        effort: How closely to look.
        seed: What all random numbers are drawn from.
        watch: Is told what comes next.

    Raises:
        TypeError: `problem` isn't a `Problem`, or an argument isn't an int that must be one.
        ValueError: a budget is below 1, or `earlier` or `seed` below 0.
        ShapeError: `theta` or `slope` has another shape.
        MapgradError: nothing answers the problem.

    Example:
        >>> from functools import partial
        >>> import mapgrad
        >>> report = mapgrad.bench.lab(
        ...     mapgrad.KSubset(20, 5),
        ...     {"both sides": mapgrad.IMLE, "one side": partial(mapgrad.IMLE, symmetric=False)},
        ...     budgets=[12],
        ... )
        >>> better, other = (row.extra["cosine"] for row in report.rows[:2])
        >>> better > other
        True
    """
    budgets = [whole_number("a budget", budget, 1) for budget in budgets]
    earlier, seed = whole_number("earlier", earlier, 0), whole_number("seed", seed, 0)
    case = with_rows(case_of(require_problem(problem), solver=solver, budgets=budgets, earlier=earlier), theta, slope)
    methods = {
        name: make if isinstance(make, Method) else Method(make) for name, make in (estimators or METHODS).items()
    }
    return run_lab([case], methods, settings, noise=noise, effort=effort, seed=seed, watch=watch)


def with_rows(case: LabCase, theta: Tensor | None, slope: Tensor | None = None) -> LabCase:
    """Return a case with θ and g of its own, as `lab` takes them.

    Raises:
        ShapeError: they have another shape.
    """
    rows = None if theta is None else _rows("theta", theta, case.problem)
    slopes = None if slope is None else _rows("slope", slope, case.problem)
    if rows is None:
        if slopes is not None:
            raise ShapeError("slope needs theta, a row for each of its rows")
    elif slopes is None and len(rows) > 1:
        slopes = -rows.roll(-1, dims=0)
    elif slopes is not None and len(rows) != len(slopes):
        raise ShapeError(f"theta and slope must have as many rows, got {len(rows)} and {len(slopes)}")
    return replace(case, theta=rows, slope=slopes)


def run_lab(
    cases: Sequence[LabCase],
    methods: Mapping[str, Method],
    settings: Sequence[Setting],
    *,
    noise: Any = None,
    effort: LabEffort | None = None,
    seed: int = 0,
    watch: Callable[[str], object] = lambda case: None,
) -> Report:
    """Measure estimators on several problems; arguments as for `lab`."""
    noise, effort, rows = noise or Gaussian(), effort or LabEffort(), list[Row]()
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that have no second step
        for case in cases:
            for setting in settings:
                watch(f"{case.name}, {setting.name}")
                try:
                    rows += _measured(case, setting, methods, noise, effort, seed)
                except (MapgradError, ImportError) as error:
                    rows.append(Row(f"{case.name}; {setting.name}", "", note=str(error), judged=False))
    title = "Gradients against the truth, at equal numbers of solver calls"
    return Report("lab", title, rows, machine(), versions(), {"θ and noise": seed})


def _measured(
    case: LabCase, setting: Setting, methods: Mapping[str, Method], noise: Any, effort: LabEffort, seed: int
) -> Iterator[Row]:
    """Yield a row for each method and budget."""
    has_offset = setting.theta_offset or setting.slope_offset
    if has_offset and not case.problem.constant_sums:
        return
    generator = torch.Generator().manual_seed(seed)
    theta = case.draw(generator, effort.count) if case.theta is None else case.theta
    slope = -case.draw(generator, len(theta)) if case.slope is None else case.slope
    solver = get_solver(case.solver, case.problem)
    questions: list[_Question] = []
    for row, g in zip(theta, slope, strict=True):
        tau = _tau(setting, row, case.problem)
        truth = truth_of(solver, row, g, noise, tau, effort.draws, generator)
        if truth.gradient.abs().max() <= _NOTHING * g.abs().max():
            raise MapgradError("the noise changes no answer, so that the gradient is 0: take a larger temperature")
        questions.append(_Question(row + setting.theta_offset, g + setting.slope_offset, tau, truth))
    for name, method in methods.items():
        for budget in case.budgets:
            try:
                found = [_figures(case, solver, method, noise, each, budget, effort.rows, seed) for each in questions]
            except MapgradError as error:
                yield Row(f"{case.name}; {setting.name}", name, {"calls": budget}, note=str(error), judged=False)
                continue
            runs = {figure: [each[figure] for each in found] for figure in found[0]}
            yield Row(
                f"{case.name}; {setting.name}",
                name,
                {"calls": budget, "S": round(mean(runs.pop("samples"))), "n": theta[0].numel()},
                extra={figure: (median if figure in SKEWED else mean)(numbers) for figure, numbers in runs.items()},
                judged=False,
                runs=runs,
            )


def _figures(
    case: LabCase,
    solver: Solver,
    method: Method,
    noise: Any,
    question: _Question,
    budget: int,
    rows: int,
    seed: int,
) -> dict[str, float]:
    """Return the figures of one θ."""
    theta, slope, tau, truth = question

    def layer_of(samples: int, solver: Solver | Callable[[Tensor], Tensor]) -> MAPLayer:
        estimator = _made(method.make, problem=case.problem, noise=noise, temperature=tau, samples=samples)
        if isinstance(estimator, Pooled | MultiFidelity) and not method.is_new:
            _fill(estimator, case, theta, noise, tau, seed)
        return MAPLayer(solver, estimator, seed=seed)

    first = layer_of(1, solver)
    count = max(min(rows, _ENTRIES // (max(first.estimator.copies, 1) * theta.numel())), _FEWEST)
    counted = min(count, _COUNTED)

    def calls_of(samples: int) -> float:
        counter = _Counter(solver)
        _gradients(layer_of(samples, counter), theta, slope, counted)
        return counter.calls / counted

    one = calls_of(1)
    samples = max(round(budget / one), 1) if one else 1
    calls = one if samples == 1 else calls_of(samples)
    layer = first if samples == 1 else layer_of(samples, solver)
    began = cpu_clock()
    gradients = _gradients(layer, theta, slope, count)
    seconds = cpu_clock() - began
    along, square = gradients @ truth.gradient, truth.gradient.square().sum()
    sizes = (gradients.square().sum(dim=1) * square).sqrt()
    average = gradients.mean(dim=0)
    size = (average.square().sum() * square).sqrt()
    return {
        "samples": samples,
        "calls": calls,
        "cosine": torch.where(sizes > 0, along / sizes, 0.0).mean().item(),
        "of the mean": (average @ truth.gradient / size).item() if size > 0 else 0.0,
        "length": (average @ truth.gradient / square).item(),
        "variance": (gradients.var(dim=0).sum() / square).item(),
        "dead": (sizes == 0).double().mean().item(),
        "µs a row": 1e6 * seconds / count,
        "truth ±": truth.error,
    }


class _Question(NamedTuple):
    """What estimators are asked for.

    Attributes:
        theta: [*shape] float64.
        slope: g, likewise.
        tau: τ.
        truth: What ∂L/∂θ is.
    """

    theta: Tensor
    slope: Tensor
    tau: float
    truth: Truth


class _Counter:
    """Answers as a solver does, and counts the rows that aren't 0, as those may stand for none."""

    def __init__(self, solver: Solver) -> None:
        self.problem = solver.problem
        self.__qualname__ = solver.name  # what messages call it
        self.calls = 0
        self._solver = solver

    def __call__(self, theta: Tensor) -> Tensor:
        self.calls += int(theta.flatten(1).any(dim=1).sum())
        return self._solver(theta)


def _gradients(layer: MAPLayer, theta: Tensor, slope: Tensor, count: int) -> Tensor:
    """Return the gradients of rows that differ in their noise alone, [count, n] float64."""
    leaf = theta.float().repeat(count, *[1] * theta.ndim).requires_grad_()
    layer(leaf).backward(slope.float().expand_as(leaf))  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    assert leaf.grad is not None
    return leaf.grad.double().flatten(1)


def _fill(estimator: Pooled | MultiFidelity, case: LabCase, theta: Tensor, noise: Any, tau: float, seed: int) -> None:
    """Give a pool what earlier steps would have found, for θ nearby."""
    generator = torch.Generator().manual_seed(seed + 1)
    solver = get_solver(case.solver, case.problem)

    def solved(rows: Tensor) -> Tensor:
        epsilon = noise.sample(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        return solver((rows + tau * epsilon).float())

    rows = theta.expand(case.earlier, *theta.shape)
    scale = row_scale(theta[None], theta.ndim, case.problem)
    estimator.pool.add(solved(rows + _NEAR * scale * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)))
    answers = solved(theta.expand(_FRESH, *theta.shape))
    estimator.seen = float(estimator.pool.contains(answers).double().mean())


def _made(make: Callable[..., Estimator], **given: Any) -> Estimator:
    parameters = inspect.signature(make).parameters
    has_more = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    taken = {name: each for name, each in given.items() if name in parameters or (has_more and name != "problem")}
    try:
        return make(**taken)
    except (TypeError, ValueError) as error:
        raise MapgradError(f"it can't be made: {error}") from error


def _tau(setting: Setting, theta: Tensor, problem: Problem) -> float:
    if not isinstance(setting.temperature, Relative):
        return float(setting.temperature)
    return setting.temperature.factor * float(row_scale(theta[None], theta.ndim, problem))


def _rows(name: str, rows: Tensor, problem: Problem) -> Tensor:
    if tuple(rows.shape[1:]) != problem.shape or not len(rows):
        wanted = ", ".join(map(str, problem.shape))
        raise ShapeError(f"{name} must be [N, {wanted}] with a row at least, got {tuple(rows.shape)}")
    return rows.detach().double().cpu()
