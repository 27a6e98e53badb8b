"""Target distributions: where I-MLE's backward pass looks for a better state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Target(nn.Module, ABC):
    """Maps θ and the loss's gradient to the target's parameters θ′ and the divisor of the scaled gradient.

    A target that adapts sets `adaptive`, has a `state`, learns from `record`, and changes by `advance`.
    """

    adaptive: bool = False

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's θ′ depends on that row alone, so that a batch may be handled in parts."""
        return False

    @abstractmethod
    def forward(
        self, theta: Tensor, gradient: Tensor, *, event_ndim: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, divisor).

        Args:
            theta: [1, *batch, *shape], utilities.
            gradient: [S or 1, *batch, *shape], g̃ = S · ∂L/∂z_s, or its negative for the other side of a central step.
            event_ndim: Number of dimensions of `shape`.
            state: [], that of the step or, in a pass that belongs to none, as it stood in the forward pass.

        Returns:
            θ′ [S or 1, *batch, *shape], a fresh tensor, and a divisor that broadcasts against it.
        """

    @property
    def state(self) -> Tensor:
        """The state as it stands, []; passes that belong to no training step use it and change nothing."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def advance(self) -> Tensor:
        """Take in what was recorded since the last call, and return the state of the step that begins."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def record(self, difference: Tensor) -> None:
        """Note a difference of answers [S, B, *shape], perhaps one of several; nothing changes before `advance`."""

    @property
    def stats(self) -> dict[str, float]:
        """What `MAPLayer.stats` shows of the target, as of the coming step; reading changes nothing."""
        return {}


class Step(Target):
    """θ′ = αθ − λg̃ (Niepert, Minervini and Franceschi, NeurIPS 2021, eq. 10).

    Args:
        lam: λ, in units of θ per unit of ∂L/∂z. A loss that is a mean over the batch divides what it does by the batch
            size.
        alpha: α. The scaled gradient approximates the loss's only for α = 1.
    """

    def __init__(self, lam: float, alpha: float = 1.0) -> None:
        super().__init__()
        self.lam = _positive("lam", lam)
        self.alpha = float(alpha)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def forward(
        self, theta: Tensor, gradient: Tensor, *, event_ndim: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """Return (αθ − λg̃, λ)."""
        goal = theta if self.alpha == 1 else self.alpha * theta
        return torch.sub(goal, gradient, alpha=self.lam), self.lam

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lam={self.lam}, alpha={self.alpha}"


class RelativeStep(Target):
    """θ′ = θ − p g̃ with p = λ ‖θ_b‖ / ‖g̃_b‖ for each row b, so that neither the loss's nor θ's scale matters.

    A row with θ = 0 is stepped as if ‖θ‖ were 1, so that a head initialised with zeros learns.

    Args:
        lam: λ, the length of the step relative to ‖θ_b‖.
    """

    def __init__(self, lam: float = 1.0) -> None:
        super().__init__()
        self.lam = _positive("lam", lam)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def forward(
        self, theta: Tensor, gradient: Tensor, *, event_ndim: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (θ − p g̃, p)."""
        return _relative_step(theta, gradient, self.lam, tuple(range(-event_ndim, 0)))

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lam={self.lam}"


