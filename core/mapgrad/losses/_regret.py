"""Regret: what decisions for predicted values lose against those for the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from mapgrad.batching import compute_dtype, is_traced, require_bool, require_float, require_minimize
from mapgrad.losses._true_states import beaten_rows, require_states, rounding_of, warn_of_beaten
from mapgrad.losses._unambiguous import worst_states
from mapgrad.losses._values import inner, require_finite, require_like, require_priced, require_solver, unfilled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import Solver
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem


def regret(
    solver: SolverOrFunction,
    pred: Tensor,
    true: Tensor,
    z_true: Tensor | None = None,
    *,
    minimize: bool = False,
    problems: Sequence[Problem] | None = None,
    unambiguous: bool = False,
) -> Tensor:
    """Return what the decision for each row's prediction loses: ⟨t, z* − z⟩ with z = MAP(θ), z* = MAP(t).

    Where several states are optimal for a prediction, the solver's choice counts, or the worst of them if
    `unambiguous`: max ⟨t, z* − z⟩ over the z in argmax ⟨θ, z⟩, the unambiguous SPO loss of Elmachtoub and Grigas
    (Smart «Predict, then Optimize», Management Science 2022, definition 2), which no choice among ties can flatter. It
    takes some two solves more for each row, in float64, of θ − εt with an ε that falls until the answer is optimal for
    θ. What loses no more than 1e-9 of a row's largest |θ_i|, or 1e-6 if `pred` isn't float64, counts as optimal. It is
    as exact as the solver. Where the decision for a prediction fails under ``on_error="nan"`` or ``"zero_grad"``, the
    row's regret is NaN, and an error if `unambiguous`; failing true values are an error under both.

    Args:
        solver: A `Solver` or a function, as for a loss. Predictions are solved by its own domain policy, as they would
            be in use; true values outside of the domain are refused.
        pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
        true: Of the same shape, the true ones.
        z_true: Of the same shape, their best states; None solves for them. A warning names the rows where the decision
            for the prediction is better, which proves that they aren't the best.
        minimize: Whether `pred` and `true` are costs.
        problems: One problem a row, in place of the solver's own; pred is then [B, *shape].
        unambiguous: Whether the worst of the states counts that are optimal for a prediction.

    Returns:
        [*batch] float64 on pred's device, at least 0 with an exact solver and `z_true` that are the best; no gradient
        flows.

    Raises:
        TypeError, ShapeError: an argument isn't a tensor or a bool, or doesn't fit.
        ProblemError: rows of `z_true` aren't states.
        NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
        DomainError: `true` lies outside of the problem's domain, or `unambiguous` asks for the longest of the paths
            through entries whose predicted cost is 0.
        RowsError: a row has no acceptable answer.
        ValueError: `unambiguous` with a solver that isn't exact.

    Example:
        >>> import torch, mapgrad
        >>> solver = mapgrad.get_solver("topk", mapgrad.KSubset(3, 1))
        >>> mapgrad.losses.regret(solver, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([5.0, 2.0, 4.0]))
        tensor(1., dtype=torch.float64)
        >>> mapgrad.losses.regret(solver, torch.zeros(3), torch.tensor([5.0, 2.0, 4.0]), unambiguous=True)
        tensor(3., dtype=torch.float64)
    """
    lost, _, beaten = _judged(
        require_solver(solver), pred, true, z_true, minimize=minimize, problems=problems, unambiguous=unambiguous
    )
    if beaten:
        warn_of_beaten(beaten, tuple(lost.shape), minimize=minimize, is_last=False)
    return lost


def normalized_regret(
    solver: SolverOrFunction,
    pred: Tensor,
    true: Tensor,
    z_true: Tensor | None = None,
    *,
    minimize: bool = False,
    problems: Sequence[Problem] | None = None,
    unambiguous: bool = False,
) -> Tensor:
    """Return the sum of all rows' regrets over the sum of their optimal values' sizes |⟨t, z*⟩|.

    Args:
        solver: As for `regret`, as all others.
        pred: Predicted utilities.
        true: True ones.
        z_true: Their best states.
        minimize: Whether both are costs.
        problems: One problem a row.
        unambiguous: Whether the worst of the optimal states counts.

    Returns:
        [] float64; NaN or infinite where all optimal values are 0.

    Raises:
        MapgradError, TypeError: As for `regret`.
    """
    lost, best, beaten = _judged(
        require_solver(solver), pred, true, z_true, minimize=minimize, problems=problems, unambiguous=unambiguous
    )
    if beaten:
        warn_of_beaten(beaten, tuple(lost.shape), minimize=minimize, is_last=False)
    return lost.sum() / best.abs().sum()


class Regret:
    """Regret over all batches of an epoch and all ranks, by ``update``, ``compute`` and ``reset``.

    Args:
        solver: As for `regret`.
        minimize: Whether predictions and true values are costs.
        normalize: Whether `compute` gives `normalized_regret`, or the mean regret of a row.
        unambiguous: As for `regret`.

    Raises:
        TypeError: `solver` is neither a solver nor a function; or a switch isn't a bool.
        UnsupportedProblemError: the problem's states are worth more than ⟨θ, z⟩.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        *,
        minimize: bool = False,
        normalize: bool = True,
        unambiguous: bool = False,
    ) -> None:
        self.solver = require_solver(solver)
        self.minimize = require_minimize(minimize)
        self.normalize = require_bool("normalize", normalize)
        self.unambiguous = require_bool("unambiguous", unambiguous)
        self._has_warned = False
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.totals = torch.zeros(3, dtype=torch.float64, device="cpu")

    def update(
        self,
        pred: Tensor,
        true: Tensor,
        z_true: Tensor | None = None,
        *,
        problems: Sequence[Problem] | None = None,
    ) -> None:
        """Take in a batch; arguments, errors and the warning, here the first alone, as for `regret`.

        A batch that fails leaves nothing.
        """
        lost, best, beaten = _judged(
            self.solver,
            pred,
            true,
            z_true,
            minimize=self.minimize,
            problems=problems,
            unambiguous=self.unambiguous,
        )
        if beaten and not self._has_warned:
            self._has_warned = True
            warn_of_beaten(beaten, tuple(lost.shape), minimize=self.minimize)
        self.totals += torch.stack((lost.sum(), best.abs().sum(), lost.new_tensor(lost.numel()))).cpu()

    def compute(self) -> Tensor:
        """Return the regret so far, of all ranks where torch.distributed is initialised, as [] float64 on the CPU.

        All ranks must call it then, with batches or without. NaN without any batch.
        """
        totals = self.totals.clone()
        if distributed.is_available() and distributed.is_initialized():
            if distributed.get_backend() == "nccl":
                totals = totals.cuda()
            distributed.all_reduce(totals)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
            totals = totals.cpu()
        lost, best, rows = totals
        return lost / (best if self.normalize else rows)

    def state_dict(self) -> dict[str, Tensor]:
        """Return this rank's sums."""
        return {"totals": self.totals.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved sums.

        Raises:
            ValueError: `state` isn't what `state_dict` returns.
        """
        totals = state.get("totals")
        if not isinstance(totals, Tensor) or totals.shape != self.totals.shape or totals.is_complex():
            came = f"{totals.dtype} of shape {tuple(totals.shape)}" if isinstance(totals, Tensor) else repr(totals)
            raise ValueError(
                f"a saved Regret has its sums, a real tensor of shape ({len(self.totals)},), as 'totals', got {came}: "
                "is the file another metric's?"
            )
        self.totals = totals.to(self.totals, copy=True)

    def __repr__(self) -> str:
        return (
            f"Regret({self.solver!r}, minimize={self.minimize}, normalize={self.normalize}, "
            f"unambiguous={self.unambiguous})"
        )


def _judged(
    solver: Solver,
    pred: Tensor,
    true: Tensor,
    z_true: Tensor | None,
    *,
    minimize: bool,
    problems: Sequence[Problem] | None,
    unambiguous: bool,
) -> tuple[Tensor, Tensor, list[int]]:
    """Return ⟨t, z* − z⟩ and ⟨t, z*⟩, [*batch] float64, and the rows in which a user's z* is worth less than z."""
    require_minimize(minimize)
    require_bool("unambiguous", unambiguous)
    solver = unfilled(solver, takes_nan=not unambiguous)
    sign = -1 if minimize else 1
    theta = require_float(pred)
    theta = sign * theta.detach().to(compute_dtype(theta.dtype))
    if problems is None:
        split = solver.at_work().lead_ndim(solver.at_work().require_theta(theta))
    else:
        require_priced(problems)
        split = 1
    t = sign * require_like("true", true, theta)
    if z_true is None:
        best = solver.under("raise")(t, problems)
    else:
        best = require_finite("z_true", require_like("z_true", z_true, theta), split)
        if not is_traced(best):
            require_states(best, split, solver.problem, problems, dtype=z_true.dtype)
    z = solver(theta, problems)
    if unambiguous:
        z = worst_states(solver, theta, t, z, split, problems)
    beaten = [] if z_true is None else beaten_rows(t, z, best, split, rounding_of(true, z_true))
    return inner(t, best - z, split), inner(t, best, split), beaten
