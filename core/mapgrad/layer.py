"""A solver as a PyTorch layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, overload

import torch
from torch import Tensor

from mapgrad.batching import Solver, is_traced, new_handle, require_bool, require_minimize
from mapgrad.distribution import PerturbAndMAP
from mapgrad.gradients import (
    Estimator,
    KeyStream,
    Observed,
    Pending,
    at_work_on,
    default_for,
    require_no_context,
    require_row_ids,
    require_same_problem,
    require_scalable,
    sample,
    sample_problems,
    submit,
)
from mapgrad.solvers import advice_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import ErrorPolicy, SolverAtWork
    from mapgrad.problems import Problem
    from mapgrad.solvers import MAPSolver

    RowIds = Tensor | Sequence[int]

Reduction = Literal["mean", "none"]


class MAPLayer(Observed):
    """z = argmax ⟨θ, z⟩ over a feasible set, with a gradient for θ.

    In training mode θ is perturbed as the estimator says, and the output is the mean over its samples; in eval mode it
    is MAP(θ), without noise. Both have a gradient, each estimator's own. In eval mode `Blackbox`, `StraightThrough` and
    `Identity` do what they do in training without noise; `IMLE`, `AdaptiveIMLE`, `TwoSided` and `Pooled` step from θ to
    one side, unless told otherwise, and `MultiFidelity` to both; `Line` looks along the line through θ; `Exact` and
    `FrankWolfe` have the gradient of their mean. That of `Perturbed`, made of the noise alone, is 0, with a warning.

    Works under autocast, torch.compile(fullgraph=True), torch.vmap and torch.func; a second derivative is refused.
    Under torch.vmap, noise heeds `randomness`. torch.compile makes code for each layer: where more than
    ``torch._dynamo.config.recompile_limit`` of them (8) go through one compiled function, or are compiled one by one,
    raise that limit to their number. A program that torch.export makes in eval mode can be saved where the solver is
    one of tensor operations, such as topk, and rows that the layer refuses are NaN there; what loads it must import
    mapgrad, unless it was made under torch.no_grad().

    Args:
        solver: A `Solver` from `get_solver`, or any function θ [B, *shape] → z [B, *shape], which is called with whole
            batches in order, once a sample, and with the context of the call. Where a function has an attribute
            `problem`, the shape of a row is known; else all dimensions but the first of several are its.
        estimator: The gradient estimator; None for ``Pooled(problem)``, by which networks learn with the fewest solves
            (``mapgrad bench training``), or ``TwoSided()`` for a function, several problems, or more than 512 entries
            a row. Where a network chooses the part of its input that another one sees, as to explain it (L2X),
            I-MLE as published, ``IMLE(target=Step(lam), symmetric=False)`` with a lam tried out, has learnt better.
        minimize: Whether the layer's input are costs, to be minimised, instead of utilities. The layer negates them,
            and the solver or function always maximises: a function is called with utilities, −costs, never with costs.
        reduction: "mean" over the samples, or "none" for all of them in training, [S, *batch, *shape].
        normalize: Whether each row of θ is divided by its own spread σ, in training and in eval mode, so that neither
            noise nor gradient depends on how large θ is. σ is the root mean square of c, the row's entries less their
            mean along `Problem.constant_sums`; it leaves out what `RelativeStep` finds too far from the boundary, such
            as masks at −1e9 and forbidden entries. The answers are the same for θ / σ and for θ, so that MAP(θ) doesn't
            change. The gradient is that of θ / σ: it is (g − ⟨g, θ⟩ c / (mσ²)) / σ, where g is that for θ / σ and
            m the number of entries that count, and orthogonal to θ: steps along it never shrink θ. A row
            whose σ is no more than rounding, such as θ = 0, is left as it is, and its gradient, too.
        seed: None takes noise from torch's default generators; an int makes it a function of (seed, step, row id,
            sample), and (seed, step) are saved in `state_dict`. Two layers with one seed draw the same noise for a row:
            `seed_layers` gives each layer of a model a stream of its own. Each call in training is a step, a draw of
            `distribution` too: ranks that call equally often are at the same one.
        on_error: What becomes of rows that fail, in place of what `get_solver` was told, in the same words; None for
            that. Under ``"nan"`` and ``"zero_grad"`` a row with S samples has an answer if all its samples have one;
            else its z is NaN, or 0. As a loss still counts such a row, ``layer.last.mask`` says which to keep:
            ``loss(z[mask], y[mask])``. Nothing is solved for it in the backward pass. Its gradient is 0 under
            ``"zero_grad"``; under ``"nan"`` it is NaN, as z is, unless the loss leaves the row out, so that its ∂L/∂z
            is 0. A row that fails in the backward pass alone gets a gradient of 0, and counts as `unsolved_backward` in
            `stats`. Under ``"nan:any"`` and ``"zero_grad:any"`` a row has an answer if any of its samples has one: the
            next sample that has stands for one that failed, with its noise, in the mean and in the gradient, and one
            that fails in the backward pass alone adds nothing. `FrankWolfe`, and estimators of your own with a
            `forward` of their own, need all. Under torch.compile, torch.vmap and torch.func, which leave no `last`,
            take ``"nan"``, and NaN tells.

    Shape:
        θ [*batch, *shape] of any float dtype, on any device → z of the same shape, dtype and device. An entry −inf
        (+inf if `minimize`) whose lower bound is 0 is forbidden: z is 0 there, without noise and gradient. What
        overflows before the layer, beyond 65504 in float16, can't be told from it. As with torch.relu, z mustn't be
        written to before its backward pass. A gradient beyond the range of θ's dtype is the dtype's largest number.

    Raises:
        TypeError: `solver` is neither a solver nor a function, `estimator` isn't an `Estimator`, or `minimize` or
            `normalize` isn't a bool.
        UnsupportedProblemError: the estimator is for another problem, or `normalize` for unpriced variables' utilities.
        ShapeError, NonFiniteError, DomainError, RowsError: As for `Solver`, on the forward pass or, as the message then
            says, on the backward pass. A row whose ∂L/∂z isn't finite fails nothing: its gradient is NaN, it isn't
            solved (a function gets its forward θ instead), and the others keep theirs.
    """

    __name__ = "MAPLayer"
    """By which torch.vmap names it: it takes the repr of what has none, which torch.compile can't trace."""

    def __init__(
        self,
        solver: MAPSolver | Callable[[Tensor], Tensor],
        estimator: Estimator | None = None,
        *,
        minimize: bool = False,
        reduction: Reduction = "mean",
        normalize: bool = False,
        seed: int | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        if estimator is not None and not isinstance(estimator, Estimator):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"estimator must be an Estimator, such as mapgrad.IMLE(), got {estimator!r}")
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
        if not callable(solver) or isinstance(solver, type):
            name = getattr(solver, "__name__", "name")  # a class's own
            raise TypeError(
                f"solver must be a mapgrad.Solver or a function of θ, got {solver!r}: "
                f"make one with mapgrad.get_solver({name}, problem){advice_on(solver)}"
            )
        if isinstance(solver, MAPLayer):
            name = type(solver).__name__
            raise TypeError(f"solver is a {name} already, with noise of its own: pass its attribute solver")
        super().__init__()
        solver = solver if isinstance(solver, Solver) else Solver.of_function(solver)
        self.solver = solver if on_error is None else solver.under(on_error=on_error)
        self.estimator = default_for(self.solver.problem) if estimator is None else estimator
        require_same_problem(self.estimator, self.solver.problem)
        self.minimize = require_minimize(minimize)
        self.reduction: Reduction = reduction
        self.normalize = require_bool("normalize", normalize)
        if self.normalize:
            require_scalable(self.solver.problem, "normalize=True")
        self.keys = KeyStream(seed)
        self.handle = new_handle(self)

    @overload
    def forward(
        self,
        theta: Tensor,
        *context: Any,
        problems: Sequence[Problem] | None = None,
        rows: RowIds | None = None,
        deadline: float | None = None,
        **named: Any,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        theta: Sequence[Tensor],
        *,
        problems: Sequence[Problem],
        rows: RowIds | None = None,
        deadline: float | None = None,
    ) -> list[Tensor]: ...
    def forward(
        self,
        theta: Tensor | Sequence[Tensor],
        *context: Any,
        problems: Sequence[Problem] | None = None,
        rows: RowIds | None = None,
        deadline: float | None = None,
        **named: Any,
    ) -> Tensor | list[Tensor]:
        """Return z for θ (costs if `minimize`).

        Args:
            theta: [*batch, *shape]; with `problems`, [B, *shape] or a list of B tensors of their shapes.
            context: What else a function takes in place of a solver, of any kind: capacities or graphs of rows, say. It
                is handed on untouched with each whole batch, in both directions.
            problems: One problem a row, in place of the solver's own.
            rows: [*batch] integers that stand for the rows in the noise, such as their numbers in the data set: a row's
                noise is then the same wherever in a batch, in whatever batch and on whatever rank it is. None for
                rank · 2³² + place, with the rank in torch.distributed. Under torch.compile a tensor; under torch.vmap,
                ids that aren't mapped too stand for other noise in each element unless it shall be the same.
            deadline: Seconds that this call may take, and its backward pass once more; None for those that
                `get_solver` was given.
            named: The same as `context`, by name; not `problems`, `rows` and `deadline`, the layer's own words.

        Returns:
            As the class says; a list of B tensors where θ is a list.

        Raises:
            TypeError: there is context, but the solver isn't a function; its name is one of the layer's own words; or
                `rows` aren't integers.
            ShapeError: `rows` haven't the batch's shape; or as the class says.
            RuntimeError: there is context, or a deadline, where torch.compile, torch.vmap or torch.func trace.
        """
        if problems is not None:
            if self.solver.takes_problems:
                require_no_context(self.solver, context, named)
            if torch.compiler.is_compiling():
                return self._forward_uncompiled(theta, problems, rows, deadline)
            return self._forward_each(theta, problems, rows, deadline)
        work, theta = at_work_on(self.solver, theta, context, named, deadline)
        ids = self._ids(work, theta, rows)
        samples, is_mean = self._asked()
        return sample(self, work, theta, samples=samples, perturb=self.training, is_mean=is_mean, ids=ids)

    def sample(
        self,
        theta: object,
        samples: int,
        *,
        perturb: bool = True,
        is_mean: bool = False,
        rows: RowIds | None = None,
        context: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Tensor:
        """Return S MAP states of θ, or their mean, with the estimator's gradient.

        Args:
            theta: [*batch, *shape], costs if `minimize`, any float dtype and device.
            samples: S.
            perturb: Whether noise is added.
            is_mean: Whether the mean is asked for.
            rows: As for `forward`.
            context: What else a function takes in place of a solver, as for `forward`.
            named: The same by name.

        Returns:
            [S, *batch, *shape], or [*batch, *shape], of θ's dtype and device.
        """
        work, theta = at_work_on(self.solver, theta, context, named or {})
        ids = self._ids(work, theta, rows)
        return sample(self, work, theta, samples=samples, perturb=perturb, is_mean=is_mean, ids=ids)

    def _asked(self) -> tuple[int, bool]:
        """Return how many states of a row a call asks for, and whether for their mean."""
        training = self.training
        return self.estimator.samples if training else 1, self.reduction == "mean" or not training

    def _ids(self, work: SolverAtWork, theta: Tensor, rows: RowIds | None) -> Tensor | None:
        return None if rows is None else require_row_ids(rows, theta.shape[: work.lead_ndim(theta)], theta.device)

    def submit(
        self,
        theta: Tensor,
        *context: Any,
        rows: RowIds | None = None,
        deadline: float | None = None,
        **named: Any,
    ) -> Pending:
        """Begin to work out z for θ in a thread of its own, and return at once.

        ``layer.submit(theta).result()`` is ``layer(theta)``, with the same noise and gradient; between the two the
        caller's own work and the solver's overlap, as far as the solver releases the GIL. On a GPU, what the current
        stream is given after this call doesn't keep the solver waiting. What one layer is given is worked out in order;
        a function in place of a solver is called in that thread. The backward pass solves in place, as ever.

        Args:
            theta: As for `forward`; not to be written to in place before `result` has returned.
            context: As for `forward`.
            rows: As for `forward`.
            deadline: As for `forward`; what is given to a layer before doesn't count.
            named: As for `forward`, but without `problems`.

        Returns:
            `Pending`, whose `result` waits for z and may raise what `forward` raises of rows.

        Raises:
            TypeError, ShapeError, RuntimeError: As for `forward`; there are `problems`; or torch.compile, torch.vmap or
                torch.func trace.

        Example:
            >>> import torch, mapgrad
            >>> layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(3, 1)))
            >>> pending = layer.eval().submit(torch.tensor([0.5, 2.0, 1.0]))
            >>> pending.result()
            tensor([0., 1., 0.])
        """
        if "problems" in named:
            raise TypeError("submit takes no problems=, one problem a row: call the layer itself with them")
        work, theta = at_work_on(self.solver, theta, context, named, deadline)
        if is_traced(theta):
            raise RuntimeError(_NO_TRACED_SUBMIT)
        ids = self._ids(work, theta, rows)
        samples, is_mean = self._asked()
        return submit(self, work, theta, samples=samples, perturb=self.training, is_mean=is_mean, ids=ids)

    def _forward_uncompiled(
        self,
        theta: Tensor | Sequence[Tensor],
        problems: Sequence[Problem],
        rows: RowIds | None,
        deadline: float | None,
    ) -> Tensor | list[Tensor]:
        disable: Any = torch.compiler.disable  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped in torch)
        return disable(self._forward_each)(theta, problems, rows, deadline)

    def _forward_each(
        self,
        theta: Tensor | Sequence[Tensor],
        problems: Sequence[Problem],
        row_ids: RowIds | None,
        deadline: float | None,
    ) -> Tensor | list[Tensor]:
        if not self.solver.takes_problems:
            raise TypeError(f"problems= needs a solver from mapgrad.get_solver, but this layer has {self.solver!r}")
        samples, is_mean = self._asked()
        solver = self.solver.within(deadline, theta)
        return sample_problems(self, solver, theta, problems, row_ids, samples=samples, is_mean=is_mean)

    @property
    def problem(self) -> Problem | None:
        """The feasible set; None where each call brings its problems, or for a function that doesn't say."""
        return self.solver.problem

    def distribution(self, theta: Tensor, *context: Any, **named: Any) -> PerturbAndMAP:
        """Return the perturb-and-MAP distribution of θ [*batch, *shape] (costs if `minimize`).

        Args:
            theta: As for `forward`.
            context: As for `forward`; the function gets it with each batch that is drawn.
            named: The same by name.

        Raises:
            TypeError, ShapeError, RuntimeError: As for `forward`.
        """
        _, theta = at_work_on(self.solver, theta, context, named)
        return PerturbAndMAP(self, theta, context, named)

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as int64, or nothing without a seed."""
        return self.keys.saved()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved layer, if both have a seed.

        A layer without a seed stays without one, and one with a seed keeps it where the saved layer had none.

        Raises:
            ValueError: `state` isn't what `get_extra_state` returns.
        """
        self.keys.restore(state, "MAP layer")

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}, normalize={self.normalize}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self.handle = new_handle(self)

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            theta: Tensor,
            *context: Any,
            problems: Sequence[Problem] | None = None,
            rows: RowIds | None = None,
            deadline: float | None = None,
            **named: Any,
        ) -> Tensor: ...
        @overload
        def __call__(
            self,
            theta: Sequence[Tensor],
            *,
            problems: Sequence[Problem],
            rows: RowIds | None = None,
            deadline: float | None = None,
        ) -> list[Tensor]: ...
        def __call__(self, *arguments: Any, **named: Any) -> Any: ...  # noqa: D102 (forward has it)


# what torch.compiler.disable sets too, but that takes a second to import
vars(MAPLayer)["_forward_uncompiled"].__dict__.update(
    _torchdynamo_disable=True,
    _torchdynamo_disable_msg="problems= can't be compiled, as problems aren't tensors: leave out fullgraph=True, or "
    "make a layer for each problem",
)

_NO_TRACED_SUBMIT: Final = (
    "submit can't be traced by torch.compile, torch.vmap or torch.func, as nothing goes on beside a trace: "
    "call the layer itself there"
)
