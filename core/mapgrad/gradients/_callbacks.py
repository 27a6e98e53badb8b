"""What users want to be told of a layer as it trains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch.utils.hooks import RemovableHandle

from mapgrad.arguments import whole_number

Callback = Callable[[int, dict[str, float]], object]
"""Takes how many training passes there were, and the layer's statistics."""


class Callbacks:
    """The callbacks of a layer, by the order in which they came; copies, and what pickle makes of it, have none."""

    def __init__(self) -> None:
        self._passes = 0
        self._each: OrderedDict[int, tuple[Callback, int]] = OrderedDict()

    def add(self, callback: Callback, every: int) -> RemovableHandle:
        """Have a callback called after every so many training passes.

        Raises:
            TypeError: `callback` isn't callable, or `every` isn't an int.
            ValueError: `every` is below 1.
        """
        if not callable(callback):  # pyright: ignore[reportUnnecessaryComparison] (a user's value)
            raise TypeError(f"callback must be a function of (step, stats), got {callback!r}")
        every = whole_number("every", every, 1)
        handle = RemovableHandle(self._each)
        self._each[handle.id] = callback, every
        return handle

    def end_pass(self, stats: Callable[[], dict[str, float]]) -> None:
        """Count a training pass, and call whose turn it is."""
        self._passes += 1
        for callback, every in [*self._each.values()]:
            if self._passes % every == 0:
                callback(self._passes, stats())

    def __reduce__(self) -> tuple[Any, ...]:
        return Callbacks, ()
