"""Micro-batches, one behind the other: the network computes while solvers work."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mapgrad.arguments import whole_number
from mapgrad.layer import MAPLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from mapgrad.gradients import Pending

X = TypeVar("X")


def pipelined(
    network: Callable[[X], Tensor], layer: MAPLayer, inputs: Iterable[X], *, ahead: int = 1
) -> Iterator[tuple[X, Tensor]]:
    """Yield each input x with ``layer(network(x))``, whose solver works while the network computes the next ones.

    Noise and gradients are those of a plain loop that accumulates them; but what an estimator learns in one backward
    pass, as `Pooled`, `MultiFidelity` and `AdaptiveIMLE` do, the next forward passes don't know yet, as many as the
    network is ahead. Its weights must stay as they are until the last micro-batch, and an optimizer's step comes after
    the loop. It pays where solves of the forward pass take about as long as the network: on a GPU, or where the solver
    releases the GIL and cores are left. Each micro-batch that is ahead takes the memory of its graph.

    DistributedDataParallel doesn't take a forward pass before the last one's backward pass. With several ranks the loop
    belongs into the forward pass of the module that is wrapped, which returns the sum of its losses.

    Args:
        network: From an input to θ [*batch, *shape].
        layer: The layer.
        inputs: The micro-batches, of whatever kind `network` takes: pairs (x, y) for ``lambda pair: net(pair[0])``.
        ahead: How many micro-batches the network is ahead, ≥ 1.

    Raises:
        ValueError: `ahead` is less than 1, or `network` is a DistributedDataParallel that is to share gradients; or
            what the network or the layer raise.
        TypeError: `layer` isn't a `MAPLayer`, or `ahead` no int.
        RuntimeError: The network is a module whose weights changed while it was ahead.

    Example:
        >>> import torch, mapgrad
        >>> network, layer = torch.nn.Linear(4, 6), mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)))
        >>> optimizer = torch.optim.Adam(network.parameters())
        >>> for x, z in mapgrad.pipelined(network, layer, torch.randn(32, 4).split(8)):
        ...     (z * x.sum()).mean().backward()
        >>> optimizer.step()
    """
    if not isinstance(layer, MAPLayer):  # pyright: ignore[reportUnnecessaryIsInstance] (as below)
        raise TypeError(f"pipelined takes a MAPLayer, got {type(layer).__name__}: mapgrad.MAPLayer(solver) makes one")
    ahead = whole_number("ahead", ahead, 1)
    if isinstance(network, DistributedDataParallel) and network.require_backward_grad_sync and torch.is_grad_enabled():
        raise ValueError(
            "a DistributedDataParallel that is a micro-batch ahead shares gradients of some micro-batches alone: wrap "
            "a module whose forward pass has the loop over pipelined and returns the sum of its losses"
        )
    return _answers(network, layer, inputs, ahead)


def _answers(
    network: Callable[[X], Tensor], layer: MAPLayer, inputs: Iterable[X], ahead: int
) -> Iterator[tuple[X, Tensor]]:
    weights = [*network.parameters()] if isinstance(network, nn.Module) else []

    def versions() -> list[int]:
        return [weight._version for weight in weights]  # noqa: SLF001 (torch documents it for this use)

    def checked(before: list[int], pending: Pending) -> Tensor:
        if before != versions():
            raise RuntimeError(
                "the network's weights changed while it was ahead, so that θ is of old ones: accumulate gradients over "
                "the micro-batches, and let the optimizer step after the loop"
            )
        return pending.result()

    waiting: deque[tuple[X, list[int], Pending]] = deque()
    for x in inputs:
        waiting.append((x, versions(), layer.submit(network(x))))
        if len(waiting) > ahead:
            first, before, pending = waiting.popleft()
            yield first, checked(before, pending)
    for x, before, pending in waiting:
        yield x, checked(before, pending)
