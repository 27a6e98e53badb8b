"""Forward passes whose θ = −inf forbids entries: these alone are forbidden, whatever noise and an estimator add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import torch

from mapgrad.gradients.estimators import IMLE, Estimator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.gradients.estimators import Solve
    from mapgrad.solutions import Solutions

PLAIN: Final = (Estimator.forward, IMLE.forward)
"""The forward passes of our own that only add noise: −inf stays as it is, and what they return is right."""


class _Solve(Protocol):
    def __call__(self, rows: Tensor, *, may_forbid: Callable[[], Tensor]) -> Solutions: ...


def solve_of_forward(solve: _Solve, estimator: Estimator, theta: Tensor) -> Solve:
    """Return what solves the rows that an estimator's forward pass makes of θ.

    Args:
        solve: Solves rows [..., B, *shape], and is told which entries −inf may forbid.
        estimator: Whose pass it is.
        theta: [B, *shape], utilities.
    """
    lost = None
    if type(estimator).forward not in PLAIN:
        forbidden = theta.isneginf()
        lost = forbidden if bool(forbidden.any()) else None

    def solve_rows(rows: Tensor) -> Solutions:
        if lost is not None:
            rows = rows.masked_fill(lost, -torch.inf)
        return solve(rows, may_forbid=lambda: theta.isneginf().expand(rows.shape).flatten(0, -theta.ndim))

    return solve_rows
