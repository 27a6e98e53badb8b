"""The gradient estimators that the demo can use."""

from __future__ import annotations

import enum
from typing import Final

import mapgrad


class EstimatorName(enum.StrEnum):
    """Gradient estimators to choose from."""

    IMLE = "imle"
    POOLED = "pooled"
    AIMLE = "aimle"
    BLACKBOX = "blackbox"
    STRAIGHT_THROUGH = "straight-through"

    @property
    def label(self) -> str:
        """The name to print."""
        return _LABELS[self]

    def make(self, problem: mapgrad.Problem, batch: int) -> mapgrad.Estimator:
        """Return the estimator for a problem, and a loss that is a mean over a batch of this size."""
        match self:
            case EstimatorName.IMLE:
                return mapgrad.IMLE(target=mapgrad.RelativeStep(0.5), symmetric=True)
            case EstimatorName.POOLED:
                return mapgrad.Pooled(problem)
            case EstimatorName.AIMLE:
                return mapgrad.AdaptiveIMLE()
            case EstimatorName.BLACKBOX:
                # λ undoes the mean over the batch, so that it is a step of one mean cost per cell.
                return mapgrad.Blackbox(lam=batch)
            case EstimatorName.STRAIGHT_THROUGH:
                return mapgrad.StraightThrough()


_LABELS: Final = {
    EstimatorName.IMLE: "I-MLE",
    EstimatorName.POOLED: "pooled I-MLE",
    EstimatorName.AIMLE: "AIMLE",
    EstimatorName.BLACKBOX: "black-box",
    EstimatorName.STRAIGHT_THROUGH: "straight-through",
}
