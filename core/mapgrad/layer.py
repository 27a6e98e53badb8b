"""A solver as a PyTorch layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from mapgrad.batching import Solver, compute_dtype, group_rows, new_handle
from mapgrad.distribution import PerturbAndMAP
from mapgrad.gradients import (
    IMLE,
    Estimator,
    KeyStream,
    Monitor,
    first_id,
    next_key,
    require_row_ids,
    sample,
    seed_of_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import SolverAtWork
    from mapgrad.problems import Problem
    from mapgrad.solvers import MAPSolver

    RowIds = Tensor | Sequence[int]

Reduction = Literal["mean", "none"]


class MAPLayer(nn.Module):
    """z = argmax ⟨θ, z⟩ over a feasible set, with a gradient for θ.

    In training mode θ is perturbed as the estimator says, and the output is the mean over its samples; in eval mode it
    is MAP(θ), without noise. Both have a gradient. Works under autocast, torch.compile(fullgraph=True), torch.vmap and
    torch.func; a second derivative is refused. Under torch.vmap, noise heeds `randomness`. torch.compile makes code for
    each layer: where more than ``torch._dynamo.config.recompile_limit`` of them (8) go through one compiled function,
    or are compiled one by one, raise that limit to their number.

    Args:
        solver: A `Solver` from `get_solver`, or any function θ [B, *shape] → z [B, *shape], which is called with whole
            batches in order, once a sample. Where a function has an attribute `problem`, the shape of a row is known;
            else all dimensions but the first of several are its.
        estimator: The gradient estimator; None for ``IMLE()``.
        minimize: Whether the layer's input are costs, to be minimised, instead of utilities.
        reduction: "mean" over the samples, or "none" for all of them in training, [S, *batch, *shape].
        seed: None takes noise from torch's default generators; an int makes it a function of (seed, step, row id,
            sample), and (seed, step) are saved in `state_dict`. Two layers with one seed draw the same noise for a row:
            `seed_layers` gives each layer of a model a stream of its own.

    Shape:
        θ [*batch, *shape] of any float dtype, on any device → z of the same shape, dtype and device. An entry −inf
        (+inf if `minimize`) whose lower bound is 0 is forbidden: z is 0 there, without noise and gradient.

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
        self.monitor = Monitor()
        self.handle = new_handle(self)

    @overload
    def forward(
        self, theta: Tensor, problems: Sequence[Problem] | None = None, *, rows: RowIds | None = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, theta: Sequence[Tensor], problems: Sequence[Problem], *, rows: RowIds | None = None
    ) -> list[Tensor]: ...
    def forward(
        self,
        theta: Tensor | Sequence[Tensor],
        problems: Sequence[Problem] | None = None,
        *,
        rows: RowIds | None = None,
    ) -> Tensor | list[Tensor]:
        """Return z for θ (costs if `minimize`).

        Args:
            theta: [*batch, *shape]; with `problems`, [B, *shape] or a list of B tensors of their shapes.
            problems: One problem a row, in place of the solver's own.
            rows: [*batch] integers that stand for the rows in the noise, such as their numbers in the data set: a row's
                noise is then the same wherever in a batch, in whatever batch and on whatever rank it is. None for
                rank · 2³² + place, with the rank in torch.distributed. Under torch.compile a tensor; under torch.vmap,
                ids that aren't mapped too stand for other noise in each element unless it shall be the same.

        Returns:
            As the class says; a list of B tensors where θ is a list.

        Raises:
            TypeError: `rows` aren't integers.
            ShapeError: `rows` haven't the batch's shape; or as the class says.
        """
        if problems is not None:
            return self._forward_each(theta, problems, rows)
        training = self.training
        samples = self.estimator.samples if training else 1
        is_mean = self.reduction == "mean" or not training
        return self.sample(theta, samples, perturb=training, is_mean=is_mean, rows=rows)

    def sample(
        self,
        theta: object,
        samples: int,
        *,
        perturb: bool = True,
        is_mean: bool = False,
        rows: RowIds | None = None,
    ) -> Tensor:
        """Return S MAP states of θ, or their mean, with the estimator's gradient.

        Args:
            theta: [*batch, *shape], costs if `minimize`, any float dtype and device.
            samples: S.
            perturb: Whether noise is added.
            is_mean: Whether the mean is asked for.
            rows: As for `forward`.

        Returns:
            [S, *batch, *shape], or [*batch, *shape], of θ's dtype and device.
        """
        work = self.solver.at_work()
        theta = work.require_theta(theta)
        ids = None if rows is None else require_row_ids(rows, theta.shape[: work.lead_ndim(theta)], theta.device)
        return self._sample(work, theta, samples, perturb=perturb, is_mean=is_mean, ids=ids)

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

    def _forward_each(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem], row_ids: RowIds | None
    ) -> Tensor | list[Tensor]:
        if not self.solver.takes_problems:
            raise TypeError(f"problems= needs a solver from mapgrad.get_solver, but this layer has {self.solver!r}")
        samples = self.estimator.samples if self.training else 1
        is_mean = self.reduction == "mean" or not self.training
        works = [(self.solver.at_work(problem), rows) for problem, rows in group_rows(theta, problems)]
        if row_ids is None:
            ids = torch.arange(len(theta), device="cpu") + first_id()
        else:
            device = theta[0].device if len(theta) else torch.device("cpu")
            ids = require_row_ids(row_ids, (len(theta),), device)
        # all rows are of one step, whatever other rows have their problem
        has_noise = any(self.estimator.noise_for(work.problem) is not None for work, _ in works)
        begins = self.training and bool(works) and (has_noise or self.estimator.is_adaptive)
        key = next_key(self, theta[0]) if begins else None
        states: list[Tensor] = [torch.empty(0)] * len(theta)
        for work, rows in works:
            stacked = work.require_theta(torch.stack([theta[row] for row in rows]))
            z = self._sample(work, stacked, samples, perturb=self.training, is_mean=is_mean, key=key, ids=ids[rows])
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
        """Counts since the layer was made; reading them changes nothing.

        Those of `Solver.stats`; over the backward passes with a target, `improvable`, the rows that another answer
        would serve better to first order, of those that came up beside them, and `dead`, those of them whose answer the
        step didn't change; and what the estimator adds: `beta`, the coming step of an adaptive target.
        """
        return {**self.solver.stats, **self.monitor.counts(), **self.estimator.stats}

    def distribution(self, theta: Tensor) -> PerturbAndMAP:
        """Return the perturb-and-MAP distribution of θ [*batch, *shape] (costs if `minimize`)."""
        return PerturbAndMAP(self, theta)

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as int64, or nothing without a seed."""
        return torch.tensor(self.keys.saved(), dtype=torch.int64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved layer, if both have a seed.

        A layer without a seed stays without one, and one with a seed keeps it where the saved layer had none.
        """
        self.keys.restore([int(number) for number in state])

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self.handle = new_handle(self)

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, theta: Tensor, problems: Sequence[Problem] | None = None, *, rows: RowIds | None = None
        ) -> Tensor: ...
        @overload
        def __call__(
            self, theta: Sequence[Tensor], problems: Sequence[Problem], *, rows: RowIds | None = None
        ) -> list[Tensor]: ...
        def __call__(self, theta: Any, problems: Any = None, *, rows: Any = None) -> Any: ...  # noqa: D102 (forward has it)


def seed_layers(model: nn.Module, seed: int) -> int:
    """Give each `MAPLayer` of a model a stream of noise of its own, a function of the seed and the layer's path.

    The path is the layer's name in `model.named_modules()`: layers that come or go elsewhere change nothing. Seed the
    model before it is wrapped, as DistributedDataParallel and torch.compile put another name in front of all paths.

    Args:
        model: A module; the layers in it get another seed and start anew at step 0.
        seed: Any integer.

    Returns:
        The number of layers.

    Raises:
        TypeError: `seed` isn't an int.

    Example:
        >>> import torch, mapgrad
        >>> layers = [mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2))) for _ in range(2)]
        >>> mapgrad.seed_layers(torch.nn.Sequential(*layers), 0)
        2
    """
    if isinstance(seed, bool) or not isinstance(seed, int):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise TypeError(f"seed must be an int, got {seed!r}")
    modules: list[tuple[str, nn.Module]] = [*model.named_modules()]  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    layers = [(path, module) for path, module in modules if isinstance(module, MAPLayer)]
    for path, layer in layers:
        layer.keys = KeyStream(seed_of_path(seed, path))
    return len(layers)
