"""I-MLE whose step adapts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mapgrad.gradients._adaptive_step import AdaptiveStep
from mapgrad.gradients.estimators._imle import IMLE

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise


class AdaptiveIMLE(IMLE):
    """I-MLE with a step that adapts (Minervini, Franceschi and Niepert, AAAI 2023, arXiv 2209.04862).

    `AdaptiveStep` says how, and what holds with several ranks: within DistributedDataParallel their steps adapt as that
    of one rank with the whole batch does, without it each rank's by itself.

    Args:
        noise: ρ(ε); see `Estimator`.
        initial: See `AdaptiveStep`, as for step, momentum, decay, target and norm.
        step: Change of β per update.
        momentum: Share of the last change that is repeated.
        decay: Share of the running mean that is kept.
        target: Wanted number of non-zero entries of a sample's gradient.
        norm: "instance" or "batch".
        imle: The other arguments of `IMLE`.
    """

    def __init__(
        self,
        noise: Noise | Literal["auto"] | None = "auto",
        *,
        initial: float = 1.0,
        step: float = 1e-3,
        momentum: float = 0.0,
        decay: float = 0.9,
        target: float = 1.0,
        norm: Literal["instance", "batch"] = "instance",
        **imle: Any,
    ) -> None:
        super().__init__(noise, AdaptiveStep(initial, step, momentum, decay, target, norm), **imle)
