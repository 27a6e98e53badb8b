"""What the gradient lab looks at: problems with their laws of θ, settings, and estimators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from mapgrad.bench._cases import complete, path
from mapgrad.bench._learning import AllStates
from mapgrad.gradients import (
    IMLE,
    Exact,
    Identity,
    Line,
    MultiFidelity,
    Perturbed,
    Pooled,
    Relative,
    RelativeStep,
    StraightThrough,
)
from mapgrad.problems import Assignment, Domain, GridShortestPath, Knapsack, KSubset, SpanningTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from mapgrad.gradients import Estimator, Temperature
    from mapgrad.problems import Problem

BUDGETS: Final = (3, 12, 48)
"""Solver calls a row, those of the forward pass included."""

EARLIER: Final = 40
"""Solves that fill a pool."""

_DRAWS: Final = 8192
"""How often a pool's derivative asks the pool, so that what is left of the noise in it is none of the pool's faults."""


SKEWED: Final = ("length", "variance")
"""Figures without an upper end, as a truth may be next to 0: of these, medians are shown, not means."""


@dataclass(frozen=True)
class LabCase:
    """A problem, and the θ that it is looked at for.

    Attributes:
        name: What tables call it.
        problem: The feasible set.
        draw: Draws θ or −g, float64 [N, *shape], from a generator.
        solver: What `get_solver` takes.
        budgets: Solver calls a row.
        earlier: Solves of earlier steps, from which a pool's states come.
        theta: θ, float64 [N, *shape]; None to draw some.
        slope: g, likewise.
    """

    name: str
    problem: Problem
    draw: Callable[[torch.Generator, int], Tensor]
    solver: Any = "auto"
    budgets: Sequence[int] = BUDGETS
    earlier: int = EARLIER
    theta: Tensor | None = None
    slope: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """How large the noise is, and what is added that a problem can't see.

    Attributes:
        name: What tables call it.
        temperature: τ.
        theta_offset: Added to all entries of θ.
        slope_offset: Added to all entries of g.
    """

    name: str
    temperature: Temperature = 1.0
    theta_offset: float = 0.0
    slope_offset: float = 0.0


@dataclass(frozen=True)
class Method:
    """An estimator to look at.

    Attributes:
        make: Makes it; gets what of problem, noise, temperature and samples is among its parameters.
        is_new: Whether its pool, if it has one, holds nothing of earlier steps.
    """

    make: Callable[..., Estimator]
    is_new: bool = False


class _AnyCosts(GridShortestPath):
    """Simple paths through cells, for costs below 0 too, where only enumeration finds the best."""

    @property
    def domain(self) -> Domain:
        """All θ."""
        return Domain.REAL


def normal(shape: tuple[int, ...], generator: torch.Generator, count: int) -> Tensor:
    """Return standard normal numbers, [N, *shape]."""
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def positive(shape: tuple[int, ...], generator: torch.Generator, count: int) -> Tensor:
    """Return values of .5 and more, [N, *shape]."""
    return normal(shape, generator, count).abs() + 0.5


def costs(shape: tuple[int, ...], generator: torch.Generator, count: int) -> Tensor:
    """Return utilities −2.5 to −.5, [N, *shape]."""
    return -2 * torch.rand(count, *shape, generator=generator, dtype=torch.float64) - 0.5


def case_of(problem: Problem, **how: Any) -> LabCase:
    """Return a problem with a law of θ within its domain, and what else a `LabCase` has."""
    return LabCase(
        repr(problem), problem, partial(normal if problem.domain is Domain.REAL else costs, problem.shape), **how
    )


def _knapsack() -> Knapsack:
    weights = torch.randint(3, 9, (1, 10), generator=torch.Generator().manual_seed(5)).double().numpy()
    return Knapsack(weights, weights.sum(axis=1) / 2)


def _cases() -> dict[str, LabCase]:
    six = (
        LabCase("grid 3×3", _AnyCosts(3, 3), partial(costs, (3, 3)), AllStates),
        LabCase("assignment 4", Assignment(4), partial(normal, (4, 4))),
        LabCase("knapsack 10", _knapsack(), partial(positive, (10,))),
        LabCase("tree 6", SpanningTree(6, complete(6)), partial(normal, (15,))),
        LabCase("k-subset 100/10", KSubset(100, 10), partial(normal, (100,)), budgets=(12, 48, 192), earlier=1000),
        LabCase("path 5×5", path(5).make(), partial(costs, (40,))),
    )
    return {case.name: case for case in six}


CASES: Final = _cases()

SETTINGS: Final = (
    Setting("τ = 1"),
    Setting("τ = 0.3 scales of θ", Relative(0.3)),
    Setting("τ = 1 scale of θ", Relative(1.0)),
    Setting("τ = 3 scales of θ", Relative(3.0)),
    Setting("τ = 1, θ + 1000", theta_offset=1000.0),
    Setting("τ = 1, g + 10", slope_offset=10.0),
)

METHODS: Final = {
    "StraightThrough": Method(StraightThrough),
    "Identity": Method(Identity),
    "Perturbed": Method(Perturbed),
    "IMLE, one side, step 1": Method(partial(IMLE, target=RelativeStep(1.0), symmetric=False)),
    "IMLE, both sides, step 1": Method(partial(IMLE, target=RelativeStep(1.0), symmetric=True)),
    "IMLE()": Method(IMLE),
    "Line, depth 0": Method(Line),
    "Line, full depth": Method(partial(Line, depth=None)),
    "Pooled, derivative, own states alone": Method(partial(Pooled, derivative=True, draws=_DRAWS), is_new=True),
    "Pooled, derivative": Method(partial(Pooled, derivative=True, draws=_DRAWS)),
    "Pooled, sides ½ and ½": Method(partial(Pooled, sides=(0.5, 0.5))),
    "Pooled()": Method(Pooled),
    "MultiFidelity": Method(partial(MultiFidelity, draws=_DRAWS)),
    "Exact, another target": Method(Exact),
}
