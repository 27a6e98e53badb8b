"""Which training step a pass belongs to: the keys of noise, also of passes that a checkpoint repeats."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import is_in_backward, is_readable, may_be_repeated, text_of_saved
from mapgrad.gradients._counter import mix, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_T = TypeVar("_T")
_D = TypeVar("_D")

_REMEMBERED: Final = 1 << 12
"""How many steps may lie between a pass and its repetition."""

_NUMBERS: Final = 1 << 62
"""How many numbers tell passes apart."""

_UNKNOWN: Final = (
    f"a MAP layer or a loss was called inside a backward pass, where it can only repeat one of its last "
    f"{_REMEMBERED:,} training passes, but it drew other random numbers than these did: leave preserve_rng_state=True, "
    f"torch.utils.checkpoint's default, so that the pass finds its noise, or its pool, again. A pass that repeats none "
    f"belongs outside of the backward pass, or into eval mode"
)

_AMBIGUOUS: Final = (
    "a MAP layer with a seed, or a loss, can't tell which of several training passes a checkpoint repeats: they drew "
    "the same random numbers, as the generator was set back between them, and either their θ is the same, or the "
    "repeated pass got another θ. Don't set torch's generator back between forward passes that come before their "
    "backward pass"
)


class Recent(Generic[_T]):
    """The values that were noted last, by number; copies of it, and what pickle makes of it, start empty.

    Args:
        most: How many; None for 4,096.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = _REMEMBERED if most is None else most
        self._values: OrderedDict[int, _T] = OrderedDict()

    def note(self, number: int, value: _T) -> None:
        """Remember a value, and forget the oldest of too many."""
        self._values[number] = value
        self._values.move_to_end(number)
        if len(self._values) > self._most:
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

    def get(self, number: int, default: _D) -> _T | _D:
        """Return a value, or the default where none was noted or it is forgotten."""
        return self._values.get(number, default)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, (self._most,)


@dataclass(slots=True)
class _FirstPass:
    """A pass that may be repeated.

    Attributes:
        key: Its key.
        mark: What stands for its θ, by which passes with the same drawn number differ.
        is_repeated: Whether it was.
    """

    key: int
    mark: int
    is_repeated: bool = False


class KeyStream:
    """Gives each training pass its key, of which its noise is a function, and a repeated pass the key that it had.

    A pass is told by one number from torch's default generator for the CPU. Inside a backward pass, the layer is called
    by something that repeats a forward pass, such as torch.utils.checkpoint, which restores that generator first: the
    number is then one that was drawn before. Where a user set the generator back, several passes of a seeded layer have
    one number and different keys; θ then tells them apart.

    Args:
        seed: None makes this number the key; an int makes a key a function of (seed, step).

    Attributes:
        seed: As given.
        step: How many keys a seed has given.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = None if seed is None else whole_number("seed", seed, also=" or None")
        self.step = 0
        self._passes: Recent[list[_FirstPass]] = Recent()

    def next(self, thetas: Sequence[Tensor], begin: Callable[[int], None]) -> int:
        """Return the key of the coming pass, a number of at most 63 bits.

        Args:
            thetas: All of its θ, at least float32.
            begin: Called with the key where the pass begins a new step, and isn't a repeated one.

        Raises:
            RuntimeError: The pass repeats another, but the generator wasn't restored, or the other is too long ago, or
                it may be one of several.
        """
        drawn = int(torch.randint(_NUMBERS, (), device="cpu"))
        if is_in_backward():
            return self._repeated(drawn, thetas)
        if self.seed is None:
            key = drawn
        else:
            key = mix(self.seed, self.step)
            self.step += 1
        if may_be_repeated():
            mark = 0 if self.seed is None else _mark(thetas)
            others = [each for each in self._passes.get(drawn, []) if not each.is_repeated and each.key != key]
            self._passes.note(drawn, [*others[-_REMEMBERED:], _FirstPass(key, mark)])
        begin(key)
        return key

    def _repeated(self, drawn: int, thetas: Sequence[Tensor]) -> int:
        passes = self._passes.find(drawn)
        if len(passes) > 1:
            mark = _mark(thetas)
            passes = [each for each in passes if each.mark == mark]
            if len(passes) != 1:
                raise RuntimeError(_AMBIGUOUS)
        passes[0].is_repeated = True
        return passes[0].key

    def saved(self) -> Tensor:
        """Return (seed, step) as int64 on the CPU, or nothing without a seed."""
        numbers = [] if self.seed is None else [signed(self.seed), self.step]
        return torch.tensor(numbers, dtype=torch.int64, device="cpu")

    def restore(self, state: Tensor, owner: str) -> None:
        """Go on where a saved stream stopped, if both have a seed; a stream without one never gets one by this.

        Args:
            state: What `saved` returned.
            owner: What has the stream, for the message.

        Raises:
            ValueError: `state` is something else.
        """
        is_saved = is_readable(state) and state.dtype == torch.int64 and state.shape in ((0,), (2,))
        if not is_saved or bool(((state[1:] < 0) | (state[1:] >= _NUMBERS)).any()):
            raise ValueError(
                f"a saved {owner} has (seed, step) as its extra state, an int64 tensor of two numbers or, without a "
                f"seed, of none, got {text_of_saved(state)}: is the file damaged, or another module's?"
            )
        if len(state) and self.seed is not None:
            self.seed, self.step = int(state[0]), int(state[1])


def _mark(thetas: Sequence[Tensor]) -> int:
    """Return a number that stands for all bits of some tensors and their order."""
    mark = 0
    for theta in thetas:
        words = theta.detach().reshape(-1).view(torch.int32)
        weights = torch.arange(1, len(words) + 1, device=words.device)
        mark = mix(mark, int((words * weights).sum()))
    return mark


def seed_of_path(seed: int, path: str) -> int:
    """Return the seed of a layer in a model, from the model's and the layer's path: 63 bits."""
    return mix(seed, int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little"))
