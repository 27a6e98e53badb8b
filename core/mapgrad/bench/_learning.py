"""What networks learn in suite `training`: ten tasks, each with a solver that answers in microseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import nn

from mapgrad.batching import get_solver
from mapgrad.bench._cases import complete
from mapgrad.data import (
    Examples,
    KnapsackTask,
    OptDataset,
    PolynomialTask,
    ShortestPathTask,
    TravelingSalesmanTask,
)
from mapgrad.exact import enumerate_states, oracle
from mapgrad.losses import normalized_regret
from mapgrad.problems import (
    Assignment,
    Domain,
    GridShortestPath,
    IntegerProgram,
    KSubset,
    SpanningTree,
    TravelingSalesman,
)
from mapgrad.solvers import BatchSolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem

FEATURES: Final = 5
TRAIN: Final = 100
TEST: Final = 1_000
BATCH: Final = 25
EPOCHS: Final = 15
SETTINGS: Final = (4, 0.5), (6, 0.0)
"""Degrees and noises."""

_SIZE: Final = 10
_ONES: Final = 5


@dataclass(frozen=True, eq=False)
class LearningTask:
    """One seed's rows, and how what is learnt from them is judged.

    Attributes:
        problem: The feasible set.
        minimize: Whether a network predicts costs.
        train: The rows to learn from.
        test: Other rows; None where a task has none.
        network: Makes the network that learns, at its start: features [B, p] → predictions [B, *shape].
        loss: Of answers [B, *shape], or [S, B, *shape] where `reduction` is "none", on a batch: a scalar.
        score: What predictions [N, *shape] lose on rows, in %.
        has_costs: Whether the rows' costs are what is to be predicted.
        reduction: Of the layer.
        epochs: How often all rows are seen.
        rates: Adam's learning rates to choose from.
    """

    problem: Problem
    minimize: bool
    train: Examples
    test: Examples | None
    network: Callable[[], nn.Module]
    loss: Callable[[Tensor, Examples], Tensor]
    score: Callable[[Tensor, Examples], float]
    has_costs: bool = True
    reduction: Literal["mean", "none"] = "mean"
    epochs: int = EPOCHS
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)


class AllStates(BatchSolver["Problem"]):
    """The best of all states of a small problem, in one matrix product."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._states = enumerate_states(problem).flatten(1)

    def solve(self, theta: Tensor) -> Tensor:
        """Return the best state of each row."""
        states = self._states.to(theta)
        return states[(theta.flatten(1) @ states.T).argmax(dim=1)].view_as(theta)


@cache
def solver_of(problem: Problem) -> Solver:
    """Return what scores answers: the automatic choice, or an enumeration for tours, which have no fast kernel."""
    return new_solver(problem)


def new_solver(problem: Problem) -> Solver:
    """Return the same with counts of its own."""
    return get_solver(AllStates if isinstance(problem, TravelingSalesman) else "auto", problem)


def set_cover() -> IntegerProgram:
    """Return the covers of 8 elements by 12 sets, each of which has three tenths of them."""
    generator = np.random.default_rng(7)
    matrix = (generator.random((8, 12)) < 0.3).astype(float)
    for _ in range(2):  # each element is in a set or two
        matrix[np.arange(8), generator.integers(0, 12, 8)] = 1
    return IntegerProgram(A_ub=-matrix, b_ub=-np.ones(8))


def predict_costs(law: Callable[..., Any], degree: int, noise: float, seed: int) -> LearningTask:
    """Return a task of predict-then-optimise, whose loss is the regret."""
    task = law(features=FEATURES, degree=degree, noise=noise, seed=seed)
    sign = 1.0 if task.minimize else -1.0

    def loss(z: Tensor, batch: Examples) -> Tensor:
        return sign * (z * batch.costs).sum() / len(z)

    def score(pred: Tensor, rows: Examples) -> float:
        solver = solver_of(task.problem)
        return 100 * normalized_regret(solver, pred, rows.costs, rows.states, minimize=task.minimize).item()

    return LearningTask(task.problem, task.minimize, *_rows(task), _linear(task.problem), loss, score)


