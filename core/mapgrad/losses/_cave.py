# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Cone-aligned vector estimation, and its projection: an opaque op where somebody traces."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.arguments import whole_number
from mapgrad.batching import define, find, group_rows, is_traced, new_handle
from mapgrad.losses._cones import Cones, cones_of
from mapgrad.losses._loss import Loss
from mapgrad.losses._smoothing import require_untraced
from mapgrad.losses._values import linear_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem

_ROUNDING: Final = 1e-12
"""What is shorter than that, of rows whose largest entry is 1 and of unit vectors, is 0."""


class CaVE(Loss):
    """Cone-aligned vector estimation (Tang and Khalil, CPAIOR 2024, arXiv 2312.07718), for problems of zeros and ones.

    1 − cos(θ, p), where p is the projection of θ on the cone of the outward normals of all constraints that bind at z*,
    in the linear relaxation of the problem's integer program: 0 for θ in the cone, which makes z* optimal, and 1 where
    p is 0. Its gradient is that for constant p; for the exact projection, where 1 − cos is 1 − ‖p‖/‖θ‖, it is the whole
    one. The length of θ doesn't matter to the loss; the gradient is as 1/‖θ‖. Rows are projected on the CPU, one by
    one.

    Where the program has variables that θ doesn't price, both vectors have all of them, with zeros in θ; their values
    are found by scipy's milp, once for each z*. Nothing else is solved. A program whose relaxation isn't tight has too
    small a cone: z* is optimal for other θ too. As no state is found, there is no `return_solution`.

    Args:
        solver: See `Loss`; it is asked for nothing but its problem, which calls with `problems=` bring themselves.
        iterations: None for the exact projection, by scipy, in whose flat part, p = 0, no gradient is. A number is that
            of the iterations after which clarabel's interior-point method is stopped, which leaves p inside of the
            cone, as in the paper's «CaVE+», with 3. θ inside of the cone has a positive loss then, too. Where it stops
            depends on how constraints are written: here normals are unit vectors, and equations aren't in them.
        minimize: Whether predictions are costs.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: `iterations` isn't an int.
        ValueError: a function's problem isn't known, or `iterations` isn't positive.
        UnsupportedProblemError: it isn't one of zeros and ones, or has no integer program.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        *,
        iterations: int | None = None,
        minimize: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(solver, minimize=minimize, reduction=reduction)
        brings_problems = self.solver.problem is None and self.solver.takes_problems
        self.cones = None if brings_problems else Cones(self.require_problem())
        self.iterations = None if iterations is None else whole_number("iterations", iterations, 1, also=" or None")
        self.handle = new_handle(self)

    def forward(
        self, pred: Tensor, z_true: Tensor, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            problems: One problem a row, in place of the solver's own; pred is then [B, *shape].

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; from 0 to 1, or to 2 with
            `iterations`.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            MissingDependencyError: the package that projects isn't installed.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry.
            UnsupportedProblemError: one of `problems` isn't one of zeros and ones, or has no integer program.
        """
        theta = self.utilities(pred, problems)
        z_true = self.true_states(z_true, theta, problems)
        split = self.split(theta, problems)
        p, length = self._projected(theta.detach(), z_true, problems)
        values, slope = _values_and_slopes(theta.detach(), p, length, split)
        return self.result(linear_of(theta, values, slope, split), z_true)

    def _projected(self, theta: Tensor, z_true: Tensor, problems: Sequence[Problem] | None) -> tuple[Tensor, Tensor]:
        """Return p of rows over their largest |θ_i|, like θ in float64, and ‖p‖ [*batch]."""
        if problems is None:
            op = torch.ops.mapgrad.cave if is_traced(theta) or is_traced(z_true) else _cave
            return op(theta, z_true, self.handle)
        groups = group_rows(theta, problems)
        require_untraced(theta)
        self.require_allowed(theta, z_true, problems)
        p, length = torch.empty_like(theta, dtype=torch.float64), theta.new_empty(len(theta), dtype=torch.float64)
        for problem, rows in chain.from_iterable(groups):
            cones, states = cones_of(problem), z_true[rows]
            p[rows], length[rows] = _projections(cones, theta[rows], states, self.iterations)
        return p, length

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, iterations={self.iterations}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = new_handle(self)


def _cave(theta: Tensor, z_true: Tensor, handle: int) -> tuple[Tensor, Tensor]:
    """Return p of rows over their largest |θ_i|, like θ in float64, and ‖p‖ [*batch]."""
    loss: CaVE = find(handle)
    assert loss.cones is not None  # else θ was refused before
    loss.require_allowed(theta, z_true)
    loss.require_states(z_true)
    return _projections(loss.cones, theta, z_true, loss.iterations)


def _projections(cones: Cones, theta: Tensor, z: Tensor, iterations: int | None) -> tuple[Tensor, Tensor]:
    """Return what `Cones.project` does, as tensors on θ's device: like θ [*batch, *shape], and [*batch]."""
    p, length = cones.project(_on_host(cones, theta), _on_host(cones, z), iterations)
    lead = theta.shape[: theta.ndim - len(cones.problem.shape)]
    return (
        torch.as_tensor(p, device=theta.device).reshape(theta.shape),
        torch.as_tensor(length, device=theta.device).reshape(lead),
    )


def _on_host(cones: Cones, rows: Tensor) -> NDArray[np.float64]:
    return rows.double().cpu().reshape(-1, *cones.problem.shape).numpy()


def _values_and_slopes(theta: Tensor, p: Tensor, length: Tensor, split: int) -> tuple[Tensor, Tensor]:
    """Return 1 − cos of rows, [*batch] float64, and its gradient for constant p, like θ in float64.

    Args:
        theta: [*batch, *shape], utilities.
        p: Like θ, the projections of rows over their largest |θ_i|.
        length: [*batch], their lengths over all variables.
        split: How many dimensions those of the batch are.
    """
    rows = torch.where(theta.isneginf(), 0.0, theta).double().flatten(split)
    is_flat = length < _ROUNDING
    largest = rows.abs().amax(dim=-1).masked_fill(is_flat, 1.0)[..., None]
    rows = rows / largest
    sizes = rows.norm(dim=-1).masked_fill(is_flat, 1.0)[..., None]
    unit, aligned = rows / sizes, p.flatten(split) / length.masked_fill(is_flat, 1.0)[..., None]
    cosine = (unit * aligned).sum(dim=-1, keepdim=True).clamp(max=1)
    turn = cosine * unit - aligned
    is_still = is_flat[..., None] | (turn.norm(dim=-1, keepdim=True) < _ROUNDING)
    slope = turn.masked_fill(is_still, 0.0) / (sizes * largest)
    return 1 - cosine.squeeze(-1).masked_fill(is_flat, 0.0), slope.reshape(theta.shape)


def _fake(theta: Tensor, z_true: Tensor, handle: int) -> tuple[Tensor, Tensor]:
    lead = theta.shape[: theta.ndim - len(find(handle).cones.problem.shape)]
    p = torch.empty_like(theta, dtype=torch.float64, memory_format=torch.contiguous_format)
    return p, theta.new_empty(lead, dtype=torch.float64)


def _vmap(info: Any, dims: Any, theta: Tensor, z_true: Tensor, handle: int) -> Any:
    theta, z_true = (
        each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip((theta, z_true), dims, strict=False)
    )
    return torch.ops.mapgrad.cave(theta, z_true, handle), (0, 0)


define("cave(Tensor theta, Tensor z_true, int handle) -> (Tensor, Tensor)", _cave, _fake, _vmap)
