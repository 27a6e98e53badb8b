"""Micro-batches, one behind the other: the network computes while solvers work."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from mapgrad.gradients import Pending
    from mapgrad.layer import MAPLayer

X = TypeVar("X")


def pipelined(
    network: Callable[[X], Tensor], layer: MAPLayer, inputs: Iterable[X], *, ahead: int = 1
) -> Iterator[tuple[X, Tensor]]:
    """Yield each input x with ``layer(network(x))``, whose solver works while the network computes the next ones.

    Noise and gradients are those of a plain loop. It pays where solves take about as long as the network: on a GPU, or
    where the solver releases the GIL and cores are left. Each micro-batch that is ahead takes the memory of its graph.

    Args:
        network: From an input to θ [*batch, *shape].
        layer: The layer.
        inputs: The micro-batches.
        ahead: How many micro-batches the network is ahead, ≥ 1.

    Raises:
        ValueError: `ahead` is less than 1; or what the network or the layer raise.

    Example:
        >>> import torch, mapgrad
        >>> network, layer = torch.nn.Linear(4, 6), mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)))
        >>> for x, z in mapgrad.pipelined(network, layer, torch.randn(32, 4).split(8)):
        ...     (z * x.sum()).mean().backward()
    """
    if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1:  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise ValueError(f"ahead must be an int of at least 1, got {ahead!r}")
    return _answers(network, layer, inputs, ahead)


def _answers(
    network: Callable[[X], Tensor], layer: MAPLayer, inputs: Iterable[X], ahead: int
) -> Iterator[tuple[X, Tensor]]:
    waiting: deque[tuple[X, Pending]] = deque()
    for x in inputs:
        waiting.append((x, layer.submit(network(x))))
        if len(waiting) > ahead:
            first, pending = waiting.popleft()
            yield first, pending.result()
    for x, pending in waiting:
        yield x, pending.result()