def imitate_paths(seed: int) -> LearningTask:
    """Return the task to follow paths of 12×12 cells, whose loss is the number of cells that differ."""
    task = PolynomialTask(problem=GridShortestPath(12, 12), features=FEATURES, seed=seed)

    def loss(z: Tensor, batch: Examples) -> Tensor:
        return (z + batch.states - 2 * z * batch.states).sum() / len(z)

    def score(pred: Tensor, rows: Examples) -> float:
        z = solver_of(task.problem)(-pred)
        return 100 * ((z - rows.states).abs().sum() / rows.states.sum()).item()

    return LearningTask(task.problem, True, *_rows(task), _linear(task.problem), loss, score, has_costs=False)


def fit_moments(seed: int) -> LearningTask:
    """Return the toy of Niepert, Minervini and Franceschi 2021: θ that minimises E ‖z − b‖² for subsets, 5 of 10.

    The score is how much of the first θ's distance to the minimum is left, under the Gibbs law of θ.
    """
    problem = KSubset(_SIZE, _ONES)
    generator = np.random.default_rng(seed)
    start, b = (torch.as_tensor(generator.standard_normal(_SIZE), dtype=torch.float32) for _ in range(2))
    b = b.abs()
    worth = 1 - 2 * b  # of each entry, as z² = z

    def network() -> nn.Module:
        linear = nn.Linear(1, _SIZE, bias=False)
        with torch.no_grad():
            linear.weight.copy_(start[:, None])
        return linear

    def loss(z: Tensor, batch: Examples) -> Tensor:
        return (z - batch.costs).square().sum(dim=-1).mean()

    def distance(theta: Tensor) -> float:
        best = worth.sort().values[:_ONES].sum()
        return ((oracle(problem).marginals(theta) * worth).sum() - best).item()

    def score(pred: Tensor, rows: Examples) -> float:
        return 100 * distance(pred[0]) / distance(start)

    rows = Examples(torch.ones(1, 1), b[None], torch.zeros(1, _SIZE), torch.zeros(1))
    return LearningTask(
        problem,
        minimize=False,
        train=rows,
        test=None,
        network=network,
        loss=loss,
        score=score,
        has_costs=False,
        reduction="none",
        epochs=EPOCHS * TRAIN // BATCH,
        rates=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    )


def _rows(task: Any) -> tuple[Examples, Examples]:
    solver = solver_of(task.problem)
    train, test = (
        OptDataset(solver, *task.draw(count, part), minimize=task.minimize)[:]
        for count, part in ((TRAIN, "train"), (TEST, "test"))
    )
    return train, test


def _linear(problem: Problem) -> Callable[[], nn.Module]:
    layers: list[nn.Module] = [nn.Unflatten(1, problem.shape)]
    if problem.domain is Domain.NONPOSITIVE:
        layers.append(nn.Softplus())
    return lambda: nn.Sequential(nn.Linear(FEATURES, math.prod(problem.shape)), *layers)


LAWS: Final[dict[str, Callable[..., Any]]] = {
    "path 5×5": ShortestPathTask,
    "assignment 5": partial(PolynomialTask, problem=Assignment(5)),
    "k-subset 50/5": partial(PolynomialTask, problem=KSubset(50, 5), minimize=False),
    "tree 6": partial(PolynomialTask, problem=SpanningTree(6, complete(6))),
    "cover 8×12": partial(PolynomialTask, problem=set_cover()),
    "knapsack 10": partial(KnapsackTask, items=10, dimensions=1),
    "knapsack 12×2": partial(KnapsackTask, items=12, dimensions=2),
    "tour 8": partial(TravelingSalesmanTask, nodes=8),
}

TASKS: Final[dict[str, Callable[[int], LearningTask]]] = {
    **{
        f"{name}, degree {degree}, noise {noise:g}": partial(predict_costs, law, degree, noise)
        for degree, noise in SETTINGS
        for name, law in LAWS.items()
    },
    "imitation of paths 12×12": imitate_paths,
    "toy, subsets of 10/5": fit_moments,
}
