"""Which training step a pass belongs to: the keys of noise, also of passes that a checkpoint repeats."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch

from mapgrad.batching import is_in_backward
from mapgrad.gradients._counter import mix, signed

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_REMEMBERED: Final = 1 << 12
"""How many steps may lie between a pass and its repetition."""

_NUMBERS: Final = 1 << 62
"""How many numbers tell passes apart."""


_UNKNOWN: Final = (
    f"a MAP layer was called inside a backward pass, where it can only repeat one of its last {_REMEMBERED:,} training "
    f"passes, but it drew other random numbers than these did: leave preserve_rng_state=True, torch.utils.checkpoint's "
    f"default, so that the pass finds its noise again. A pass that repeats none belongs outside of the backward pass, "
    f"or into eval mode"
)


class Recent(Generic[_T]):
    """The values that were noted last, by number; copies of it, and what pickle makes of it, start empty."""

    def __init__(self) -> None:
        self._values: OrderedDict[int, _T] = OrderedDict()

    def note(self, number: int, value: _T) -> None:
        """Remember a value, and forget the oldest of too many."""
        self._values[number] = value
        self._values.move_to_end(number)
        if len(self._values) > _REMEMBERED:
            self._values.popitem(last=False)

    def find(self, number: int) -> _T:
        """Return a value.

        Raises:
            RuntimeError: none was noted, or it is forgotten.
        """
        try:
            return self._values[number]
        except KeyError:
            raise RuntimeError(_UNKNOWN) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, ()


class KeyStream:
    """Gives each training pass its key, of which its noise is a function, and a repeated pass the key that it had.

    A pass is told by one number from torch's default generator for the CPU. Inside a backward pass, the layer is called
    by something that repeats a forward pass, such as torch.utils.checkpoint, which restores that generator first: the
    number is then one that was drawn before.

    Args:
        seed: None makes this number the key; an int makes a key a function of (seed, step).

    Attributes:
        seed: As given.
        step: How many keys a seed has given.
    """

    def __init__(self, seed: int | None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"seed must be an int or None, got {seed!r}")
        self.seed = seed
        self.step = 0
        self._keys: Recent[int] = Recent()

    def next(self, begin: Callable[[int], None]) -> int:
        """Return the key of the coming pass, a number of at most 63 bits.

        Args:
            begin: Called with the key where the pass begins a new step, and isn't a repeated one.

        Raises:
            RuntimeError: The pass repeats another, but the generator wasn't restored, or the other is too long ago.
        """
        drawn = int(torch.randint(_NUMBERS, (), device="cpu"))
        if is_in_backward():
            return self._keys.find(drawn)
        if self.seed is None:
            key = drawn
        else:
            key = mix(self.seed, self.step)
            self.step += 1
        self._keys.note(drawn, key)
        begin(key)
        return key

    def saved(self) -> list[int]:
        """Return [seed, step] as numbers that fit into int64, or [] without a seed."""
        return [] if self.seed is None else [signed(self.seed), self.step]

    def restore(self, state: list[int]) -> None:
        """Go on where a saved stream stopped, if both have a seed; a stream without one never gets one by this."""
        if state and self.seed is not None:
            self.seed, self.step = state


def seed_of_path(seed: int, path: str) -> int:
    """Return the seed of a layer in a model, from the model's and the layer's path: 63 bits."""
    return mix(seed, int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little"))
