"""AIMLE's target, whose step adapts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor

from mapgrad.arguments import finite, non_negative, number, positive
from mapgrad.batching import is_readable, text_of_saved
from mapgrad.gradients._ranks import Accumulation, is_alone, summed
from mapgrad.gradients._scale import relative_step
from mapgrad.gradients._targets import Stepping

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.gradients._context import Context

_RECORDED: Final = "recorded"
"""What a `state_dict` calls a rank's records."""

_SAVED: Final = {
    "beta": "one finite number of at least 0",
    "nonzeros": "one finite number of at least 0",
    "change": "one finite number",
    _RECORDED: "an int64 tensor of two counts, of entries and rows, neither negative, and no entries without rows",
}


class AdaptiveStep(Stepping):
    """The step of `RelativeStep` with β for λ, where β makes a wanted number of entries move (AIMLE).

    Minervini, Franceschi and Niepert, AAAI 2023, whose own step is norm="batch": θ′ = θ − p g̃ with p = β ‖θ‖ / ‖g̃‖.
    After each step, with nnz the mean number of non-zero entries of a sample's difference of answers over all its
    backward passes: n ← decay · n + (1 − decay) · nnz, and β ← max(β + δ, 0) with δ = momentum · δ_previous + step if
    n < target, else − step. The state lives in buffers. A backward pass only records, and the next training forward
    pass updates: so a step's β is always the one that its forward pass saw. `state_dict` has what that pass would find,
    and changes nothing. Nor do passes in eval mode, and those that a checkpoint repeats. The buffers stay in float32 at
    least, whatever dtype the model is cast to: in bfloat16, 1 + step is 1.

    Within DistributedDataParallel nnz is the mean over the rows of all ranks, none included, so that β is the same on
    all, and that of one rank with the whole batch, bit for bit; with norm="batch", whose step needs the norms of a
    batch, each rank takes those of its own rows. All ranks must then call the layer equally often in a step. Under
    `no_sync` the first forward pass of a step updates, and counts all passes of the one before. A call outside of its
    forward pass, for a log say, doesn't update, and what it records counts in the next step. Under `join`, where
    ranks may have no more batches, and wherever DistributedDataParallel isn't used, no rank waits for another, and each
    takes in its own records: under `join` the highest rank that still has batches hands its β to the others as each
    forward pass begins (`broadcast_buffers`, by default), and another's is at most 2 · step from it; else each adapts
    by itself. With several ranks `state_dict` also has what this rank recorded, for all to go on bit for bit if each
    saves and loads its own.

    Args:
        initial: β at the start.
        step: Change of β per update.
        momentum: Share of the last change that is repeated.
        decay: Share of the running mean of nnz that is kept.
        target: Wanted nnz.
        norm: "instance" takes the scale and direction of `RelativeStep`, row by row; "batch" the norms of θ and g̃ over
            the whole batch, as published, which neither noise nor what the problem can't see enters; of the rows with
            different problems, over those that share one, as these are solved together.

    Raises:
        TypeError: an argument that must be a number isn't one.
        ValueError: an argument is out of range.
    """

    adaptive = True
    beta: Tensor
    nonzeros: Tensor
    change: Tensor

    def __init__(
        self,
        initial: float = 1.0,
        step: float = 1e-3,
        momentum: float = 0.0,
        decay: float = 0.9,
        target: float = 1.0,
        norm: Literal["instance", "batch"] = "instance",
    ) -> None:
        super().__init__()
        if not 0 <= number("decay", decay) < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if norm not in ("instance", "batch"):
            raise ValueError(f'norm must be "instance" or "batch", got {norm!r}')
        self.step = positive("step", step)
        self.target = positive("target", target)
        self.momentum = finite("momentum", momentum)
        self.decay = number("decay", decay)
        self.norm = norm
        beta = torch.tensor(non_negative("initial", initial), dtype=torch.float32)
        if not beta.isfinite():
            raise ValueError(f"initial must be within the range of float32, got {initial}")
        self.register_buffer("beta", beta)
        self.register_buffer("nonzeros", torch.tensor(1.0))
        self.register_buffer("change", torch.tensor(0.0))
        self._recorded: list[tuple[Tensor, int]] = []
        self._accumulation = Accumulation()

    @property
    def is_rowwise(self) -> bool:
        """Whether both norms are."""
        return self.norm == "instance"

    @property
    def advice(self) -> str:
        """To let β grow."""
        return (
            f"β, {float(self.beta):g} now, is too small to change their answers. Take a larger initial, a larger step "
            f"than {self.step:g}, by which it grows faster, or a larger target than {self.target:g}"
        )

    def _step(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        beta = self.beta if context.state is None else context.state
        if self.norm == "instance":
            return relative_step(theta, gradient, beta, context)
        return _published_step(theta, gradient, beta)

    @property
    def state(self) -> Tensor:
        """β."""
        return self.beta

    def advance(self) -> Tensor:
        """Take in the recorded differences, those of all ranks, where a step begins; return β."""
        count = self._accumulation.taken_in(len(self._recorded))
        if count is not None:
            updated = self._updated(*summed(*self._totals(count)))
            for buffer, value in zip((self.beta, self.nonzeros, self.change), updated, strict=True):
                buffer.copy_(value)
            del self._recorded[:count]
        return self.beta

    def record(self, difference: Tensor) -> None:
        """Note how many entries of [S, B, *shape] aren't zero."""
        self._recorded.append((difference.count_nonzero(), difference.shape[:2].numel()))

    @property
    def stats(self) -> dict[str, float]:
        """β, as the coming step uses it; with several ranks, whose records aren't known yet, as the last one did."""
        beta, *_ = self._updated(*self._totals()) if is_alone() else (self.beta,)
        return {"beta": float(beta)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptiveStep:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self._widen(before)
        return self

    def _widen(self, before: dict[str, Tensor | None]) -> None:
        """Give buffers of a dtype below float32 the values, and the dtype, that they had before."""
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype.itemsize < torch.float32.itemsize:
                self._buffers[name] = old.to(new.device)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        entries, rows = self._totals()
        if not is_alone():
            destination[f"{prefix}{_RECORDED}"] = torch.stack([entries, torch.full_like(entries, rows)])
        elif rows:
            names = (f"{prefix}{name}" for name in self._buffers)
            destination.update(zip(names, self._updated(entries, rows), strict=True))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any, **keywords: Any) -> None:
        saved = {name: state_dict[f"{prefix}{name}"] for name in _SAVED if f"{prefix}{name}" in state_dict}
        refused = [
            _refused(f"{prefix}{name}", name, value) for name, value in saved.items() if not _may_be(name, value)
        ]
        if refused:
            arguments[-1].extend(refused)  # of which load_state_dict makes an error
            return
        recorded = state_dict.pop(f"{prefix}{_RECORDED}", None)
        if saved:
            self._recorded = [] if recorded is None else [(recorded[0], int(recorded[1]))]
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        self._widen({name: None if each is None else each.float() for name, each in self._buffers.items()})

    def _totals(self, count: int | None = None) -> tuple[Tensor, int]:
        """Return the sums of this rank's first records, of all for None: entries that aren't 0, int64 [], and rows."""
        recorded = self._recorded[:count]
        entries = torch.zeros((), dtype=torch.int64, device=self.beta.device)
        for each, _ in recorded:
            entries += each.to(entries)
        return entries, sum(rows for _, rows in recorded)

    def _updated(self, entries: Tensor, rows: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return beta, nonzeros and change with what was recorded taken in; rows are a tensor where ranks share."""
        before = self.beta, self.nonzeros, self.change
        if isinstance(rows, int) and rows == 0:
            return before
        recorded = (entries.double() / rows).to(self.nonzeros)
        nonzeros = self.nonzeros.mul(self.decay).add(recorded, alpha=1 - self.decay)
        sign = torch.where(nonzeros < self.target, 1.0, -1.0)
        change = self.change.mul(self.momentum).add(sign, alpha=self.step)
        after = self.beta.add(change).clamp(min=0), nonzeros, change
        if isinstance(rows, int):
            return after
        beta, nonzeros, change = (torch.where(rows > 0, new, old) for new, old in zip(after, before, strict=True))
        return beta, nonzeros, change

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"step={self.step}, momentum={self.momentum}, decay={self.decay}, target={self.target}, norm={self.norm!r}"
        )


def _may_be(name: str, value: object) -> bool:
    """Tell whether a saved value, a user's file's, is one that there can be."""
    if not is_readable(value):
        return False
    if name == _RECORDED:  # no entries without rows
        return value.dtype == torch.int64 and value.shape == (2,) and bool((value >= (value[0] > 0)).all())
    if value.shape not in ((), (1,)):
        return False
    size = float(value.float())
    return math.isfinite(size) and (size >= 0 or name == "change")


def _refused(key: str, name: str, value: object) -> str:
    return (
        f"{key}: a saved AdaptiveStep has {_SAVED[name]} there, got {text_of_saved(value)}: is the file damaged, or "
        f"another module's?"
    )


def _published_step(theta: Tensor, gradient: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return (p g̃, p) with p = β ‖θ‖ / ‖g̃‖ over the batch; ‖θ‖ = 1 where θ is 0, and −inf counts in no norm."""
    dims = tuple(range(1, theta.ndim))
    theta_peak, size = _norm(theta.masked_fill(theta.isneginf(), 0.0), dims)
    peak, slope = _norm(gradient, dims)
    # so far below the largest number, a step can't carry an entry beyond it
    most = torch.finfo(theta.dtype).max * 2.0**-64
    length = (beta * theta_peak.double() * size).clamp(max=most) / slope
    divisor = length / peak.double()
    return gradient / peak * length.to(gradient.dtype), divisor.masked_fill(length == 0, 1.0)


def _norm(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the largest size of an entry over some dimensions, and the norm in units of it, float64; 1 for zeros."""
    if values.numel() == 0:
        one = values.new_ones([1 if dim in dims else size for dim, size in enumerate(values.shape)])
        return one, one.double()
    largest = values.abs().amax(dim=dims, keepdim=True)
    norm = (values / largest).double().square().sum(dim=dims, keepdim=True).sqrt()
    is_zero = largest == 0
    return largest.masked_fill(is_zero, 1.0), norm.masked_fill(is_zero, 1.0)
