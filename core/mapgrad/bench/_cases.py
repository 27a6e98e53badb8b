"""The problems that suites measure, a step on them, and the bare kernel of a solver."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.batching import Staged, get_solver
from mapgrad.gradients import IMLE, Step, SumOfGamma
from mapgrad.layer import MAPLayer
from mapgrad.problems import (
    Arborescence,
    Assignment,
    GridShortestPath,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    Ranking,
    ShortestPath,
    SpanningTree,
    TravelingSalesman,
)
from mapgrad.solvers import BatchSolver, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import Solver
    from mapgrad.bench._clock import Work
    from mapgrad.gradients import Noise
    from mapgrad.problems import Problem

SEED: Final = 0
LAM: Final = 10.0
KAPPA: Final = 5.0


@dataclass(frozen=True)
class Case:
    """A problem to measure on.

    Attributes:
        name: What tables call it.
        make: Makes the problem.
        minimize: Whether θ are costs.
    """

    name: str
    make: Callable[[], Problem]
    minimize: bool = False

    def theta(self, count: int) -> torch.Tensor:
        """Return float32 [count, *shape] from 1 to 6: costs or values."""
        return torch.rand((count, *self.make().shape), generator=torch.Generator().manual_seed(SEED)) * 5 + 1

    def utilities(self, count: int) -> torch.Tensor:
        """Return θ, or −θ where θ are costs."""
        return -self.theta(count) if self.minimize else self.theta(count)


def path(size: int) -> Case:
    """Paths on a grid of some size through arcs to the right and down."""
    return Case(f"path {size}×{size}", partial(ShortestPath.on_grid, size, size), minimize=True)


def grid(size: int) -> Case:
    """Paths through the cells of a grid, each with eight neighbours."""
    return Case(f"grid {size}", partial(GridShortestPath, size, size), minimize=True)


def knapsack_data(items: int, rows: int) -> tuple[Any, Any]:
    """Return weights [rows, items] from 1 to 99, and capacities of half of their sums."""
    weights = np.random.default_rng(5).integers(1, 100, (rows, items)).astype(float)
    return weights, np.floor(weights.sum(axis=1) / 2)


def knapsack(items: int, rows: int) -> Case:
    """Knapsacks of several dimensions."""
    return Case(f"knapsack {items}×{rows}", lambda: Knapsack(*knapsack_data(items, rows)))


def cover(rows: int, columns: int) -> Case:
    """Set covers with a tenth of all entries."""

    def make() -> Problem:
        generator = np.random.default_rng(3)
        matrix = (generator.random((rows, columns)) < 0.1).astype(float)
        empty = np.flatnonzero(matrix.sum(axis=1) == 0)
        matrix[empty, generator.integers(0, columns, len(empty))] = 1
        return IntegerProgram(A_ub=-matrix, b_ub=-np.ones(rows))

    return Case(f"cover {rows}×{columns}", make, minimize=True)


def subset(n: int, k: int) -> Case:
    """Subsets of k of n."""
    return Case(f"k-subset {n}/{k}", partial(KSubset, n, k))


def assignment(n: int) -> Case:
    """Square assignments."""
    return Case(f"assignment {n}", partial(Assignment, n))


def complete(n: int) -> list[tuple[int, int]]:
    """Return the edges of a complete graph."""
    return [(node, other) for node in range(n) for other in range(node + 1, n)]


def sparse(n: int, edges: int) -> list[tuple[int, int]]:
    """Return the edges of a random graph in which each node has one to the next."""
    ends = np.sort(np.random.default_rng(SEED).integers(0, n, (edges, 2)), axis=1).tolist()
    return [*((node, node + 1) for node in range(n - 1)), *((one, other) for one, other in ends if one != other)]


def tree(n: int) -> Case:
    """Spanning trees of a complete graph."""
    return Case(f"tree K{n}", lambda: SpanningTree(n, complete(n)))


def matching(n: int) -> Case:
    """Matchings of a complete graph."""
    return Case(f"matching K{n}", lambda: Matching(n, complete(n)))


STEPS: Final = (
    path(5),
    path(12),
    grid(12),
    grid(30),
    knapsack(16, 2),
    subset(1000, 10),
    assignment(10),
    assignment(50),
    cover(30, 60),
    tree(20),
    matching(32),
)

KERNELS: Final = (
    subset(100, 10),
    subset(1000, 10),
    subset(1000, 100),
    Case("ranking 100", partial(Ranking, 100)),
    path(5),
    path(12),
    path(30),
    Case("path, 100 nodes, undirected", lambda: ShortestPath(100, sparse(100, 400), 0, 99, directed=False), True),
    grid(6),
    grid(12),
    grid(30),
    assignment(10),
    assignment(30),
    assignment(100),
    matching(10),
    matching(32),
    tree(20),
    Case("tree, 200 nodes", lambda: SpanningTree(200, sparse(200, 800))),
    Case("arborescence K15", lambda: Arborescence(15, [*complete(15), *((v, u) for u, v in complete(15))], 0)),
    knapsack(16, 2),
    knapsack(16, 5),
    knapsack(30, 2),
    knapsack(50, 2),
    knapsack(50, 5),
    cover(30, 60),
    Case("tour 10", partial(TravelingSalesman, 10), True),
)


def estimator(noise: Noise | None, samples: int = 1) -> IMLE:
    """Return I-MLE as published: a step of fixed length to one side of θ."""
    return IMLE(noise, Step(LAM), samples=samples, symmetric=False)


def layer_of(
    solver: Solver | Callable[[torch.Tensor], torch.Tensor], case: Case, *, seed: int | None = None
) -> MAPLayer:
    """Return the layer of a case, with Sum-of-Gamma noise."""
    return MAPLayer(solver, estimator(SumOfGamma(KAPPA)), minimize=case.minimize, seed=seed)


def step(layer: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor) -> None:
    """Do a training step's work on one layer: forward and backward."""
    leaf = theta.clone().requires_grad_()
    loss = layer(leaf).abs().sum()  # pushes out what was chosen: no row's two solves are alike
    loss.backward()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)


def rows_of_step(solver: Solver, case: Case, theta: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows that a step asks a solver for: those of the forward and those of the backward pass."""
    rows: list[torch.Tensor] = []

    def watched(theta: torch.Tensor) -> torch.Tensor:
        rows.append(theta.clone())
        return solver(theta)

    step(layer_of(watched, case, seed=SEED), theta)
    return rows


def bare_kernel(name: str, problem: Problem, batches: Sequence[torch.Tensor]) -> Work:
    """Return a solver's own work on batches, as the core would hand them over, into arrays that are there already."""
    factory = resolve(name, problem)
    solver, lowering = factory.build(problem, {}), factory.lowering(problem)
    batches = [problem.domain.clip(rows) for rows in batches]
    if isinstance(solver, BatchSolver):
        if lowering.is_lowered:
            batches = [torch.as_tensor(lowering.rows(rows.double().numpy())) for rows in batches]
        return lambda: [solver.solve(rows) for rows in batches]
    state = solver.init()
    blocks = [
        Staged(rows, lowering, solver.traits, near=None, seconds=None, reuse=False, is_masked=False).block
        for rows in batches
    ]
    return lambda: [solver.solve_rows(state, block) for block in blocks]


def auto(problem: Problem) -> Solver:
    """Return what ``"auto"`` chooses."""
    return get_solver("auto", problem)
