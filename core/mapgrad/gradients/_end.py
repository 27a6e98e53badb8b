"""What follows a forward pass: what it tells the layer, and the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.batching import Record
    from mapgrad.gradients._owner import Owner
    from mapgrad.gradients._pass import Pass


def end_forward(owner: Owner, record: Record, passes: Sequence[tuple[Pass, Tensor]]) -> None:
    """Count rows that failed, warn where nearly all of many passes were clipped, and call callbacks after training.

    Args:
        owner: The layer.
        record: What became of the batch.
        passes: The passes that it took, each with its θ.
    """
    owner.monitor.unsolved += record.unsolved
    if owner.monitor.finds_clipped(record):
        owner.monitor.warn_of_clipping([pass_.clipping(theta) for pass_, theta in passes])
    if owner.training:
        owner.callbacks.end_pass(lambda: owner.stats)
