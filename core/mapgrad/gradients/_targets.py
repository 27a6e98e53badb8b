"""Target distributions: where I-MLE's backward pass looks for a better state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mapgrad.gradients._arguments import finite, non_negative, positive
from mapgrad.gradients._scale import relative_step

if TYPE_CHECKING:
    from mapgrad.gradients._context import Context


class Target(nn.Module, ABC):
    """Maps θ and the loss's gradient to the target's parameters θ′ and the divisor of the scaled gradient.

    A subclass gives `forward`. One that adapts sets `adaptive`, has a `state`, learns from `record`, and changes by
    `advance`.
    """

    adaptive: bool = False

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's θ′ depends on that row alone, so that a batch may be handled in parts."""
        return False

    @property
    def advice(self) -> str:
        """What to do where most steps change no answer, to end a warning."""
        return "the steps change no answer; take a target whose steps are longer"

    @abstractmethod
    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, divisor).

        Args:
            theta: [1, *batch, *shape], utilities; not written to. −inf stays −inf.
            gradient: [S or 1, *batch, *shape], g̃ = S · ∂L/∂z_s, or its negative for the other side of a central step;
                not written to.
            context: What else is known of the pass.

        Returns:
            θ′ [S or 1, *batch, *shape], a fresh tensor, and a divisor that broadcasts against it: in float64, it may
            lie beyond the range of θ's dtype.
        """

    @property
    def state(self) -> Tensor:
        """The state as it stands, []; passes that belong to no training step use it and change nothing."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def both_sides(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return (θ′, θ′ for −g̃, divisor), for a central step.

        A subclass may override it where one computation gives both. The arguments are those of `forward`.
        """
        toward, divisor = self.forward(theta, gradient, context)
        away, _ = self.forward(theta, -gradient, context)
        return toward, away, divisor

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

    Raises:
        ValueError: `lam` isn't positive and finite, or `alpha` isn't finite.
    """

    def __init__(self, lam: float, alpha: float = 1.0) -> None:
        super().__init__()
        self.lam = positive("lam", lam)
        self.alpha = finite("alpha", alpha)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take a relative step, or a larger λ."""
        return (
            f"the step is too short to change their answers. Take target=RelativeStep(1.0), whose step fits θ whatever "
            f"the loss's scale, or a larger λ than {self.lam:g} (a loss that is a mean over the batch divides a fixed "
            f"step by the batch size)"
        )

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (αθ − λg̃, λ)."""
        goal = theta if self.alpha == 1 else self.alpha * theta
        return torch.sub(goal, gradient, alpha=self.lam), self.lam

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lam={self.lam}, alpha={self.alpha}"


