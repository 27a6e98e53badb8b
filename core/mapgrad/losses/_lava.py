# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""The loss of the true state against its neighbours on the feasible polytope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.arguments import non_negative
from mapgrad.batching import is_traced
from mapgrad.losses._pooled import PooledLoss
from mapgrad.problems import KSubset, SpanningTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._pooled import Scores
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import StatePool
    from mapgrad.problems import Problem


class LAVA(PooledLoss):
    """Loss via adjacent vertex alignment (Berden, Mahmutoğulları, Tsouros and Guns 2025, arXiv 2505.22224).

    Σ_z max(⟨θ, z − z*⟩, −ε) over the vertices z that are adjacent to z*, which is the best state if none of them is
    better. Nothing is solved, and there is no `return_solution`. Below −ε a neighbour has no gradient; with ε = 0,
    θ = 0 is a minimum.

    The neighbours of a k-subset differ from it by one element, those of a spanning tree by one edge: these are found in
    closed form. For other problems the sum is over a pool, to which true states are added in training, as `PooledLoss`
    says; states that aren't adjacent to z* are no worse to compare with, but a sum over many more grows.

    Args:
        solver: See `Loss`; it is asked for nothing but its problem.
        pool: States to stand for the neighbours where there is no closed form; None for a new pool.
        margin: ε ≥ 0, in units of θ.
        minimize: Whether predictions are costs.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError: As for `PooledLoss`; or `margin` is negative or not finite.
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        pool: StatePool | None = None,
        *,
        margin: float = 0.1,
        minimize: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(solver, pool, solve_ratio=0.0, minimize=minimize, reduction=reduction)
        self.margin = non_negative("margin", margin)
        problem = self.pool.problem
        self._incidence = incidence(problem) if isinstance(problem, SpanningTree) else None

    def forward(
        self, pred: Tensor, z_true: Tensor, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            problems: Refused, as a pool is of one problem.

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device; in units of θ.

        Raises:
            TypeError: there are `problems`.
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            ProblemError: a row of `z_true` isn't a state, or holds a forbidden entry; or the pool is empty.
        """
        theta = self.utilities(pred, problems)
        z_true = self.true_states(z_true, theta)
        problem = self.pool.problem
        are_neighbors = None
        if isinstance(problem, KSubset):
            size = problem.k
        elif self._incidence is not None:
            size = len(self._incidence.T)
            are_neighbors = cycles(self._incidence.to(theta.device), z_true)
        else:
            return self.over_pool(theta, z_true)
        is_wrong = (z_true * (1 - z_true) != 0).any(dim=-1) | (z_true.sum(dim=-1) != size)
        if are_neighbors is not None:
            is_wrong = is_wrong | are_neighbors.isnan().any(dim=-1).any(dim=-1)
        if not is_traced(theta) and not is_traced(z_true):
            self.require_allowed(theta, z_true)
        leaves, enters = (theta.gather(-1, places) for places in elements(z_true, size))
        changes = enters.unsqueeze(-2) - leaves.unsqueeze(-1)
        are_apart = enters.isneginf().unsqueeze(-2).expand_as(changes)
        if are_neighbors is not None:
            are_apart = are_apart | (are_neighbors == 0)
        terms = changes.masked_fill(are_apart, 0.0).clamp(min=-self.margin).masked_fill(are_apart, 0.0)
        values = terms.double().sum(dim=(-2, -1)).masked_fill(is_wrong, torch.nan)
        return self.result(values, z_true)

    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        margins = (scores.pred - scores.pred_best).masked_fill(~scores.allowed, 0.0)
        weights = (scores.allowed & (margins > -self.margin)).to(margins)
        return margins.clamp(min=-self.margin).sum(dim=1), weights, -weights.sum(dim=1, keepdim=True)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, margin={self.margin}"


def elements(z: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return where states [*batch, n] of zeros and `size` ones have the ones, and where the zeros."""
    order = z.argsort(dim=-1, descending=True, stable=True)
    return order[..., :size], order[..., size:]


def incidence(problem: SpanningTree) -> Tensor:
    """Return for each edge a row of the incidence matrix, [E, num_nodes − 1] float64: the last node is left out."""
    edges = torch.tensor(problem.edges, device="cpu")
    nodes = torch.arange(problem.num_nodes - 1, device="cpu")
    return (edges[:, :1] == nodes).double() - (edges[:, 1:] == nodes).double()


def cycles(incidence: Tensor, z: Tensor) -> Tensor:
    """Return which edges of trees close a cycle with which other edges.

    Each other edge's row of the incidence matrix is a sum, with signs, of those of the edges of its cycle.

    Args:
        incidence: [E, num_nodes − 1].
        z: [*batch, E].

    Returns:
        [*batch, num_nodes − 1, E − num_nodes + 1] float64, 0 where an edge isn't on the cycle; NaN for rows that
        aren't trees. The order is that of `elements`.
    """
    inside, outside = (incidence[places].mT for places in elements(z, len(incidence.T)))
    found, info = torch.linalg.solve_ex(inside, outside)
    return found.round().masked_fill((info != 0)[..., None, None], torch.nan)
