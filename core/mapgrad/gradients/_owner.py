"""What the passes of a layer need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mapgrad.gradients._monitor import Monitor
    from mapgrad.gradients._steps import KeyStream
    from mapgrad.gradients.estimators import Estimator


class Owner(Protocol):
    """What a pass needs of a layer, and the ops, which find it by its handle.

    Attributes:
        estimator: The gradient estimator.
        monitor: What counts rows that no step moves.
        minimize: Whether the layer's input are costs.
        training: Whether the layer is in training mode.
        keys: Gives each pass the key of its noise.
        handle: The number under which ops find the layer.
    """

    estimator: Estimator
    monitor: Monitor
    minimize: bool
    training: bool
    keys: KeyStream
    handle: int
