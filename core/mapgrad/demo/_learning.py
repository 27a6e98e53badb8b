"""What the demo trains, on what, and how well it does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor, nn

from mapgrad.demo._terrain import CELL_PIXELS, CELLS, Crops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import mapgrad

_FLAT_SHADE: Final = 0.7
_SHADE_SPREAD: Final = 0.15
_WIDTH: Final = 32
_NEARLY: Final = 0.05
_WARM_UP: Final = 0.1
_FIRST_RATE: Final = 0.04
_FOLLOWED: Final = 0.005
"""Share of the way to the network that its average goes in a step."""


@dataclass(frozen=True)
class Schedule:
    """How a network is trained.

    Attributes:
        epochs: Passes over the data.
        batch: Crops a step.
        rate: Largest learning rate, reached after a tenth of the training; it then falls to nothing.
        decay: Decoupled weight decay, in units of the learning rate.
    """

    epochs: int
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.1


class Lessons(NamedTuple):
    """Crops and how an expert, who knows the costs, crosses them.

    Attributes:
        images: [N, 1, CROP_PIXELS, CROP_PIXELS] float32; see `Crops`.
        minutes: [N, CELLS, CELLS] float32; see `Crops`.
        routes: [N, CELLS, CELLS] float32: ones on the cells of the fastest route.
    """

    images: Tensor
    minutes: Tensor
    routes: Tensor

    @classmethod
    def of(cls, crops: Crops, expert: mapgrad.Solver, device: torch.device) -> Lessons:
        """Ask the expert for its routes, and move everything to a device."""
        images, minutes = crops.images.to(device), crops.minutes.to(device)
        return cls(images, minutes, expert(-minutes))


class CostNetwork(nn.Module):
    """A small CNN from pictures to the cells' costs.

    A route depends on the ratios of costs alone, so they are a softmax over the cells: positive, with mean one.
    """

    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, padding_mode="replicate")

        self.layers = nn.Sequential(
            conv(1, _WIDTH // 2, stride=2, size=5),
            nn.ReLU(),
            conv(_WIDTH // 2, _WIDTH, stride=CELL_PIXELS // 2),
            nn.ReLU(),
            conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return relative costs [B, CELLS, CELLS] for images [B, 1, CROP_PIXELS, CROP_PIXELS]."""
        logits = self.layers((images - _FLAT_SHADE) / _SHADE_SPREAD)
        return CELLS**2 * logits.flatten(1).softmax(dim=1).unflatten(1, (CELLS, CELLS))

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """How a set of routes compares with the expert's.

    Attributes:
        regret: [N], extra time over the expert's, as a share of it.
    """

    regret: Tensor

    @classmethod
    def of(cls, routes: Tensor, lessons: Lessons) -> Score:
        """Judge routes [N, CELLS, CELLS]."""
        minutes = lessons.minutes.double()
        best, taken = ((minutes * each.double()).sum((1, 2)) for each in (lessons.routes, routes))
        return cls((taken / best - 1).cpu())

    @property
    def mean_regret(self) -> float:
        """Mean extra time, as a share of the expert's."""
        return float(self.regret.mean())

    @property
    def optimal(self) -> float:
        """Share of routes as fast as the expert's."""
        return float((self.regret < 1e-6).double().mean())

    @property
    def nearly_optimal(self) -> float:
        """Share of routes at most 5 % slower than the expert's."""
        return float((self.regret < _NEARLY).double().mean())


def straight_routes(like: Tensor) -> Tensor:
    """Return the diagonal from start to goal for each row of a tensor [N, CELLS, CELLS]."""
    return torch.eye(CELLS, dtype=like.dtype, device=like.device).expand_as(like)


def plan(network: CostNetwork, layer: mapgrad.MAPLayer, images: Tensor) -> Tensor:
    """Return the routes [N, CELLS, CELLS] that a network's costs lead to."""
    training = layer.training
    layer.eval()
    with torch.no_grad():
        routes = layer(network(images))
    layer.train(training)
    return routes


def route_loss(network: CostNetwork, layer: mapgrad.MAPLayer, lessons: Lessons) -> Tensor:
    """Return the mean number of cells by which the routes differ from the expert's: the costs stay hidden.

    For 0/1 vectors the squared distance is the Hamming distance, and its gradient vanishes where a route is right.
    """
    return (layer(network(lessons.images)) - lessons.routes).square().sum((1, 2)).mean()


def cost_loss(network: CostNetwork, lessons: Lessons) -> Tensor:
    """Return the mean squared error of the logarithms of relative costs: regression, which needs the true costs."""
    relative = lessons.minutes / lessons.minutes.mean((1, 2), keepdim=True)
    return (network(lessons.images).log() - relative.log()).square().mean()


def train(
    network: CostNetwork,
    average: CostNetwork,
    lessons: Lessons,
    loss: Callable[[Lessons], Tensor],
    schedule: Schedule,
    generator: torch.Generator,
    on_step: Callable[[], None],
) -> Iterator[float]:
    """Train a network, and yield the mean loss of each epoch as it ends.

    Args:
        network: Its parameters are trained.
        average: A copy of it, which becomes a moving average over some 200 steps: its routes change less from step to
            step.
        lessons: What it learns from.
        loss: Maps a batch of lessons to a scalar.
        schedule: How.
        generator: Draws the order of the crops.
        on_step: Called after each step.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.decay, fused=True)
    total_steps = schedule.epochs * num_steps(len(lessons.images), schedule)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / total_steps))
    for _ in range(schedule.epochs):
        total = 0.0
        order = torch.randperm(len(lessons.images), generator=generator).to(lessons.images.device)
        for first in range(0, len(order), schedule.batch):
            chosen = order[first : first + schedule.batch]
            value = loss(Lessons(*(part[chosen] for part in lessons)))
            optimizer.zero_grad()
            value.backward()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
            optimizer.step()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
            with torch.no_grad():
                for followed, parameter in zip(average.parameters(), network.parameters(), strict=True):
                    followed.lerp_(parameter, _FOLLOWED)
            rates.step()
            total += float(value.detach()) * len(chosen)
            on_step()
        yield total / len(lessons.images)


def _rate(done: float) -> float:
    """Return the learning rate at a share of the training, as a share of the largest: a short rise, then a cosine."""
    return min(_FIRST_RATE + done / _WARM_UP, (1 + math.cos(math.pi * done)) / 2)


def num_steps(count: int, schedule: Schedule) -> int:
    """Return the steps of an epoch over `count` crops."""
    return -(-count // schedule.batch)
