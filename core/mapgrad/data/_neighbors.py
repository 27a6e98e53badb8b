"""Costs that borrow from those of rows with similar features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import are_finite, name_rows, row_numbers
from mapgrad.errors import NonFiniteError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

_ROWS: Final = 1024
"""That are compared with all others at a time, which bounds the memory."""


def neighbor_costs(
    features: Tensor | ArrayLike,
    costs: Tensor | ArrayLike,
    k: int = 10,
    *,
    weight: float = 0.5,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Return costs mixed with those of each row's k nearest neighbours: w c_i + (1 − w) c_j.

    The k-NN loss of Schutte, Postek and Yorke-Smith (Robust Losses for Decision-Focused Learning, IJCAI 2024, arXiv
    2310.04328) is the mean of a loss over these k costs, which overfits less where costs are noisy. A regret, and its
    gradient, depends on the prediction through their mean alone: that is what an `OptDataset` of mean costs trains on.
    For other losses, pass all k as rows of their own, with the features repeated: ``reduction="none"``.

    Args:
        features: [N, …], a real tensor, or what `torch.as_tensor` takes; rows are near by Euclidean distance.
        costs: [N, *shape], likewise; floating.
        k: 1 ≤ k < N; of neighbours at equal distances, the first ones count.
        weight: w, from 0 to 1, that of a row's own costs; 1 changes nothing.
        reduction: "mean" over the neighbours, or "none".

    Returns:
        [N, *shape], or [N, k, *shape] without a reduction, nearest first; of the costs' dtype and device.

    Raises:
        ShapeError: features and costs haven't one row each.
        NonFiniteError: features or costs have NaN or infinite entries.
        TypeError: `k` isn't an integer.
        ValueError: `k` isn't from 1 to N − 1, `weight` not from 0 to 1, or `reduction` unknown.

    Example:
        >>> import torch, mapgrad
        >>> x, costs = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[2.0, 0.0], [4.0, 2.0], [8.0, 8.0]])
        >>> mapgrad.data.neighbor_costs(x, costs, k=1)
        tensor([[3., 1.],
                [3., 1.],
                [6., 5.]])
    """
    x, own = torch.as_tensor(features).detach(), torch.as_tensor(costs).detach()
    if x.ndim < 1 or own.ndim < 2 or len(x) != len(own):
        raise ShapeError(
            f"features [N, …] and costs [N, *shape] must have one row each for N rows, got the shapes "
            f"{tuple(x.shape)} and {tuple(own.shape)}"
        )
    if not 1 <= whole_number("k", k) < len(x):
        raise ValueError(f"k must be from 1 to {len(x) - 1}, as a row has {len(x) - 1} others, got {k}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be from 0 to 1, got {weight!r}")
    if reduction not in ("mean", "none"):
        raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
    for name, values in (("features", x), ("costs", own)):
        bad = [] if are_finite(values) else row_numbers((~values.isfinite()).reshape(len(values), -1).any(dim=1))
        if bad:
            raise NonFiniteError(
                f"{name} have NaN or infinite entries in {name_rows(bad, (len(x),))}: give finite ones", rows=bad
            )
    others = own[_nearest(x.double().reshape(len(x), -1), int(k)).to(own.device)]
    mixed = weight * own[:, None] + (1 - weight) * others
    return mixed.mean(dim=1) if reduction == "mean" else mixed


def _nearest(x: Tensor, k: int) -> Tensor:
    """Return the numbers of the k other rows that are nearest to each of x [N, p], nearest first, [N, k]."""
    found: list[Tensor] = []
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        # the quicker way by a matrix product isn't exact: rows that are equal would be apart
        distance = torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist")
        rows = torch.arange(len(part), device=x.device)
        distance[rows, start + rows] = torch.inf
        found.append(distance.sort(dim=1, stable=True).indices[:, :k])
    return torch.cat(found)
