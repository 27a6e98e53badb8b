"""What a target is told of a pass beside θ and the loss's gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.problems import Problem


class Context:
    """What a target is told of a pass beside θ and the loss's gradient.

    Args:
        event_ndim: See below, as for `problem` and `state`.
        noise_std: The standard deviation, or a function that measures it, which is called at most once.

    Attributes:
        event_ndim: Number of dimensions of a row of θ.
        problem: What is solved, with its `constant_sums`; None for a function that doesn't say.
        state: [], what `Target.advance` returned in the forward pass; None for a target that doesn't adapt.
    """

    __slots__ = ("_noise_std", "event_ndim", "problem", "state")

    def __init__(
        self,
        event_ndim: int,
        problem: Problem | None = None,
        noise_std: float | Tensor | Callable[[], float | Tensor] = 0.0,
        state: Tensor | None = None,
    ) -> None:
        self.event_ndim, self.problem, self.state = event_ndim, problem, state
        self._noise_std = noise_std

    @property
    def noise_std(self) -> float | Tensor:
        """Standard deviation of what perturbs θ, τ · std(ε): 0 without noise.

        A tensor [1, B, 1, …] where the law doesn't say its own: it is then measured on the noise of each row.
        """
        if callable(self._noise_std):
            self._noise_std = self._noise_std()
        return self._noise_std