class _Stepping(Target):
    """A target whose two sides lie one and the same step away from θ."""

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return (θ less the step, the factor of g̃ that this is)."""
        step, divisor = self._step(theta, gradient, context)
        return theta - step, divisor

    def both_sides(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return (θ less the step, θ plus the step, the factor of g̃ that this is)."""
        step, divisor = self._step(theta, gradient, context)
        return theta - step, theta + step, divisor

    @abstractmethod
    def _step(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the step [S or 1, *batch, *shape], and the factor of g̃ that it is, as a divisor of `forward`."""


class RelativeStep(_Stepping):
    """θ′ = θ − λ · scale · d for each row: a direction d of unit size along g̃, and a scale of θ and its noise.

    The scale is √(mean square of θ's distance from the boundary between in and out + τ² Var ε), so that the step fits θ
    where it is large, and the noise where θ is small or 0. Neither scale nor direction depends, for each row,

    - on the size of g̃, be it the loss's scale or a mean over the batch;
    - on what the problem can't see: a constant added to θ or g̃ along `Problem.constant_sums`. The boundary is the
      middle between the K-th and the K + 1-th largest entry, where states have K ones; for a square assignment, the
      same with K = 1 for rows and columns, about; 0 where no sum is constant;
    - on entries far from the boundary (masks at −1e9, or −inf), up to some 60 % of them: past 12 typical distances
      (the .3-quantile, plus τ times the noise's standard deviation) they take no part, and get no step.

    d is g̃ less its mean along `Problem.constant_sums`, with less weight on far entries; its root mean square is 1, or
    less where single entries stick out. The scaled gradient is divided by the factor of g̃ that this comes to.

    A relative step doesn't shrink when g̃ does. Where a loss isn't linear in z, it therefore steps past a nearby
    optimum as far as towards a distant one, and training may stall: take `Step` there.

    Args:
        lam: λ, the length of the step relative to the scale; None for 0.5 in passes with noise, and 1 in others, where
            a shorter step changes too few answers. With noise and both sides, 1 leaves fewer single rows without a
            gradient and is more biased: for one-hot z of 8 entries, 1 to 8 % of the rows instead of 22 to 38 %, and a
            cosine of the mean gradient of .91 instead of .98 (``python tests/benchmarks/bench_gradients.py``).

    Raises:
        ValueError: `lam` isn't positive and finite.
    """

    def __init__(self, lam: float | None = None) -> None:
        super().__init__()
        self.lam = None if lam is None else positive("lam", lam)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take a larger λ."""
        taken = "the default, 0.5 with noise and 1 without," if self.lam is None else f"{self.lam:g}"
        return f"the step is too short to change their answers. Take a larger λ than {taken}, or more noise"

    def _step(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        lam = self.lam
        if lam is None:
            is_certain = isinstance(context.noise_std, float) and not context.noise_std
            lam = 1.0 if is_certain else 0.5
        return relative_step(theta, gradient, lam, context)

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

    @property
    def advice(self) -> str:
        """To look at the loss's gradient."""
        return (
            "the loss's gradient already names the answers as the best ones. Take a loss whose gradient doesn't depend "
            "on them, or another target"
        )

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, 1)."""
        return torch.where(gradient == 0, theta, -gradient), 1.0


class AdaptiveStep(_Stepping):
    """The step of `RelativeStep` with β for λ, where β makes a wanted number of entries move (AIMLE).

    Minervini, Franceschi and Niepert, AAAI 2023, whose own step is norm="batch": θ′ = θ − p g̃ with p = β ‖θ‖ / ‖g̃‖.
    After each step, with nnz the mean number of non-zero entries of a sample's difference of answers over all its
    backward passes: n ← decay · n + (1 − decay) · nnz, and β ← max(β + δ, 0) with δ = momentum · δ_previous + step if
    n < target, else − step. The state lives in buffers. A backward pass only records, and the next training forward
    pass (or `state_dict`) updates: so a step's β is always the one that its forward pass saw. Passes in eval mode, and
    those that a checkpoint repeats, change nothing.

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
        norm: "instance" takes the scale and direction of `RelativeStep`, row by row; "batch" the norms of θ and g̃ over
            the whole batch, as published, which neither noise nor what the problem can't see enters; of the rows with
            different problems, over those that share one, as these are solved together.

    Raises:
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
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if norm not in ("instance", "batch"):
            raise ValueError(f'norm must be "instance" or "batch", got {norm!r}')
        self.step = positive("step", step)
        self.target = positive("target", target)
        self.momentum = finite("momentum", momentum)
        self.decay = float(decay)
        self.norm = norm
        self.register_buffer("beta", torch.tensor(non_negative("initial", initial)))
        self.register_buffer("nonzeros", torch.tensor(1.0))
        self.register_buffer("change", torch.tensor(0.0))
        self._recorded: list[tuple[Tensor, int]] = []

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


def _published_step(theta: Tensor, gradient: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return (p g̃, p) with p = β ‖θ‖ / ‖g̃‖ over the batch; ‖θ‖ = 1 where θ is 0."""
    dims = tuple(range(1, theta.ndim))
    size, slope = _norm(theta, dims), _norm(gradient, dims)
    factor = beta * torch.where(size == 0, 1.0, size) / torch.where(slope == 0, 1.0, slope)
    return factor * gradient, torch.where(factor == 0, 1.0, factor)


def _norm(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the Euclidean norm over some dimensions, without under- or overflow of the squares."""
    if values.numel() == 0:
        return values.sum(dim=dims, keepdim=True)
    largest = values.abs().amax(dim=dims, keepdim=True)
    largest = torch.where(largest == 0, 1.0, largest)
    return largest * (values / largest).square().sum(dim=dims, keepdim=True).sqrt()
