# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Cone-aligned vector estimation, and its projection: an opaque op where somebody traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.batching import define, find, is_traced, new_handle
from mapgrad.losses._cones import Cones
from mapgrad.losses._loss import Loss

if TYPE_CHECKING:
    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction

_ROUNDING: Final = 1e-12
"""What is shorter than that, of a row whose largest entry is 1, is 0."""


class CaVE(Loss):
    """Cone-aligned vector estimation (Tang and Khalil, CPAIOR 2024, arXiv 2312.07718), for problems of zeros and ones.

    1 − cos(θ, p), where p is the projection of θ on the cone of the outward normals of all constraints that bind at z*,
    in the linear relaxation of the problem's integer program: 0 for θ in the cone, which makes z* optimal, and 1 where
    p is 0. Its gradient is that for constant p; for the exact projection, where 1 − cos is 1 − ‖p‖/‖θ‖, it is the whole
    one. The length of θ doesn't matter. Rows are projected on the CPU, one by one.

    Where the program has variables that θ doesn't price, both vectors have all of them, with zeros in θ; their values
    are found by scipy's milp, once for each z*. Nothing else is solved. A program whose relaxation isn't tight has too
    small a cone: z* is optimal for other θ too.

    Args:
        solver: See `Loss`; it is asked for nothing but its problem.
        iterations: None for the exact projection, by scipy, in whose flat part, p = 0, no gradient is. A number is that
            of the iterations after which clarabel's interior-point method is stopped, which leaves p inside of the
            cone, as in the paper's «CaVE+», with 3. θ inside of the cone has a positive loss then, too. Where it stops
            depends on how constraints are written: here normals are unit vectors, and equations aren't in them.
        minimize: Whether predictions are costs.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: the solver's problem isn't known, or `iterations` isn't a positive int.
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
        self.cones = Cones(self.require_problem())
        if iterations is not None and (type(iterations) is not int or iterations < 1):
            raise ValueError(f"iterations must be a positive int or None, got {iterations!r}")
        self.iterations = iterations
        self.handle = new_handle(self)

    def forward(self, pred: Tensor, z_true: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; from 0 to 1, or to 2 with
            `iterations`.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            MissingDependencyError: the package that projects isn't installed.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry.
        """
        theta = self.utilities(pred)
        z_true = self.true_states(z_true, theta)
        op = torch.ops.mapgrad.cave if is_traced(theta) or is_traced(z_true) else _cave
        p, length = op(theta.detach(), z_true, self.handle)
        rows = torch.where(theta.isneginf(), 0.0, theta).double().flatten(self.split(theta))
        is_flat = length < _ROUNDING
        largest = rows.detach().abs().amax(dim=-1).masked_fill(is_flat, 1.0)
        rows = torch.where(is_flat[..., None], 1.0, rows / largest[..., None])
        lengths = rows.norm(dim=-1) * length.masked_fill(is_flat, 1.0)
        cosine = (rows * p.flatten(self.split(theta))).sum(dim=-1) / lengths
        return self.result(1 - torch.where(is_flat, 0.0, cosine.clamp(max=1)), z_true)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, iterations={self.iterations}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = new_handle(self)


def _cave(theta: Tensor, z_true: Tensor, handle: int) -> tuple[Tensor, Tensor]:
    """Return p of rows over their largest |θ_i|, like θ in float64, and ‖p‖ [*batch]."""
    loss: CaVE = find(handle)
    problem = loss.cones.problem
    loss.require_allowed(theta, z_true)
    rows, states = (each.double().cpu().reshape(-1, *problem.shape).numpy() for each in (theta, z_true))
    loss.require_states(z_true, [row for row, state in enumerate(states) if not loss.cones.knows(state)])
    p, length = loss.cones.project(rows, states, loss.iterations)
    lead = theta.shape[: theta.ndim - len(problem.shape)]
    return (
        torch.as_tensor(p, device=theta.device).reshape(theta.shape),
        torch.as_tensor(length, device=theta.device).reshape(lead),
    )


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
