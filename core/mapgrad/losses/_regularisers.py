"""Regularisers, which smooth a Fenchel–Young loss in place of noise: entropy, and half the squared norm."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor

from mapgrad.batching import name_problem, users_level
from mapgrad.errors import ProblemError, UnsupportedProblemError
from mapgrad.exact import oracle
from mapgrad.gradients import Relative, require_scalable, row_scale
from mapgrad.gradients._projection import nearest
from mapgrad.losses._values import inner
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.exact import Oracle
    from mapgrad.gradients import Temperature
    from mapgrad.problems import Problem

    Solve = Callable[[Tensor], Solutions]

_BYTES: Final = 2**30

_TOLERANCE: Final = 1e-10
_SOLVES: Final = 20
"""The relative gap of a mean of states, and how many solves it may take for each entry."""


class Regulariser(ABC):
    """A convex Ω on the hull of the states: max_μ ⟨θ, μ⟩ − τΩ(μ) + τΩ(z*) − ⟨θ, z*⟩ is the loss, μ − z* its gradient.

    Attributes:
        solves: Whether the solver is asked.
    """

    solves: ClassVar[bool]

    @abstractmethod
    def require_fit(self, problem: Problem) -> None:
        """Refuse a problem for which the optimum can't be found.

        Raises:
            UnsupportedProblemError, ProblemError: it can't.
        """

    @abstractmethod
    def values_and_means(
        self, theta: Tensor, z_true: Tensor, tau: float | Tensor, problem: Problem | None, solve: Solve
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of each row and μ.

        Args:
            theta: [N, *shape], utilities; finite, or −inf where an entry is forbidden.
            z_true: Of the same shape, true states.
            tau: τ, a number or [N, 1, …].
            problem: What is solved; None for a function that doesn't say.
            solve: Returns the best states of rows like θ, float64 too.

        Returns:
            [N] and [N, *shape], float64. Of an inexact solver, values may be negative.
        """


@dataclass(frozen=True)
class Quadratic(Regulariser):
    """Ω(μ) = ‖μ‖² / 2: sparse means μ, found by solves alone (Blondel, Martins and Niculae, JMLR 2020).

    τ is in units of θ for states of zeros and ones. μ is found to a relative gap of 1e-10 by Frank–Wolfe steps, as by
    `FrankWolfe`. The loss is at least (τ/2) ‖μ − z*‖², and 0 where z* wins by a margin.

    Example:
        >>> import torch, mapgrad
        >>> solver = mapgrad.get_solver("topk", mapgrad.KSubset(4, 1))
        >>> loss = mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Quadratic())
        >>> best = torch.tensor([0.0, 1.0, 0.0, 0.0])
        >>> loss(torch.tensor([0.5, 2.0, 1.0, 0.0]), best), loss(torch.tensor([1.0, 1.0, 0.0, 0.0]), best)
        (tensor(0.), tensor(0.2500))
    """

    solves = True

    def require_fit(self, problem: Problem) -> None:
        """Accept all problems."""

    def values_and_means(
        self, theta: Tensor, z_true: Tensor, tau: float | Tensor, problem: Problem | None, solve: Solve
    ) -> tuple[Tensor, Tensor]:
        forbidden = theta.isneginf()

        def solve_rows(rows: Tensor) -> Solutions:
            found = solve(rows.view(theta.shape).masked_fill(forbidden, -torch.inf))
            return Solutions(found.z.reshape(rows.shape), found.status)

        x = (theta.masked_fill(forbidden, 0.0).double() / tau).flatten(1)
        most = _SOLVES * (x.shape[1] + 10)
        found = nearest(x, solve_rows, problem, tolerance=_TOLERANCE, max_solves=most)
        if bool(found.is_open.any()):
            warnings.warn(
                f"{int(found.is_open.sum())} of {len(x)} rows of a loss with {self} were left with a relative gap of "
                f"up to {float(found.gap.max()):.1g} after {most} solves: is the solver exact?",
                stacklevel=users_level(),
            )
        mean, z_true = found.mean.reshape(theta.shape), z_true.double()
        gain = inner(theta, mean - z_true, 1)
        values = gain - inner(tau * (mean + z_true), mean - z_true, 1) / 2
        rounding = 1e-6 * (gain.abs() + inner(tau * (mean + z_true), mean + z_true, 1) / 2)
        return torch.where(values > -rounding, values.clamp(min=0), values), mean


@dataclass(frozen=True)
class Gibbs(Regulariser):
    """Ω = −entropy of a law over all states, whose optimum is Gibbs' law p(z) ∝ exp(⟨θ, z⟩ / τ); μ are its marginals.

    The loss is −τ log p(z*) = τ A(θ/τ) − ⟨θ, z*⟩, the negative log-likelihood of a conditional random field (Lafferty,
    McCallum and Pereira, ICML 2001). `mapgrad.exact.oracle` finds A and μ: nothing is solved, and θ may lie outside of
    the problem's domain, which is one of solvers. It says which problems have an oracle.

    Args:
        max_bytes: What the oracle may take beside θ and its result, in bytes.

    Example:
        >>> import torch, mapgrad
        >>> solver = mapgrad.get_solver("topk", mapgrad.KSubset(4, 1))
        >>> loss = mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Gibbs())
        >>> theta, best = torch.tensor([0.5, 2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
        >>> assert loss(theta, best).isclose(torch.nn.functional.cross_entropy(theta, best))
    """

    max_bytes: int = _BYTES
    solves = False

    def require_fit(self, problem: Problem) -> None:
        """Refuse a problem without an exact oracle.

        Raises:
            UnsupportedProblemError: there is none.
            ProblemError: there is none; a row takes more than `max_bytes`, or there are too many states to enumerate.
        """
        self._oracle(problem)

    def _oracle(self, problem: Problem) -> Oracle:
        try:
            return oracle(problem, max_bytes=self.max_bytes)
        except (ProblemError, UnsupportedProblemError) as error:
            raise type(error)(
                f"FenchelYoung with {self} needs an exact oracle of {name_problem(problem)}: {error}. Noise and "
                f"Quadratic() need a solver alone"
            ) from error

    def values_and_means(
        self, theta: Tensor, z_true: Tensor, tau: float | Tensor, problem: Problem | None, solve: Solve
    ) -> tuple[Tensor, Tensor]:
        assert problem is not None
        found = self._oracle(problem)
        if isinstance(tau, Tensor):
            total, mean = found.log_partition_and_marginals(theta / tau)
            best = tau.flatten() * total
        else:
            total, mean = found.log_partition_and_marginals(theta.double(), tau)
            best = tau * total
        values = best - inner(theta, z_true, 1)
        return values.clamp(min=0), mean.masked_fill(theta.isneginf(), 0.0)  # of a state, below 0 is rounding


def temperature_of(temperature: Temperature, theta: Tensor, problem: Problem | None) -> float | Tensor:
    """Return τ of rows θ [N, *shape]: a number, or float64 [N, 1, …] for a relative one.

    Raises:
        UnsupportedProblemError: it is relative, and a program's variables that θ doesn't price have utilities.
    """
    if not isinstance(temperature, Relative):
        return temperature
    require_scalable(problem, "a relative temperature")
    return temperature.factor * row_scale(theta, theta.ndim - 1, problem).double()