class Combinatorial(Target):
    """θ′_i = θ_i where g̃_i = 0, else −g̃_i (Niepert, Minervini and Franceschi, NeurIPS 2021, eq. 14).

    For losses whose gradient says which coordinates should be in the state: with the Hamming loss z + z* − 2zz* and no
    noise it is the structured perceptron, with the regret ⟨c, z⟩ it moves the target to θ′ = −c. Its gradient isn't
    divided by anything.
    """

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def forward(
        self, theta: Tensor, gradient: Tensor, *, event_ndim: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, 1)."""
        return torch.where(gradient == 0, theta, -gradient), 1.0


class AdaptiveStep(Target):
    """θ′ = θ − p g̃ with p = β ‖θ‖ / ‖g̃‖, where β makes a wanted number of entries move (AIMLE).

    Minervini, Franceschi and Niepert, AAAI 2023. After each step, with nnz the mean number of non-zero entries of a
    sample's difference of answers over all its backward passes: n ← decay · n + (1 − decay) · nnz, and
    β ← max(β + δ, 0) with δ = momentum · δ_previous + step if n < target, else − step. The state lives in buffers. A
    backward pass only records, and the next training forward pass (or `state_dict`) updates: so a step's β is always
    the one that its forward pass saw. Passes in eval mode, and those that a checkpoint repeats, change nothing.

    With several ranks no call of its own waits for the others, so that they may have different numbers of batches.
    DistributedDataParallel hands rank 0's buffers to all ranks as a forward pass begins (`broadcast_buffers`, its
    default), and each rank takes in what it recorded itself after that: rank 0's records alone decide where β goes, and
    another rank's β is at most 2 · step from rank 0's in any step. Without these broadcasts each rank adapts by itself.

    Args:
        initial: β at the start.
        step: Change of β per update.
        momentum: Share of the last change that is repeated.
        decay: Share of the running mean of nnz that is kept.
        target: Wanted nnz.
        norm: "instance" takes both norms row by row, "batch" over the whole batch, as published; of the rows with
            different problems, over those that share one, as these are solved together.
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
        if initial < 0:
            raise ValueError(f"initial must be at least 0, got {initial}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if norm not in ("instance", "batch"):
            raise ValueError(f'norm must be "instance" or "batch", got {norm!r}')
        self.step = _positive("step", step)
        self.target = _positive("target", target)
        self.momentum = float(momentum)
        self.decay = float(decay)
        self.norm = norm
        self.register_buffer("beta", torch.tensor(float(initial)))
        self.register_buffer("nonzeros", torch.tensor(1.0))
        self.register_buffer("change", torch.tensor(0.0))
        self._recorded: list[tuple[Tensor, int]] = []

    @property
    def is_rowwise(self) -> bool:
        """Whether both norms are."""
        return self.norm == "instance"

    def forward(
        self, theta: Tensor, gradient: Tensor, *, event_ndim: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (θ − p g̃, p)."""
        dims = tuple(range(-event_ndim, 0)) if self.norm == "instance" else tuple(range(1, theta.ndim))
        return _relative_step(theta, gradient, self.beta if state is None else state, dims)

    @property
    def state(self) -> Tensor:
        """β."""
        return self.beta

    def advance(self) -> Tensor:
        """Take in the recorded differences, and return β."""
        self._update()
        return self.beta

    def record(self, difference: Tensor) -> None:
        """Note how many entries of [S, B, *shape] aren't zero."""
        self._recorded.append((difference.count_nonzero(), difference.shape[:2].numel()))

    @property
    def stats(self) -> dict[str, float]:
        """β, as the coming step uses it."""
        beta, *_ = self._updated()
        return {"beta": float(beta)}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._update()
        super()._save_to_state_dict(destination, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)

    def _load_from_state_dict(self, *arguments: Any, **keywords: Any) -> None:
        self._recorded.clear()
        super()._load_from_state_dict(*arguments, **keywords)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)

    def _update(self) -> None:
        for buffer, value in zip((self.beta, self.nonzeros, self.change), self._updated(), strict=True):
            buffer.copy_(value)
        self._recorded.clear()

    def _updated(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return beta, nonzeros and change with what was recorded taken in."""
        rows = sum(rows for _, rows in self._recorded)
        if rows == 0:
            return self.beta, self.nonzeros, self.change
        recorded = sum(entries.to(self.beta) for entries, _ in self._recorded) / rows
        nonzeros = self.nonzeros.mul(self.decay).add(recorded, alpha=1 - self.decay)
        sign = torch.where(nonzeros < self.target, 1.0, -1.0)
        change = self.change.mul(self.momentum).add(sign, alpha=self.step)
        return self.beta.add(change).clamp(min=0), nonzeros, change

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"step={self.step}, momentum={self.momentum}, decay={self.decay}, target={self.target}, norm={self.norm!r}"
        )


def _relative_step(
    theta: Tensor, gradient: Tensor, factor: float | Tensor, dims: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    size, slope = _norm(theta, dims), _norm(gradient, dims)
    step = factor * torch.where(size == 0, 1.0, size) / torch.where(slope == 0, 1.0, slope)
    return theta - step * gradient, torch.where(step == 0, 1.0, step)


def _norm(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the Euclidean norm over some dimensions, without under- or overflow of the squares."""
    if values.numel() == 0:
        return values.sum(dim=dims, keepdim=True)
    largest = values.abs().amax(dim=dims, keepdim=True)
    largest = torch.where(largest == 0, 1.0, largest)
    return largest * (values / largest).square().sum(dim=dims, keepdim=True).sqrt()


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return float(value)
