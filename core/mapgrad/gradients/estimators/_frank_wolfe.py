"""The quadratically regularised optimum, by a solver alone."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mapgrad.arguments import positive, whole_number
from mapgrad.batching import users_level
from mapgrad.gradients._constant_sums import without_sums
from mapgrad.gradients._projection import along_face, nearest, room_for
from mapgrad.gradients.estimators._estimator import Estimator, Forward
from mapgrad.problems import Domain
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients.estimators._estimator import Solve
    from mapgrad.problems import Problem


class FrankWolfe(Estimator):
    """μ = argmax ⟨θ, μ⟩ − (w/2) ‖μ‖² over conv(C), and its exact derivative, without noise.

    As in SparseMAP (Niculae, Martins, Blondel and Cardie, ICML 2018, arXiv 1802.04223), for any solver: μ is found by
    Frank–Wolfe steps, fully corrective ones, which the linear convergence of Lacoste-Julien and Jaggi (NeurIPS 2015,
    arXiv 1511.05932) covers, a solve each. In training a layer gives μ, a mean of at most n + 1 states, and the
    gradient is that of L(μ(θ)): ∂L/∂μ projected on the face of conv(C) around μ. It takes a few backward solves, which
    find the states of that face that μ doesn't need. In eval mode the layer gives MAP(θ), with the same gradient.

    w = `weight` · rms(θ), the root mean square of the row's entries that aren't forbidden, less what
    `Problem.constant_sums` hide; 1 in place of 0. So μ depends on the direction of θ alone, and the gradient is
    orthogonal to θ. With a small w most rows are at a vertex, μ = MAP(θ), and have no gradient.

    For a layer's `stats`: `gap`, the largest gap that any row was left with in training, `unfinished`, how many rows
    were left with more than `tolerance` after `max_solves`, `vertices`, the share of rows that were at a vertex, and
    `solves_a_row`, each in forward passes.

    Args:
        weight: w, in units of rms(θ), where states are made of zeros and ones.
        tolerance: At most how much ⟨θ − wμ, z − μ⟩ is for all z in C, in units of w ‖z‖².
        max_solves: Forward solves of a row at most, and backward solves, at least 2. A row keeps up to that many
            states for the backward pass.

    Raises:
        TypeError: an argument isn't a number.
        ValueError: an argument is out of its range.
    """

    def __init__(self, weight: float = 1.0, *, tolerance: float = 1e-10, max_solves: int = 200) -> None:
        super().__init__(None, samples=1, temperature=0.0)
        self.weight = positive("weight", weight)
        self.tolerance = positive("tolerance", tolerance)
        self.max_solves = whole_number("max_solves", max_solves, 2)
        self._rows = self._vertices = self._solves = self._unfinished = 0
        self._gap = 0.0

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take a larger weight."""
        return f"they are at a vertex of conv(C). Take a larger weight than {self.weight:g}"

    def forward(self, theta: Tensor, sampler: Sampler, solve: Solve) -> Forward:
        """Return μ; in eval mode MAP(θ).

        Raises:
            ValueError: other than one sample is asked for in training.
        """
        if not self.training:
            forward = super().forward(theta, sampler, solve)
            forward.rows = None  # backward rows are float64
            return forward
        if sampler.samples != 1:
            raise ValueError(
                f"FrankWolfe gives one mean of states, which isn't random, but {sampler.samples} samples were asked "
                f"for: ask in eval mode, or take an estimator with noise"
            )
        problem: Problem | None = getattr(solve, "problem", None)
        row = _row(theta, problem, self.weight)
        found = nearest(row.x, _flat(solve, theta.shape), problem, **self._limits)
        self._note(found.gap, found.is_open, found.used, found.solves)
        state = found.states.to(theta.dtype), found.used, found.slope
        return Forward(found.mean.to(theta.dtype).view(1, *theta.shape), found.status[None], None, state)

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return ∂L/∂μ, projected on the face around μ and then orthogonally to θ, divided by w."""
        theta, problem = forward.theta, forward.problem
        row = _row(theta, problem, self.weight)
        solve = _flat(lambda rows: forward.solve(rows[None]), theta.shape)
        gradient = gradient.mean(dim=0, keepdim=True)
        if forward.state:
            states, used, slope = forward.state
        else:  # of a pass in eval mode
            found = nearest(row.x, solve, problem, **self._limits)
            states, used, slope = found.states, found.used, found.slope
        part = along_face(gradient[0].double().flatten(1), slope, states.double(), used, solve, **self._limits)
        along = (row.unit * part).sum(dim=1, keepdim=True)
        part = (part - row.unit * along) / row.width
        most = torch.finfo(theta.dtype).max * 2.0**-16
        result = part.clamp(-most, most).to(theta.dtype).view_as(theta)
        forward.observe(result[None], gradient)
        return result

    def state_like(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Return the states of the mean, which of them there are, and the slope of their face; none in eval mode."""
        if not self.training:
            return ()
        count, size = len(theta), math.prod(theta.shape[1:])
        room = room_for(size, self.max_solves)
        states, slope = theta.new_empty((count, room, size)), theta.new_empty((count, size), dtype=torch.float64)
        return states, theta.new_empty((count, room), dtype=torch.bool), slope

    @property
    def stats(self) -> dict[str, float]:
        """What the class says."""
        rows = max(self._rows, 1)
        return {
            "gap": self._gap,
            "unfinished": self._unfinished,
            "vertices": self._vertices / rows,
            "solves_a_row": self._solves / rows,
        }

    @property
    def _limits(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "max_solves": self.max_solves}

    def _note(self, gap: Tensor, is_open: Tensor, used: Tensor, solves: Tensor) -> None:
        if len(gap) == 0:
            return
        unfinished = int(is_open.sum())
        if unfinished and not self._unfinished:
            warnings.warn(
                f"{unfinished} of {len(gap)} rows were left with a gap of up to {float(gap.max()):.1g} after "
                f"max_solves={self.max_solves}, above tolerance={self.tolerance:g}: their μ and gradients aren't "
                f"exact. Take a larger max_solves, or a smaller weight, for which fewer states are needed",
                stacklevel=users_level(),
            )
        self._rows += len(gap)
        self._unfinished += unfinished
        self._vertices += int((used.sum(dim=1) == 1).sum())
        self._solves += int(solves.sum())
        self._gap = max(self._gap, float(gap.max()))

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"weight={self.weight}, tolerance={self.tolerance}, max_solves={self.max_solves}"


