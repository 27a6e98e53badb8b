"""What estimators share that take answers from a pool of states, as it is when their step begins."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from mapgrad.arguments import whole_number
from mapgrad.batching import is_readable, name_problem, text_of_saved, to_list, users_level
from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._noise import require_density, scores
from mapgrad.gradients._ranks import Accumulation, gathered
from mapgrad.gradients._steps import Recent
from mapgrad.gradients.estimators._estimator import Estimator, Forward
from mapgrad.pool import StatePool
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.pool import Version
    from mapgrad.problems import Problem

_STATES: Final = 585
"""How many states a pool holds that the user didn't bring; once it is full, 512 of them and what came since."""

_BLOCK: Final = 1 << 22
"""Scores that are worked out at a time."""

_FORGETS: Final = 0.2
"""The share that one step has in `seen`."""

_HEAD: Final = 3
"""Numbers before the first state's entries in what is saved."""

_DIGITS: Final = 12
"""Hexadecimal digits that stand for a problem there, as many as float64 holds."""


_OTHER_POOLS: Final = (
    "the pools of the ranks hold other states, so that their gradients aren't those of one rank with the whole batch: "
    "let each rank load a checkpoint, not one of them alone, add no states to a pool on some ranks only, and share "
    "none with a loss under no_sync"
)


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
        """Return the best states for rows [..., M, B, *shape], of the pool's and each row's own [K, B, *shape]."""
        if len(self.states) == 0 and own is None:
            return torch.zeros_like(rows)
        states = self.states.to(rows)
        value, place = self.pool.best(rows, states)
        found = states[place] if len(states) else torch.zeros_like(rows)
        if own is None or rows.numel() == 0:
            return found
        event = own.shape[2:]
        by_row = rows.masked_fill(rows.isneginf(), 0.0).reshape(-1, own.shape[1], event.numel()).transpose(0, 1)
        values, places = (by_row @ own.flatten(2).permute(1, 2, 0)).max(dim=2)
        batch = torch.arange(len(values), device=rows.device).unsqueeze(1)
        is_better = (value < values.T.view_as(value)).view(*value.shape, *[1] * len(event))
        return torch.where(is_better, own[places, batch].transpose(0, 1).reshape(rows.shape), found)

    def difference(self, sides: Tensor, noise: Tensor | None, own: Tensor) -> Tensor:
        """Return by how much the best states of rows on two sides differ, in the mean over M noises.

        ⟨row + ε, z⟩ = ⟨row, z⟩ + ⟨ε, z⟩, so that the product of noise and states serves all sides.

        Args:
            sides: [2, S, B, *shape], rows.
            noise: [M, B, *shape], finite, what is added to all of them; None for nothing.
            own: As for `best`.

        Returns:
            [S, B, *shape], the mean of one side's states less that of the other's.
        """
        states = self.states.to(sides)
        draws = 1 if noise is None else len(noise)
        size = max(_BLOCK // (draws * (len(states) + len(own))), 1)
        found = torch.empty_like(sides[0])
        for start in range(0, sides.shape[2], size):
            block = slice(start, start + size)
            rows, mine = sides[:, :, block], own[:, block]
            values = self._values(rows.flatten(0, 1), states, mine)
            of_noise = None if noise is None else self._values(noise[:, block], states, mine, is_finite=True)
            places = [(each[None] if of_noise is None else of_noise + each).argmax(dim=2) for each in values]
            best = torch.stack(places).view(*rows.shape[:2], draws, -1)
            found[:, block] = _mean_difference(best, states.flatten(1), mine.flatten(2)).view_as(rows[0])
        return found

    def _values(self, rows: Tensor, states: Tensor, own: Tensor, *, is_finite: bool = False) -> Tensor:
        """Return what the pool's states and each row's own are worth to rows [R, B, *shape], [R, B, P + K]."""
        finite = rows if is_finite else rows.masked_fill(rows.isneginf(), 0.0)
        of_own = (finite.flatten(2).transpose(0, 1) @ own.flatten(2).permute(1, 2, 0)).transpose(0, 1)
        return torch.cat([self.pool.scores(rows, states), of_own], dim=2)

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


def _mean_difference(places: Tensor, states: Tensor, own: Tensor) -> Tensor:
    """Return the difference of the mean states of two sides, [S, B, n].

    Args:
        places: [2, S, M, B], from P on those of a row's own states.
        states: [P, n].
        own: [K, B, n].
    """
    _, samples, draws, batch = places.shape
    first = torch.arange(batch, device=places.device) * len(own)  # of a row's own states
    places = torch.where(places < len(states), places, places + first)
    signs = states.new_ones(samples * batch, 2 * draws)
    signs[:, 1::2] = -1.0  # in turn, so that equal states leave 0
    table = torch.cat([states, own.transpose(0, 1).flatten(0, 1)])
    bags = places.permute(1, 3, 2, 0).reshape(samples * batch, 2 * draws)
    return (embedding_bag(bags, table, mode="sum", per_sample_weights=signs) / draws).view(samples, batch, -1)


class PoolEstimator(Estimator):
    """An estimator that takes the states of earlier steps for candidates, and adds those of its own.

    What a step finds waits until the next one begins, so that a row's gradient depends neither on the rows beside it
    nor on how they are split. States come in whatever order the rows had; within DistributedDataParallel, from all
    ranks, and under its `no_sync` from all passes of a step; a call outside of its forward pass, for a log say, then
    takes in nothing. What waits is saved, so that a run goes on as if it hadn't been interrupted; each rank saves and
    loads its own. A warning says where ranks begin a step with different pools.

    Args:
        problem: What the layer solves.
        pool: Its states; None for a pool of 512 to 585, once it is full.
        noise: As for `Estimator`, but for "auto", which is Gaussian.
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
        require_problem(problem)
        if pool is not None and (not isinstance(pool, StatePool) or pool.problem != problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise ValueError(f"pool must be a StatePool of {problem!r}, got {pool!r}")
        self.problem = problem
        self.pool = StatePool(problem, max_bytes=_STATES * StatePool.bytes_of(problem)) if pool is None else pool
        self.draws = whole_number("draws", draws, 2)
        self.seen = 0.0
        self._steps: Recent[tuple[Version, float]] = Recent()
        self._answers: list[Tensor] = []
        self._others: list[Tensor] = []
        self._accumulation = Accumulation()
        self._has_warned = False

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def copies(self) -> int:
        """M."""
        return self.draws

    def require_density(self) -> None:
        """Refuse noise by whose density no derivative can be taken.

        Raises:
            TypeError: the law has no `log_prob`.
            ValueError: the temperature is 0, or there is no noise.
        """
        noise = self.auto_noise(self.problem) if self.noise == "auto" else self.noise
        require_density(noise, self.temperature)
        if self.noise_for(self.problem) is None:
            raise ValueError(
                f'noise="auto" is none for {name_problem(self.problem)}, whose domain would clip it, and there is no '
                f"derivative without noise: name a law, such as noise=mapgrad.Gaussian(), or take another estimator"
            )

    def auto_noise(self, problem: Problem) -> Noise:
        """Return Gaussian noise."""
        return Gaussian()

    def begin(self, key: int) -> None:
        """Take in what the steps before have found, and note what this step may use."""
        count = self._accumulation.taken_in(len(self._answers))
        if count is not None:
            answers, others = (self._joined(rows if count else []) for rows in (self._answers, self._others))
            answers, is_alike = gathered(answers, lambda: self.pool.fingerprint)
            others, _ = gathered(others)
            if not is_alike and not self._has_warned:
                self._has_warned = True
                warnings.warn(_OTHER_POOLS, stacklevel=users_level())
            if count:
                self._answers.clear()
                self._others.clear()
            if len(answers):
                known = self.pool.add(torch.cat([answers, others]) if len(others) else answers)
                self.seen += _FORGETS * (float(known[: len(answers)].double().mean()) - self.seen)
        self._steps.note(key, (self.pool.version, self.seen))

    def snapshot(self, forward: Forward) -> Snapshot:
        """Return what a pass may use.

        Raises:
            RuntimeError: it is too long ago.
        """
        key = forward.sampler.key
        if key is None:
            return Snapshot(self.pool, self.pool.states, self.seen)
        version, seen = self._steps.find(key)
        return Snapshot(self.pool, self.pool.at(version), seen)

    def record(self, forward: Forward, others: Tensor | None = None) -> None:
        """Note the states of a training pass, and others [..., *shape] that were solved for on its way back."""
        if forward.is_training:
            self._answers.append(self._rows(forward.z.detach(), copy=True))  # users may write to the layer's output
            if others is not None:
                self._others.append(self._rows(others))

    def _rows(self, z: Tensor, *, copy: bool = False) -> Tensor:
        states = self.pool.states
        return z.to(states.device, states.dtype, copy=copy).reshape(-1, *self.problem.shape)

    def _joined(self, recorded: list[Tensor]) -> Tensor:
        """Return all recorded rows, on the pool's device."""
        parts = [each.to(self.pool.states) for each in recorded]
        return parts[0] if len(parts) == 1 else torch.cat(parts or [self.pool.states[:0]])

    @property
    def stats(self) -> dict[str, float]:
        """How many states the pool has, and the share of answers that it held already, as of the last step's start."""
        return {"pool": len(self.pool), "seen": self.seen}

    def get_extra_state(self) -> Tensor:
        """Return `seen`, what stands for the problem, how many answers wait for the next step, and their entries.

        Entries of other states that wait follow. Ranks of DistributedDataParallel each have those that they found.
        """
        answers, others = (self._joined(rows).flatten().double() for rows in (self._answers, self._others))
        count = sum(map(len, self._answers))
        return torch.cat([answers.new_tensor([self.seen, self._mark, count]), answers, others])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on where a saved estimator was; begin anew if it was for another problem, or is cast to a narrower dtype.

        Raises:
            ValueError: it isn't what `get_extra_state` returned.
        """
        is_saved = is_readable(state) and state.is_floating_point() and state.ndim == 1 and len(state) >= _HEAD
        if is_saved and state.dtype != torch.float64 and not bool(state.isnan().any()):
            state = state.new_zeros(_HEAD, dtype=torch.float64)  # no problem's: what stands for that is rounded
        elif not is_saved or not bool(state.isfinite().all()):
            raise ValueError(_refused(self, state))
        seen, mark, count = to_list(state[:_HEAD])
        rows = state[_HEAD:].detach()
        if not (0 <= seen <= 1 and mark >= 0 and count >= 0 and mark.is_integer() and count.is_integer()):
            raise ValueError(_refused(self, state))
        if mark != self._mark:
            seen, count, rows = 0.0, 0, rows[:0]
        size = math.prod(self.problem.shape)
        if len(rows) % size or count > len(rows) // size or not bool((waiting := self._rows(rows)).isfinite().all()):
            raise ValueError(_refused(self, state))
        answers, others = waiting.tensor_split([int(count)])
        self.seen, self._answers, self._others = seen, [answers], [others]

    @property
    def _mark(self) -> int:
        return int(self.problem.digest[:_DIGITS], 16)


def _refused(estimator: PoolEstimator, state: object) -> str:
    return (
        f"a saved {type(estimator).__name__} has three numbers (a share, what stands for the problem, a count) and the "
        f"finite entries of whole states as its extra state, a float64 tensor of one dimension, got "
        f"{text_of_saved(state)}: is the file damaged, or another module's?"
    )
