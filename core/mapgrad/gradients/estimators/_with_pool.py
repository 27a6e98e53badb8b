"""What estimators share that take answers from a pool of states, as it is when their step begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._noise import scores
from mapgrad.gradients._ranks import gathered, is_alone
from mapgrad.gradients._steps import Recent
from mapgrad.gradients.estimators._estimator import Estimator, Forward
from mapgrad.pool import StatePool

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.problems import Problem

_STATES: Final = 512
"""How many states a pool holds that the user didn't bring."""

_REMEMBERED: Final = 64
"""How many of a pool's latest versions are kept, for backward passes that are still to come."""

_FORGETS: Final = 0.2
"""The share that one step has in `seen`."""


class Snapshot(NamedTuple):
    """The states that a step may use, whatever becomes of the pool.

    Attributes:
        pool: The pool.
        states: [P, *shape], what it held.
        seen: `PoolEstimator.seen` as it was.
    """

    pool: StatePool
    states: Tensor
    seen: float

    def best(self, rows: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the best states for rows [M, B, *shape], of the pool's and each row's own [K, B, *shape]."""
        if len(self.states) == 0 and own is None:
            return torch.zeros_like(rows)
        states = self.states.to(rows)
        value, place = self.pool.best(rows, states)
        found = states[place] if len(states) else torch.zeros_like(rows)
        if own is None or rows.numel() == 0:
            return found
        by_row = rows.masked_fill(rows.isneginf(), 0.0).flatten(2).transpose(0, 1)
        values, places = (by_row @ own.flatten(2).permute(1, 2, 0)).max(dim=2)
        batch = torch.arange(len(values), device=rows.device).unsqueeze(1)
        is_better = (value < values.T).reshape(*value.shape, *[1] * (rows.ndim - 2))
        return torch.where(is_better, own[places, batch].transpose(0, 1), found)

    def derivative(
        self,
        law: Any,
        theta: Tensor,
        gradient: Tensor,
        sampler: Sampler,
        temperature: Temperature,
        own: Tensor | None = None,
    ) -> Tensor:
        """Return the score function's estimate of the gradient of L(E z), for z the best of these states.

        Args:
            law: The noise.
            theta: [B, *shape].
            gradient: [S or 1, B, *shape], g̃.
            sampler: Its noise, of M > 1 samples.
            temperature: τ, not 0.
            own: As for `best`.
        """
        z = self.best(sampler.perturb(theta, temperature), own).flatten(2)
        values = (z * gradient.mean(dim=0).flatten(1)).sum(dim=2)
        values = values - values[:1]  # equal ones exactly 0, which rounding of their mean isn't
        values = (values - values.mean(dim=0)) * (len(z) / (len(z) - 1))  # the others' mean as baseline
        tau = sampler.row_temperatures(temperature)
        slopes = scores(law, sampler.perturb(torch.zeros_like(theta), 1.0))
        return (values.reshape(*values.shape, *[1] * (theta.ndim - 1)) * slopes).mean(dim=0).div_(tau)


class PoolEstimator(Estimator):
    """An estimator that takes the states of earlier steps for candidates, and adds those of its own.

    What a step finds waits until the next one begins, so that a row's gradient depends neither on the rows beside it
    nor on how they are split. States come in whatever order the rows had; within DistributedDataParallel, from all
    ranks.

    Args:
        problem: What the layer solves.
        pool: Its states; None for a pool of 512.
        noise: ρ(ε); "auto" for Gaussian noise, or none where the problem's domain would clip it.
        samples: S.
        temperature: τ.
        draws: M, how often the pool is asked in place of a solver.

    Attributes:
        pool: The pool.
        seen: The share of the latest forward answers that the pool held already: a running mean over steps.
    """

    is_adaptive = True

    def __init__(
        self,
        problem: Problem,
        pool: StatePool | None,
        noise: Noise | Literal["auto"] | None,
        *,
        samples: int,
        temperature: Temperature,
        draws: int,
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        if pool is not None and (not isinstance(pool, StatePool) or pool.problem != problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise ValueError(f"pool must be a StatePool of {problem!r}, got {pool!r}")
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:  # pyright: ignore[reportUnnecessaryIsInstance] (as above)
            raise ValueError(f"draws must be an int of at least 2, got {draws!r}")
        self.problem = problem
        self.pool = StatePool(problem, max_bytes=_STATES * StatePool.bytes_of(problem)) if pool is None else pool
        self.draws = draws
        self.seen = 0.0
        self._steps: Recent[int] = Recent()
        self._versions: Recent[Snapshot] = Recent(_REMEMBERED)
        self._version = 0
        self._answers: list[Tensor] = []
        self._others: list[Tensor] = []

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def copies(self) -> int:
        """M."""
        return self.draws

    def auto_noise(self, problem: Problem) -> Noise:
        """Return Gaussian noise."""
        return Gaussian()

    def begin(self, key: int) -> None:
        """Take in what the steps before have found, and keep what this step may use."""
        self._take_in(gathered(self._found(self._answers)), gathered(self._found(self._others)))
        latest = self._versions.get(self._version, None)
        if latest is None or latest.states is not self.pool.states or latest.seen != self.seen:
            self._version += 1
            self._versions.note(self._version, self._now())
        self._steps.note(key, self._version)

    def _now(self) -> Snapshot:
        return Snapshot(self.pool, self.pool.states, self.seen)

    def snapshot(self, forward: Forward) -> Snapshot:
        """Return what a pass may use.

        Raises:
            RuntimeError: it is too long ago.
        """
        key = forward.sampler.key
        if key is None:
            return self._now()
        found = self._versions.get(self._steps.find(key), None)
        if found is None:
            raise RuntimeError(
                f"the pool of {type(self).__name__} changed more than {_REMEMBERED} times between a forward pass and "
                f"its backward pass, which needs the states as they were: go back earlier, or take TwoSided()"
            )
        return found

    def record(self, forward: Forward, others: Tensor | None = None) -> None:
        """Note the states of a training pass, and others [..., *shape] that were solved for on its way back."""
        if forward.is_training:
            self._answers.append(forward.z.detach().clone().reshape(-1, *self.problem.shape))
            if others is not None:
                self._others.append(others.reshape(-1, *self.problem.shape))

    def _found(self, recorded: list[Tensor]) -> Tensor:
        return torch.cat([each.to(self.pool.states) for each in recorded] or [self.pool.states[:0]])

    def _take_in(self, answers: Tensor, others: Tensor) -> None:
        if len(answers):
            share = float(self.pool.contains(answers).double().mean())
            self.seen += _FORGETS * (share - self.seen)
            self.pool.add(torch.cat([answers, others]))
        self._answers.clear()
        self._others.clear()

    @property
    def stats(self) -> dict[str, float]:
        """How many states the pool has, and the share of answers that it held already, as of the last step's start."""
        return {"pool": len(self.pool), "seen": self.seen}

    def get_extra_state(self) -> Tensor:
        """Return `seen`, once what was found is taken in; where ranks may share that, it waits for them."""
        if is_alone():
            self._take_in(self._found(self._answers), self._found(self._others))
        return torch.tensor(self.seen, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with a saved `seen`.

        Raises:
            ValueError: it isn't one.
        """
        if not isinstance(state, Tensor) or state.ndim or not 0 <= float(state) <= 1:  # pyright: ignore[reportUnnecessaryIsInstance] (a user's file)
            raise ValueError(
                f"a saved {type(self).__name__} has a number from 0 to 1 as its extra state, got {state!r}"
            )
        self.seen = float(state)
        self._answers.clear()
        self._others.clear()
