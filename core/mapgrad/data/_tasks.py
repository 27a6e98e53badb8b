"""Generators of features and costs: paths, knapsacks, tours and portfolios as published, and any problem."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, Literal, get_args

import numpy as np
import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import require_minimize
from mapgrad.problems import Knapsack, Portfolio, Problem, ShortestPath, TravelingSalesman

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Part = Literal["train", "validation", "test"]

_STREAM_OF_TASK: Final = 0
_STREAMS: Final[dict[str, int]] = {part: number for number, part in enumerate(get_args(Part), start=1)}


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A problem and a law of its costs given features, which a matrix B [*shape, p] drawn once determines."""

    features: int = 5
    degree: int = 4
    noise: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _require_integers(self, features=1, degree=1, seed=0)
        if isinstance(self.noise, bool) or not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number ≥ 0, got {self.noise!r}")
        _ = self.problem  # which refuses sizes that make no feasible set

    @cached_property
    def problem(self) -> Problem:
        """The feasible set."""
        raise NotImplementedError

    def draw(self, count: int, part: Part = "train") -> tuple[Tensor, Tensor]:
        """Draw features and costs.

        Equal tasks draw equal rows, on every machine up to the last digits of a cost. The rows of the three parts are
        independent of each other, under one B. A longer draw begins with the rows of a shorter one.

        Args:
            count: N ≥ 0, the number of rows.
            part: "train", "validation" or "test".

        Returns:
            Features [N, p] and costs [N, *shape] (values to maximise where `minimize` is False), float32 on the CPU.

        Raises:
            TypeError: `count` isn't an integer.
            ValueError: `count` is negative, there is no such part, or the costs overflow.
        """
        if part not in _STREAMS:
            raise ValueError(f"part must be one of {', '.join(map(repr, _STREAMS))}, got {part!r}")
        count = whole_number("count", count, 0)
        stream = _STREAMS[part]
        x = self._generator(stream, 0).standard_normal((count, self.features))
        signal = np.tensordot(x, self._matrix, (1, -1)) / math.sqrt(self.features)
        costs = self._noisy(signal, self._generator(stream, 1))
        if not np.abs(costs).max(initial=0.0) <= np.finfo(np.float32).max:
            raise ValueError(f"costs of degree {self.degree} and noise {self.noise} overflow float32: take lower ones")
        return torch.as_tensor(x.astype(np.float32)), torch.as_tensor(costs.astype(np.float32))

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        """B, [*shape, p]."""
        shape = (*self.problem.shape, self.features)
        return self._generator(_STREAM_OF_TASK, 0).integers(0, 2, shape).astype(np.float64)

    def _noisy(self, signal: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        """Return the costs [N, *shape], from B x / √p and noise that is drawn here."""
        return self._costs(signal + 3, generator.uniform(1 - self.noise, 1 + self.noise, signal.shape))

    def _costs(self, signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the costs [N, *shape], from B x / √p + 3 and the noise of the same shape."""
        return (signal**self.degree + 1) / 3.5**self.degree * noise

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=stream)))


@dataclass(frozen=True, kw_only=True)
class ShortestPathTask(_Task):
    """Shortest paths on a grid, whose edges lead east and south, from the north-west corner to the south-east one.

    The costs to minimise are c_j = [((B x)_j / √p + 3)^degree + 1] / 3.5^degree · ε_j with features x ~ N(0, I_p), B_jk
    0 or 1 with equal chances, and ε_j uniform on [1 − noise, 1 + noise]: the law of Elmachtoub and Grigas, Smart
    «Predict, then Optimize», Management Science 2022, section 6.1, in the variant of PyEPO (Tang and Khalil 2024, as
    for `KnapsackTask`), which divides by 3.5^degree, so that costs of all degrees are of one size.

    Edges come row by row: those that lead east from its nodes, then those that lead south.

    Args:
        height: Number of rows of nodes, ≥ 1.
        width: Number of nodes in a row, ≥ 1, and at least 2 nodes in all.
        features: p ≥ 1.
        degree: ≥ 1; the higher, the less does a linear model fit.
        noise: Half-width of the noise, ≥ 0; costs of even degree are positive below 1.
        seed: ≥ 0, of B and of all rows.

    Raises:
        TypeError: an argument that should be an integer isn't.
        ValueError: an argument is too small or isn't finite.
    """

    height: int = 5
    width: int = 5

    minimize: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_integers(self, height=1, width=1)
        if self.height * self.width < 2:
            raise ValueError("height and width must give the grid 2 nodes or more, got 1 and 1")
        super().__post_init__()

    @cached_property
    def problem(self) -> ShortestPath:
        """The paths, as sets of the d = height · (width − 1) + (height − 1) · width edges."""
        return ShortestPath.on_grid(self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class PolynomialTask(_Task):
    """Any problem, with costs by the law of `ShortestPathTask`: for problems that have no published generator.

    Args:
        problem: The feasible set, whose entries get a cost each.
        minimize: Whether they are costs, or values to be maximised.
        features: p ≥ 1.
        degree: ≥ 1.
        noise: Half-width of the noise, ≥ 0.
        seed: ≥ 0, of B and all rows.

    Raises:
        TypeError: `problem` isn't a `Problem`, `minimize` not a bool, or an argument that should be an integer isn't.
        ValueError: an argument is too small or isn't finite.
    """

    problem: Problem = field()  # pyright: ignore[reportIncompatibleVariableOverride] (given, not worked out)
    minimize: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"problem must be a mapgrad.Problem, such as mapgrad.Assignment(5), got {self.problem!r}")
        require_minimize(self.minimize)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class KnapsackTask(_Task):
    """Knapsacks of fixed weights, whose items' values are to be predicted.

    The values to maximise are v_j = ⌈5 [((B x)_j / √p + 3)^degree + 1] / 3.5^degree · ε_j⌉ with x, B and ε as for
    `ShortestPathTask`; the weights are drawn once, uniformly from {3.00, 3.01, …, 7.99}. The law is that of PyEPO (Tang
    and Khalil, PyEPO: a PyTorch-based end-to-end predict-then-optimize library for linear and integer programming,
    Mathematical Programming Computation 2024, arXiv 2206.14234), which leaves the capacities to its user.

    Args:
        items: d ≥ 1.
        dimensions: Number of capacities, ≥ 1.
        capacity: Of each dimension, > 0.
        features: p ≥ 1.
        degree: ≥ 1.
        noise: Half-width of the noise, ≥ 0.
        seed: ≥ 0, of the weights, B and all rows.

    Raises:
        TypeError: an argument that should be an integer isn't.
        ValueError: an argument is too small or isn't finite.
    """

    items: int = 32
    dimensions: int = 2
    capacity: float = 20.0

    minimize: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_integers(self, items=1, dimensions=1)
        if not 0 < self.capacity < math.inf:
            raise ValueError(f"capacity must be a finite number > 0, got {self.capacity!r}")
        super().__post_init__()

    @cached_property
    def problem(self) -> Knapsack:
        """The sets of items within the capacities."""
        weights = self._generator(_STREAM_OF_TASK, 1).integers(300, 800, (self.dimensions, self.items)) / 100
        return Knapsack(weights, np.full(self.dimensions, self.capacity))

    def _costs(self, signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ceil(5 * (signal**self.degree + 1) / 3.5**self.degree * noise)


@dataclass(frozen=True, kw_only=True)
class TravelingSalesmanTask(_Task):
    """Tours through fixed places, whose edges cost their length and a part that is to be predicted.

    The costs to minimise are c_j = ‖u − v‖ + ((B x)_j / √p + 3)^degree / 3^(degree − 1) · ε_j for the edge j between
    the places u and v, rounded to four decimals, with x and ε as for `ShortestPathTask`; each B_jk is 0 or uniform on
    [−2, 2], with equal chances. Half of the places are uniform on [−2, 2]², the others of the law N(0, I_2), drawn
    once. The law is that of PyEPO (Tang and Khalil 2024, as for `KnapsackTask`).

    Args:
        nodes: Number of places, ≥ 3.
        features: p ≥ 1.
        degree: ≥ 1.
        noise: Half-width of the noise, ≥ 0.
        seed: ≥ 0, of the places, B and all rows.

    Raises:
        TypeError: an argument that should be an integer isn't.
        ValueError: an argument is too small or isn't finite.
    """

    nodes: int = 20

    minimize: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_integers(self, nodes=3)
        super().__post_init__()

    @cached_property
    def problem(self) -> TravelingSalesman:
        """The tours, as sets of the d = nodes · (nodes − 1) / 2 edges."""
        return TravelingSalesman(self.nodes)

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        generator = self._generator(_STREAM_OF_TASK, 0)
        shape = (*self.problem.shape, self.features)
        return generator.integers(0, 2, shape) * generator.uniform(-2, 2, shape)

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        generator = self._generator(_STREAM_OF_TASK, 1)
        half = self.nodes // 2
        places: NDArray[np.float64] = np.concatenate(
            [generator.uniform(-2, 2, (half, 2)), generator.standard_normal((self.nodes - half, 2))]
        )
        edges = self.problem.edges
        steps = places[edges[:, 0]] - places[edges[:, 1]]
        return np.hypot(steps[:, 0], steps[:, 1])

    def _costs(self, signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        costs = self._lengths + signal**self.degree / 3 ** (self.degree - 1) * noise
        return costs.round(4)


@dataclass(frozen=True, kw_only=True)
class PortfolioTask(_Task):
    """Portfolios within a limit on risk, whose assets' returns are to be predicted.

    The returns to maximise are r_j = (0.05 (B x)_j / √p + 0.1^(1/degree))^degree + (L f)_j + 0.01 τ ε_j with x and B as
    for `ShortestPathTask`, factors f ~ N(0, I_m), ε ~ N(0, I_d), and L [d, m] drawn once, uniformly from ±0.0025 τ.
    Their covariance given x is Σ = L Lᵀ + (0.01 τ)² I, and the limit on zᵀ Σ z is γ times the variance of equal shares,
    the mean of Σ's entries. The law is that of Elmachtoub and Grigas (Smart «Predict, then Optimize», Management
    Science 2022, section 6.2), with m = 4 and a budget that may be left unspent. PyEPO (Tang and Khalil 2024, as for
    `KnapsackTask`) has m = p, and spends all: ``factors=features, fully_invested=True``.

    Args:
        assets: d ≥ 1.
        factors: m ≥ 1.
        gamma: γ > 0; with `fully_invested` at least 1, where equal shares are within the limit.
        fully_invested: Whether all of the budget must be spent.
        features: p ≥ 1.
        degree: ≥ 1.
        noise: τ > 0, 1 and 2 in the paper.
        seed: ≥ 0, of L, B and all rows.

    Raises:
        TypeError: an argument that should be an integer isn't.
        ValueError: an argument is too small or isn't finite.
    """

    noise: float = 1.0
    assets: int = 50
    factors: int = 4
    gamma: float = 2.25
    fully_invested: bool = False

    minimize: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_integers(self, assets=1, factors=1)
        least = 1 if self.fully_invested else 0
        if not least <= self.gamma < math.inf or self.gamma == 0:
            raise ValueError(f"gamma must be a finite number {'≥ 1' if least else '> 0'}, got {self.gamma!r}")
        if self.noise == 0:
            raise ValueError("noise must be > 0, or the returns have no variance to limit, got 0")
        super().__post_init__()

    @cached_property
    def problem(self) -> Portfolio:
        """The portfolios within the limit."""
        covariance = self._loadings @ self._loadings.T + (0.01 * self.noise) ** 2 * np.eye(self.assets)
        return Portfolio(covariance, self.gamma * covariance.mean(), fully_invested=self.fully_invested)

    @cached_property
    def _loadings(self) -> NDArray[np.float64]:
        """L, [d, m]."""
        shape = self.assets, self.factors
        return 0.0025 * self.noise * self._generator(_STREAM_OF_TASK, 1).uniform(-1, 1, shape)

    def _noisy(self, signal: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        drawn = generator.standard_normal((len(signal), self.factors + self.assets))
        factors, own = drawn[:, : self.factors], drawn[:, self.factors :]
        returns = (0.05 * signal + 0.1 ** (1 / self.degree)) ** self.degree
        return returns + factors @ self._loadings.T + 0.01 * self.noise * own


def _require_integers(task: _Task, **least: int) -> None:
    """Check integers of a task, and keep them as Python's."""
    for name, low in least.items():
        object.__setattr__(task, name, whole_number(name, getattr(task, name), low))
