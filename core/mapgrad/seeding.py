"""Streams of noise for the layers of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.arguments import whole_number
from mapgrad.gradients import KeyStream, seed_of_path
from mapgrad.layer import MAPLayer

if TYPE_CHECKING:
    from torch import nn


def seed_layers(model: nn.Module, seed: int) -> int:
    """Give each `MAPLayer` of a model a stream of noise of its own, a function of the seed and the layer's path.

    The path is the layer's name in `model.named_modules()`: layers that come or go elsewhere change nothing. Seed the
    model before it is wrapped, as DistributedDataParallel and torch.compile put another name in front of all paths.

    Args:
        model: A module; the layers in it get another seed and start anew at step 0.
        seed: Any integer.

    Returns:
        The number of layers.

    Raises:
        TypeError: `seed` isn't an int.

    Example:
        >>> import torch, mapgrad
        >>> layers = [mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2))) for _ in range(2)]
        >>> mapgrad.seed_layers(torch.nn.Sequential(*layers), 0)
        2
    """
    seed = whole_number("seed", seed)
    modules: list[tuple[str, nn.Module]] = [*model.named_modules()]  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    layers = [(path, module) for path, module in modules if isinstance(module, MAPLayer)]
    for path, layer in layers:
        layer.keys = KeyStream(seed_of_path(seed, path))
    return len(layers)
