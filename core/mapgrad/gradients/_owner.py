"""What the passes of a layer need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mapgrad.gradients._callbacks import Callbacks
    from mapgrad.gradients._monitor import Monitor
    from mapgrad.gradients._steps import KeyStream
    from mapgrad.gradients.estimators import Estimator


class Keyed(Protocol):
    """What has training steps, each with a key.

    Attributes:
        keys: Gives each pass its key.
        handle: The number under which ops find it.
    """

    keys: KeyStream
    handle: int

    def begin(self, key: int) -> None:
        """Begin a training step, as `Estimator.begin`."""
        ...


class Owner(Keyed, Protocol):
    """What a pass needs of a layer, and the ops, which find it by its handle.

    Attributes:
        estimator: The gradient estimator.
        monitor: What counts rows that no step moves.
        callbacks: Whom to tell of training passes.
        minimize: Whether the layer's input are costs.
        normalize: Whether each row is divided by its own spread.
        training: Whether the layer is in training mode.
    """

    estimator: Estimator
    monitor: Monitor
    callbacks: Callbacks
    minimize: bool
    normalize: bool
    training: bool

    @property
    def stats(self) -> dict[str, float]:
        """Counts, and what the estimator shows."""
        ...
