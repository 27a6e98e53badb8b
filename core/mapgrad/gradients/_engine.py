"""Solver × estimator × noise: what the ops call back into, and what remembers seeds and counts."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from mapgrad.batching import (
    Known,
    Solver,
    compute_dtype,
    group_rows,
    require_finite,
    require_float,
    require_representable,
)
from mapgrad.errors import ShapeError
from mapgrad.gradients._handles import new_handle
from mapgrad.gradients._ops import perturb_and_map
from mapgrad.gradients._streams import seeded_noise
from mapgrad.problems import Problem, batch_shape
from mapgrad.solvers import MAPSolver, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.gradients._estimators import Estimator

_WATCHED_STEPS: Final = 100
_SIBLINGS_KEPT: Final = 64


class Engine(nn.Module):
    """Runs an estimator on a solver.

    Args:
        solver: A `Solver`, or any function θ [B, *shape] → z [B, *shape]. A function is called with whole batches in
            order, once a sample; where it has an attribute `problem`, the shape is known.
        estimator: The gradient estimator.
        seed: None draws noise from torch's default generators; an int makes it a function of (seed, step, row, sample),
            and (seed, step) are saved in `state_dict`.
    """

    def __init__(
        self, solver: MAPSolver | Callable[[Tensor], Tensor], estimator: Estimator, *, seed: int | None = None
    ) -> None:
        super().__init__()
        if not callable(solver):
            raise TypeError(
                f"solver must be a mapgrad.Solver or a function of θ, got {solver!r}: "
                f"make one with mapgrad.get_solver(name, problem)"
            )
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"seed must be an int or None, got {seed!r}")
        self.solver = solver
        self.estimator = estimator
        problem = getattr(solver, "problem", None)
        self.problem = problem if isinstance(problem, Problem) else None
        if self.problem is not None:
            require_representable(self.problem, torch.float64)  # works out the problem's size before anything is traced
        self._noise = estimator.noise_for(self.problem)
        self._seed = seed
        self._step = 0
        self._siblings: dict[Problem, Engine] = {}
        self._watch = _DeadRows()
        self._handle = new_handle(self)

    @property
    def handle(self) -> int:
        """The number under which the ops find this engine."""
        return self._handle

    @property
    def draws_noise(self) -> bool:
        """Whether the forward pass of training is perturbed."""
        return self._noise is not None

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the layer was made.

        Those of `Solver.stats`; over the backward passes with a target, `improvable`, the rows that some state within
        the bounds would serve better to first order, and `dead`, those of them whose answer the step didn't change;
        and `beta`, the step of an adaptive target.
        """
        counts = dict(self.solver.stats) if isinstance(self.solver, Solver) else {}
        counts.update(self._watch.counts())
        if self.estimator.adaptive:
            counts["beta"] = float(self.estimator.advance())
        return counts

    def sample(self, theta: Tensor, samples: int, *, perturb: bool = True) -> Tensor:
        """Return S MAP states of θ, perturbed or not, with the estimator's gradient.

        Args:
            theta: [*batch, *shape], utilities, any float dtype and device.
            samples: S.
            perturb: Whether noise is added.

        Returns:
            [S, *batch, *shape] in at least float32, on θ's device.
        """
        theta = require_float(theta)
        if self.problem is not None:
            batch_shape(self.problem, theta, "θ")
            require_representable(self.problem, theta.dtype)
        wide = theta.to(compute_dtype(theta.dtype))
        return perturb_and_map(self, wide, samples=samples, perturb=perturb, event_ndim=self.event_ndim(theta))

    def sample_each(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem], samples: int, *, perturb: bool = True
    ) -> list[Tensor]:
        """Return S MAP states of each row's own problem, with the estimator's gradient.

        Args:
            theta: [B, *shape], or a list of B utilities, each of its problem's shape.
            problems: One problem a row.
            samples: S.
            perturb: Whether noise is added.

        Returns:
            B tensors [S, *shape] in at least float32.

        Raises:
            TypeError: the layer's solver is a function, which has one problem only.
        """
        if not isinstance(self.solver, Solver):
            raise TypeError(f"problems= needs a solver from mapgrad.get_solver, but this layer has {self.solver!r}")
        states: list[Tensor] = [torch.empty(0)] * len(theta)
        for problem, rows in group_rows(theta, problems):
            z = self._sibling(self.solver, problem).sample(
                torch.stack([theta[row] for row in rows]), samples, perturb=perturb
            )
            for row, answers in zip(rows, z.unbind(1), strict=True):
                states[row] = answers
        self._step += perturb
        return states

    def _sibling(self, solver: Solver, problem: Problem) -> Engine:
        """Return an engine for another problem that shares this one's estimator, step and counts."""
        sibling = self._siblings.pop(problem, None)
        if sibling is None:
            seed = None if self._seed is None else self._seed ^ int(problem.digest[:16], 16)
            sibling = Engine(solver.for_problem(problem), self.estimator, seed=seed)
            sibling._watch = self._watch
        self._siblings[problem] = sibling
        if len(self._siblings) > _SIBLINGS_KEPT:
            del self._siblings[next(iter(self._siblings))]
        sibling.training = self.training
        sibling._step = self._step
        return sibling

    def event_ndim(self, theta: Tensor) -> int:
        """Return how many trailing dimensions of θ make one row: without a problem, all but the first of several."""
        return len(self.problem.shape) if self.problem is not None else max(theta.ndim - 1, min(theta.ndim, 1))

    def solve(
        self,
        rows: Tensor,
        known_rows: Tensor | None,
        known_z: Tensor | None,
        known_status: Tensor | None,
        lead: int,
        event_ndim: int,
    ) -> tuple[Tensor, Tensor]:
        """Solve rows [*lead, *batch, *shape]; called by the op."""
        if isinstance(self.solver, Solver):
            known = None
            if known_rows is not None and known_z is not None and known_status is not None:
                known = Known(known_rows, known_z, known_status)
            return self.solver.solve_known(rows, known)
        z = torch.empty_like(rows)
        batches = rows.shape[lead:] if rows.ndim - lead > event_ndim else (1, *rows.shape[lead:])
        if rows.numel():
            require_finite(rows.reshape(-1, *rows.shape[rows.ndim - event_ndim :]))
            for batch, answer in zip(rows.reshape(-1, *batches), z.view(-1, *batches), strict=True):
                answer.copy_(_called(self.solver, batch))
        return z, torch.full(rows.shape[: rows.ndim - event_ndim], int(Status.FEASIBLE), device=rows.device)

    def draw(self, like: Tensor, samples: int) -> Tensor:
        """Draw noise [S, *like.shape] of like's dtype and device; called by the op."""
        assert self._noise is not None
        shape = (samples, *like.shape)
        if self._seed is None:
            noise = self._noise.sample(shape, generator=None, dtype=like.dtype, device=like.device)
        else:
            step, self._step = self._step, self._step + 1
            noise = seeded_noise(self._noise, self._seed, step, shape, self.event_ndim(like), like.dtype, like.device)
        if tuple(noise.shape) != shape:
            raise ShapeError(f"{self._noise!r} drew noise of shape {tuple(noise.shape)} where {shape} was asked for")
        return noise.to(like)

    def advance(self, like: Tensor) -> Tensor:
        """Return the estimator's state for the coming step, brought up to date in training; called by the op."""
        return self.estimator.advance().to(like, copy=True)

    def observe(self, difference: Tensor, gradient: Tensor, z: Tensor, event_ndim: int) -> Tensor:
        """Count what a step found and return a copy of the difference; called by the op."""
        if self.problem is not None:
            lower, upper = (bound.to(z) for bound in self.problem.bounds)
        elif z.numel():
            lower, upper = z.aminmax()
        else:
            return difference.clone()
        improvable = ((gradient < 0) & (z < upper)) | ((gradient > 0) & (z > lower))
        dims = tuple(range(-event_ndim, 0))
        self._watch.add(improvable.any(dim=dims), (difference != 0).any(dim=dims))
        if self.training:
            self.estimator.record(difference, event_ndim)
        return difference.clone()

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as int64, or nothing without a seed."""
        return torch.tensor([] if self._seed is None else [self._seed, self._step], dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved layer."""
        if state.numel():
            self._seed, self._step = (int(number) for number in state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self._handle = new_handle(self)


class _DeadRows:
    """Counts rows whose step changed nothing although it could have, and warns once when they are most."""

    def __init__(self) -> None:
        self._improvable: list[Tensor] = []
        self._dead: list[Tensor] = []
        self._totals = [0.0, 0.0]
        self._warned = False

    def add(self, improvable: Tensor, moved: Tensor) -> None:
        """Count bool tensors of rows; nothing waits for the device before many steps have come together."""
        self._improvable.append(improvable.sum())
        self._dead.append((improvable & ~moved).sum())
        if len(self._dead) == _WATCHED_STEPS:
            self._gather(warn=True)

    def counts(self) -> dict[str, float]:
        """Return the counts so far."""
        self._gather(warn=False)
        return {"improvable": self._totals[0], "dead": self._totals[1]}

    def _gather(self, *, warn: bool) -> None:
        improvable, dead = (float(sum(map(float, counts))) for counts in (self._improvable, self._dead))
        self._totals = [self._totals[0] + improvable, self._totals[1] + dead]
        self._improvable.clear()
        self._dead.clear()
        if warn and not self._warned and dead > improvable / 2:
            self._warned = True
            warnings.warn(
                f"in the last {_WATCHED_STEPS} backward passes {dead / improvable:.0%} of the rows that could improve "
                f"got a zero gradient: the step is too short to change their answers, or the loss is the same for all "
                f"states. Take target=RelativeStep(1.0), which no scale of θ or of the loss affects, or a larger λ (a "
                f"loss that is a mean over the batch divides a fixed step by the batch size)",
                stacklevel=2,
            )


def _called(solver: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    with torch.no_grad():
        z = solver(batch)
    if not isinstance(z, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's function)
        raise TypeError(f"{solver!r} returned {type(z).__name__} where a tensor of θ's shape was expected")
    if z.shape != batch.shape:
        raise ShapeError(f"{solver!r} returned shape {tuple(z.shape)} for θ of shape {tuple(batch.shape)}")
    return z
