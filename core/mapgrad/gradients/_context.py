"""What a target is told of a pass beside θ and the loss's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem


@dataclass(slots=True)
class Context:
    """What a target is told of a pass beside θ and the loss's gradient.

    Attributes:
        event_ndim: Number of dimensions of a row of θ.
        problem: What is solved, with its `constant_sums`; None for a function that doesn't say.
        noise_std: Standard deviation of what perturbs θ, τ · std(ε): 0 without noise. A tensor [1, B, 1, …] where the
            law doesn't say its own, so that it was measured on the noise of each row.
        state: [], what `Target.advance` returned in the forward pass; None for a target that doesn't adapt.
    """

    event_ndim: int
    problem: Problem | None = None
    noise_std: float | Tensor = 0.0
    state: Tensor | None = None
