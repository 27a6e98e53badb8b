"""Who learns in suite `training`: estimators, losses, and PyEPO where it is installed."""

from __future__ import annotations

import importlib
import math
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch

from mapgrad.bench._cases import KAPPA, LAM
from mapgrad.errors import MapgradError, MissingDependencyError
from mapgrad.gradients import IMLE, Pooled, Step, SumOfGamma, TwoSided
from mapgrad.layer import MAPLayer
from mapgrad.losses import SPOPlus

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.bench._learning import LearningTask
    from mapgrad.data import Examples
    from mapgrad.gradients import Estimator
    from mapgrad.problems import Problem

Objective: TypeAlias = "Callable[[Tensor, Examples], Tensor]"
NewObjective: TypeAlias = "Callable[[LearningTask, Solver], Objective]"

LEAST_SQUARES: Final = "least squares"
PYEPO: Final = "PyEPO's I-MLE, S = 10"
PUBLISHED: Final = "I-MLE as published, S = 10"
SPO_PLUS: Final = "SPO+"

_SAMPLES: Final = 10
_TERMS: Final = 10
"""Of PyEPO's Sum-of-Gamma noise."""

_SEEDS: Final = 2**31
"""What PyEPO's are less than."""


def least_squares(task: LearningTask) -> Callable[[Tensor], Tensor]:
    """Return the linear network that fits the costs best, whatever the decisions.

    Raises:
        MapgradError: there are no costs to fit.
    """
    _require_costs(task)

    def widened(features: Tensor) -> Tensor:
        return torch.cat([features, torch.ones(len(features), 1)], dim=1).double()

    features, costs = widened(task.train.features), task.train.costs.flatten(1).double()
    weights = torch.as_tensor(np.linalg.lstsq(features.numpy(), costs.numpy(), rcond=None)[0])
    return lambda features: (widened(features) @ weights).float().view(-1, *task.problem.shape)


def spo_plus(task: LearningTask, solver: Solver) -> Objective:
    """Return SPO+, which asks for the best states of 2 pred − true.

    Raises:
        MapgradError: there are no true costs.
    """
    _require_costs(task)
    loss = SPOPlus(solver, minimize=task.minimize)
    return lambda pred, batch: loss(pred, batch.costs, batch.states)


def estimated(make: Callable[[Problem], Estimator], task: LearningTask, solver: Solver) -> Objective:
    """Return the task's loss behind a layer, whose estimator is made for the task's problem."""
    layer = MAPLayer(solver, make(task.problem), minimize=task.minimize, reduction=task.reduction)
    return lambda pred, batch: task.loss(layer(pred), batch)


def as_published(_problem: Problem) -> IMLE:
    """Return I-MLE with PyEPO's settings, and noise that is added to utilities."""
    return IMLE(SumOfGamma(KAPPA, terms=_TERMS), Step(LAM), samples=_SAMPLES, symmetric=False)


def pyepo(task: LearningTask, solver: Solver) -> Objective:
    """Return the task's loss behind PyEPO's own layer, for which this library's solver works.

    PyEPO adds the noise to costs where costs are minimised, and solves row by row: what it takes for a pool of
    processes gets all rows at once.

    Raises:
        MissingDependencyError: PyEPO isn't installed.
        MapgradError: the task's loss is one of single samples, of which PyEPO returns the mean alone.
    """
    if find_spec("pyepo") is None:
        raise MissingDependencyError("pyepo isn't installed")
    if task.reduction != "mean":
        raise MapgradError("PyEPO returns the mean of samples alone")
    functions, base, senses = (importlib.import_module(f"pyepo.{name}") for name in ("func", "model.opt", "EPO"))
    shape, sign = task.problem.shape, -1 if task.minimize else 1

    class Costs(base.optModel):
        """The number of costs and their sense."""

        modelSense = senses.MINIMIZE if task.minimize else senses.MAXIMIZE  # noqa: N815 (PyEPO's name)

        def _getModel(self) -> tuple[None, range]:  # noqa: N802 (as before)
            return None, range(math.prod(shape))

        def setObj(self, c: object) -> None:  # noqa: N802 (as before)
            raise NotImplementedError

        solve = setObj

    layer: Any = functions.implicitMLE(
        Costs(),
        n_samples=_SAMPLES,
        sigma=1.0,
        lambd=LAM,
        distribution=importlib.import_module("pyepo.func.utils").sumGammaDistribution(
            kappa=KAPPA, n_iterations=_TERMS, seed=int(torch.randint(_SEEDS, ()))
        ),
    )
    layer.processes, layer.pool = 2, _AtOnce(lambda costs: solver((sign * costs).view(-1, *shape)).flatten(1))
    return lambda pred, batch: task.loss(layer(pred.flatten(1)).view(-1, *shape), batch)


class _AtOnce:
    """What PyEPO takes for a pool of processes: solves all rows in one call."""

    def __init__(self, solve: Callable[[Tensor], Tensor]) -> None:
        self._solve = solve

    def amap(self, function: object, costs: Any) -> _AtOnce:
        """Take rows [N, n], costs as PyEPO knows them."""
        rows = torch.as_tensor(costs)
        states = self._solve(rows)
        self._answers = [*zip(np.asarray(states), np.asarray((rows * states).sum(dim=1)), strict=True)]
        return self

    def get(self) -> list[tuple[Any, Any]]:
        """Return each row's state and objective."""
        return self._answers


def _require_costs(task: LearningTask) -> None:
    if not task.has_costs:
        raise MapgradError("needs true costs, which this task doesn't have")


OBJECTIVES: Final[dict[str, NewObjective]] = {
    PYEPO: pyepo,
    PUBLISHED: partial(estimated, as_published),
    SPO_PLUS: spo_plus,
    "IMLE()": partial(estimated, lambda _: IMLE()),
    "IMLE(samples=10, symmetric=False)": partial(estimated, lambda _: IMLE(samples=10, symmetric=False)),
    "Pooled(problem)": partial(estimated, Pooled),
    "TwoSided()": partial(estimated, lambda _: TwoSided()),
    "TwoSided(draws=9)": partial(estimated, lambda _: TwoSided(draws=9)),
    "TwoSided(draws=9, temperature=0.5)": partial(estimated, lambda _: TwoSided(draws=9, temperature=0.5)),
}
"""What trains by gradients, by name: an estimator more is a line more."""