class _Row(NamedTuple):
    """θ and its scale, float64.

    Attributes:
        x: [B, n], θ / w, without what a problem's sums hide.
        unit: [B, n], the part of θ along which μ doesn't change, as vectors of length 1, or 0 where w doesn't grow.
        width: [B, 1], w.
    """

    x: Tensor
    unit: Tensor
    width: Tensor


def _row(theta: Tensor, problem: Problem | None, weight: float) -> _Row:
    rows = theta.double()
    forbidden = theta.isneginf()
    allowed = (~forbidden).double()
    rows = rows.masked_fill(forbidden, 0.0)
    if problem is not None and problem.domain is Domain.REAL:
        rows = without_sums(rows[None], allowed, problem)[0]
    rows = rows.flatten(1)
    peak = rows.abs().amax(dim=1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1)  # first, as the square of a peak may be no number
    rows = rows / peak
    norm = rows.square().sum(dim=1, keepdim=True).sqrt()
    count = allowed.flatten(1).sum(dim=1, keepdim=True).clamp(min=1)
    scale = torch.where(norm > 0, norm / count.sqrt(), 1)
    return _Row(rows / (weight * scale), rows / torch.where(norm > 0, norm, 1), weight * scale * peak)


def _flat(solve: Callable[[Tensor], Solutions], shape: torch.Size) -> Callable[[Tensor], Solutions]:
    """Return what solves rows [B, n] in the shape [B, *shape]."""

    def solve_flat(rows: Tensor) -> Solutions:
        found = solve(rows.view(shape))
        return Solutions(found.z.reshape(rows.shape), found.status.reshape(-1))

    return solve_flat
