"""A solver as a PyTorch layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from mapgrad.batching import Solver, compute_dtype, group_rows, new_handle
from mapgrad.distribution import PerturbAndMAP
from mapgrad.gradients import IMLE, Estimator, KeyStream, Monitor, Pass, next_key, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients import Noise
    from mapgrad.problems import Problem
    from mapgrad.solvers import MAPSolver

Reduction = Literal["mean", "none"]


class MAPLayer(nn.Module):
    """z = argmax ⟨θ, z⟩ over a feasible set, with a gradient for θ.

    In training mode θ is perturbed as the estimator says, and the output is the mean over its samples; in eval mode it
    is MAP(θ), without noise. Both have a gradient. Works under autocast, torch.compile(fullgraph=True), torch.vmap and
    torch.func; a second derivative is refused. Under torch.vmap, noise heeds `randomness`.

    Args:
        solver: A `Solver` from `get_solver`, or any function θ [B, *shape] → z [B, *shape], which is called with whole
            batches in order, once a sample. Where a function has an attribute `problem`, the shape of a row is known;
            else all dimensions but the first of several are its.
        estimator: The gradient estimator; None for ``IMLE()``.
        minimize: Whether the layer's input are costs, to be minimised, instead of utilities.
        reduction: "mean" over the samples, or "none" for all of them in training, [S, *batch, *shape].
        seed: None takes noise from torch's default generators; an int makes it a function of (seed, step, row, sample),
            and (seed, step) are saved in `state_dict`.

    Shape:
        θ [*batch, *shape] of any float dtype, on any device → z of the same shape, dtype and device.

    Raises:
        ShapeError, NonFiniteError, DomainError, RowsError: As for `Solver`, on the forward or the backward pass.
    """

    def __init__(
        self,
        solver: MAPSolver | Callable[[Tensor], Tensor],
        estimator: Estimator | None = None,
        *,
        minimize: bool = False,
        reduction: Reduction = "mean",
        seed: int | None = None,
    ) -> None:
        estimator = IMLE() if estimator is None else estimator
        if not isinstance(estimator, Estimator):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"estimator must be an Estimator, such as mapgrad.IMLE(), got {estimator!r}")
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
        if not callable(solver) or isinstance(solver, type):
            raise TypeError(
                f"solver must be a mapgrad.Solver or a function of θ, got {solver!r}: "
                f"make one with mapgrad.get_solver(name, problem)"
            )
        super().__init__()
        self.solver = solver if isinstance(solver, Solver) else Solver.of_function(solver)
        self.estimator = estimator
        self.minimize = minimize
        self.reduction: Reduction = reduction
        self.keys = KeyStream(seed)
        self._monitor = Monitor()
        self.handle = new_handle(self)

    @overload
    def forward(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
    @overload
    def forward(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
    def forward(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None
    ) -> Tensor | list[Tensor]:
        """Return z for θ (costs if `minimize`).

        Args:
            theta: [*batch, *shape]; with `problems`, [B, *shape] or a list of B tensors of their shapes.
            problems: One problem a row, in place of the solver's own.

        Returns:
            As the class says; a list of B tensors where θ is a list.
        """
        if problems is not None:
            return self._forward_each(theta, problems)
        training = self.training
        samples = self.estimator.samples if training else 1
        is_mean = self.reduction == "mean" or not training
        return self.sample(theta, samples, perturb=training, is_mean=is_mean)

    def sample(self, theta: object, samples: int, *, perturb: bool = True, is_mean: bool = False) -> Tensor:
        """Return S MAP states of θ, or their mean, with the estimator's gradient.

        Args:
            theta: [*batch, *shape], costs if `minimize`, any float dtype and device.
            samples: S.
            perturb: Whether noise is added.
            is_mean: Whether the mean is asked for.

        Returns:
            [S, *batch, *shape], or [*batch, *shape], of θ's dtype and device.
        """
        work = self.solver.at_work()
        return self._sample(work, work.require_theta(theta), samples, perturb=perturb, is_mean=is_mean)

    def _sample(
        self,
        work: SolverAtWork,
        theta: Tensor,
        samples: int,
        *,
        perturb: bool,
        is_mean: bool,
        key: int | Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        wide = compute_dtype(theta.dtype)
        if wide == theta.dtype:
            return sample(self, work, theta, samples=samples, perturb=perturb, is_mean=is_mean, key=key, ids=ids)
        z = sample(self, work, theta.to(wide), samples=samples, perturb=perturb, is_mean=is_mean, key=key, ids=ids)
        return z.to(theta.dtype)

    def _forward_each(self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]) -> Tensor | list[Tensor]:
        if not self.solver.takes_problems:
            raise TypeError(f"problems= needs a solver from mapgrad.get_solver, but this layer has {self.solver!r}")
        samples = self.estimator.samples if self.training else 1
        is_mean = self.reduction == "mean" or not self.training
        works = [(self.solver.at_work(problem), rows) for problem, rows in group_rows(theta, problems)]
        # the noise of a row is that of the step, whatever other rows have its problem
        has_noise = self.training and any(self.noise_for(work) is not None for work, _ in works)
        key = next_key(self, theta[0]) if has_noise else None
        states: list[Tensor] = [torch.empty(0)] * len(theta)
        for work, rows in works:
            stacked = work.require_theta(torch.stack([theta[row] for row in rows]))
            ids = torch.tensor(rows, device="cpu")
            z = self._sample(work, stacked, samples, perturb=self.training, is_mean=is_mean, key=key, ids=ids)
            for row, answers in zip(rows, z.unbind(0 if is_mean else 1), strict=True):
                states[row] = answers.to(theta[row].dtype)
        if not isinstance(theta, Tensor):
            return states
        return torch.stack(states, dim=-theta.ndim) if states else theta

    @property
    def problem(self) -> Problem | None:
        """The feasible set; None where each call brings its problems, or for a function that doesn't say."""
        return self.solver.problem

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the layer was made.

        Those of `Solver.stats`; over the backward passes with a target, `improvable`, the rows that another answer
        would serve better to first order, of those that came up beside them, and `dead`, those of them whose answer
        the step didn't change; and `beta`, the step of an adaptive target.
        """
        counts = {**self.solver.stats, **self._monitor.counts()}
        if self.estimator.adaptive:
            counts["beta"] = float(self.estimator.advance())
        return counts

    def distribution(self, theta: Tensor) -> PerturbAndMAP:
        """Return the perturb-and-MAP distribution of θ [*batch, *shape] (costs if `minimize`)."""
        return PerturbAndMAP(self, theta)

    def noise_for(self, work: SolverAtWork) -> Noise | None:
        """Return the noise of a perturbed pass for a solver at work; None where there is none."""
        return self.estimator.noise_for(work.problem)

    def new_pass(
        self,
        work: SolverAtWork,
        samples: int,
        noise: Noise | None,
        key: int,
        *,
        is_mean: bool,
        mapped: tuple[bool, ...] = (),
        ids: Tensor | None = None,
    ) -> Pass:
        """Return a pass for a solver at work."""
        return Pass(
            self.estimator,
            work,
            self._monitor,
            noise,
            key,
            samples=samples,
            is_mean=is_mean,
            minimize=self.minimize,
            is_training=self.training,
            mapped=mapped,
            ids=ids,
        )

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as int64, or nothing without a seed."""
        return torch.tensor([] if self.keys.seed is None else [self.keys.seed, self.keys.step], dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved layer."""
        if state.numel():
            self.keys.seed, self.keys.step = (int(number) for number in state)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self.handle = new_handle(self)

    if TYPE_CHECKING:

        @overload
        def __call__(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
        @overload
        def __call__(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
        def __call__(self, theta: Any, problems: Any = None) -> Any: ...  # noqa: D102 (forward has it)
