"""Choices among n items: the k best, or all of them in order."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import integer
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


class KSubset(Problem):
    """All sets of exactly k of n items, as 0/1 vectors of shape (n,).

    Args:
        n: Number of items, ≥ 1.
        k: Number of items in a set, 1 ≤ k ≤ n.

    Raises:
        ProblemError: n or k isn't an integer in its range.
    """

    n: int
    k: int

    def __init__(self, n: int, k: int) -> None:
        self.n = integer("n", n, 1)
        self.k = integer("k", k, 1, self.n, hint=f"a subset of n = {n} items has at least 1 and at most {n}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (self.n,)

    @property
    def kappa(self) -> float:
        """k, the number of ones of every state."""
        return float(self.k)

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The number of items in a set."""
        return {(0,): float(self.k)}

    def to_ilp(self) -> IntegerProgram:
        """Return the program with one row, sum(z) = k: the same feasible set, and integral as it is."""
        return IntegerProgram(A_eq=np.ones((1, self.n)), b_eq=[self.k])

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        for chosen in combinations(range(self.n), self.k):
            z = np.zeros(self.n)
            z[list(chosen)] = 1
            yield z

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        return z.sum(axis=1) == self.k


class Ranking(Problem):
    """All rankings of n items: z holds the ranks 0..n - 1, each once, and argmax ⟨θ, z⟩ gives n - 1 to the largest θ.

    Args:
        n: Number of items, ≥ 1.

    Raises:
        ProblemError: n isn't an integer ≥ 1.
    """

    n: int

    def __init__(self, n: int) -> None:
        self.n = integer("n", n, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (self.n,)

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """0 and n - 1 for each coordinate: two read-only arrays of shape (n,)."""
        return frozen_array(np.zeros(self.n), np.float64), frozen_array(np.full(self.n, self.n - 1), np.float64)

    @property
    def kappa(self) -> float:
        """n, the number of ones of the permutation matrix that a ranking stands for.

        A ranking isn't a 0/1 vector, so that κ is a convention here. With n, Sum-of-Gamma noise moves an item by .5 to
        .9 times as many ranks as the Gibbs distribution of the same temperature does (measured for n from 4 to 8 and
        normal θ of standard deviation .3 to 3); the sum of squared ranks would leave hardly any noise.
        """
        return float(self.n)

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The sum of the ranks."""
        return {(0,): self.n * (self.n - 1) / 2}

    def to_ilp(self) -> IntegerProgram:
        """Return the assignment program of items to ranks, with z_i = Σ_k k · x_ik: the same feasible set."""
        n, item = self.n, np.arange(self.n)
        holds = n + n * item[:, None] + item  # column of x_ik
        equal = Rows(n + n * n)
        equal.add(np.zeros(n), (item[:, None], holds, item), (item, item, -1))
        equal.add(np.ones(n), (item[:, None], holds, 1))
        equal.add(np.ones(n), (item, holds, 1))
        upper = np.where(np.arange(n + n * n) < n, max(n - 1, 0), 1)
        return IntegerProgram(A_eq=equal.left, b_eq=equal.right, upper=upper, decision=item)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        for ranks in permutations(range(self.n)):
            yield np.array(ranks, dtype=np.float64)

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (np.sort(z, axis=1) == np.arange(self.n)).all(axis=1)
