"""What a network's time hides of a solver's, and what two threads get of this machine."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from mapgrad.batching import get_solver
from mapgrad.bench._clock import interleave, seconds_of
from mapgrad.bench._machine import QUIET, idle_share
from mapgrad.bench._report import Row, Spread
from mapgrad.errors import MapgradError
from mapgrad.gradients import IMLE
from mapgrad.layer import MAPLayer
from mapgrad.pipelining import pipelined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from mapgrad.bench._cases import Case
    from mapgrad.bench._clock import Effort, Times

_FEATURES: Final = 64
_WIDTH: Final = 256
_MICRO_BATCHES: Final = 8
_SECONDS: Final = 0.02
"""What a micro-batch's forward solves take."""

_BLOCKS: Final = 64


def two_busy_threads(effort: Effort) -> Iterator[Row]:
    """Yield what two threads save that do the same work as one, and never wait for each other."""
    block = bytes(2**20)

    def work(blocks: int) -> None:
        for _ in range(blocks):
            hashlib.sha256(block).digest()  # releases the GIL

    with ThreadPoolExecutor(2) as pool:
        times = interleave(
            {"one": partial(work, _BLOCKS), "two": lambda: [*pool.map(work, [_BLOCKS // 2] * 2)]}, effort
        )
    yield compared("two busy threads", "SHA-256", {}, times, _BLOCKS, "block of a MiB", "one thread", idle_share())


def measure(case: Case, solver: str, effort: Effort) -> Iterator[Row]:
    """Yield a row for evaluation and one for training: a pipelined pass through micro-batches against a plain loop.

    The network takes as long as the forward solves, so that half of an evaluation could be hidden, and less of a
    training step, whose backward solves follow each other.
    """
    name = f"overlap, {case.name}"
    try:
        with get_solver(solver, case.make()) as made:
            for is_training in (False, True):
                yield _measure(name, MAPLayer(made, IMLE(), minimize=case.minimize, seed=0), case, is_training, effort)
    except MapgradError as error:
        yield Row(name, solver, note=str(error), judged=False)


def _measure(name: str, layer: MAPLayer, case: Case, is_training: bool, effort: Effort) -> Row:
    layer.train(is_training)
    theta = case.theta(4)
    layer(theta)  # builds the model
    pace = seconds_of(partial(layer, theta))[1] / len(theta)
    count = 4 if effort.is_quick else max(4, min(1024, round(_SECONDS / pace)))
    seconds = seconds_of(partial(layer, case.theta(count)))[1]
    network = _network(case, count, seconds)
    features = torch.randn(_MICRO_BATCHES, count, _FEATURES, generator=torch.Generator().manual_seed(0))
    inputs = [*features]

    def passed(pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        with torch.set_grad_enabled(is_training):
            for _, z in pairs():
                if is_training:
                    torch.autograd.backward(z.square().sum())

    times = interleave(
        {
            "one": partial(passed, lambda: ((x, layer(network(x))) for x in inputs)),
            "two": partial(passed, lambda: pipelined(network, layer, inputs)),
        },
        effort,
    )
    size = {"B": count, "n": theta[0].numel()}
    name = f"{name}, {'training' if is_training else 'evaluation'}"
    return compared(name, layer.solver.name, size, times, len(inputs) * count, "a row", "a plain loop", idle_share())


def _network(case: Case, count: int, seconds: float) -> nn.Module:
    """Return a network to θ that takes so long for some rows."""
    problem = case.make()
    size = math.prod(problem.shape)

    def of_depth(depth: int) -> nn.Module:
        hidden = [layer for _ in range(depth) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.ReLU())]
        ends = nn.Linear(_WIDTH, size), nn.Softplus(), nn.Unflatten(1, tuple(problem.shape))
        return nn.Sequential(nn.Linear(_FEATURES, _WIDTH), nn.ReLU(), *hidden, *ends)

    x = torch.zeros(count, _FEATURES)
    few, many = (min(seconds_of(partial(of_depth(depth), x))[1] for _ in range(3)) for depth in (0, 8))
    return of_depth(max(0, round((seconds - few) / max((many - few) / 8, 1e-6))))


def compared(
    case: str,
    name: str,
    size: dict[str, int],
    times: dict[str, Times],
    count: int,
    unit: str,
    against: str,
    share: float,
) -> Row:
    """Return the row of "two" beside "one".

    Args:
        case: The case.
        name: What is measured.
        size: Its sizes.
        times: Of both.
        count: How many units one call has.
        unit: What one of them is.
        against: What "one" is.
        share: What two busy threads got of two cores, before or after.
    """
    wall = Spread.of_ratios(times["two"].wall, times["one"].wall)
    quiet = share >= QUIET
    return Row(
        case,
        name,
        size,
        value=Spread.of(times["two"].wall).times(1e6 / count),
        unit=f"µs {unit}, wall",
        ratio=wall,
        against=f"{against}, wall",
        extra={
            "speed-up": 1 / wall.median,
            "one, µs CPU": _micros(times["one"], count),
            "two, µs CPU": _micros(times["two"], count),
        },
        note="" if quiet else f"not quiet: two busy threads got {share:.0%} of two cores",
        judged=quiet,
    )


def _micros(times: Times, count: int) -> float:
    return Spread.of(times.cpu).median / count * 1e6
