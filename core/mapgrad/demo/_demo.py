"""The demo's run, from the land to the picture."""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import mapgrad
from mapgrad.demo import _learning as learning
from mapgrad.demo import _terrain as terrain
from mapgrad.demo._plot import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from torch import Tensor

    from mapgrad.demo._estimators import EstimatorName


@dataclass(frozen=True)
class Sizes:
    """How much the demo computes.

    Attributes:
        crops: Crops to train on.
        stride: Pixels between the crops of the validation and of the test set.
        batch: Crops a step.
    """

    crops: int = 8000
    stride: int = 4
    batch: int = 32


SIZES = Sizes()


@dataclass(frozen=True)
class Data:
    """Lessons of the three splits."""

    train: learning.Lessons
    validation: learning.Lessons
    test: learning.Lessons


def run(solver: str, estimator: EstimatorName, *, seed: int, epochs: int, device: torch.device, output: Path) -> None:
    """Train a network on routes and another one on costs, print how well they do, and draw a picture.

    Args:
        solver: Name of the solver that finds the routes.
        estimator: The gradient that passes through it.
        seed: Draws crops, noise and the networks' first weights.
        epochs: Passes over the training crops.
        device: Where the networks run.
        output: The picture to write.
    """
    console = Console()
    problem = mapgrad.GridShortestPath(terrain.CELLS, terrain.CELLS)
    with _one_thread(), mapgrad.get_solver(solver, problem) as planner, _progress(console) as progress:
        started = perf_counter()
        land = terrain.load_terrain()
        data = _data(land, planner, seed, device, progress)
        layer = mapgrad.MAPLayer(planner, estimator.make(problem, SIZES.batch), minimize=True, seed=seed)
        console.print(Text(f"Learning from routes with {estimator.label} through {planner.name}"))
        network = _network(seed, device)
        before = learning.plan(network, layer, data.test.images)
        network, history = _learn_routes(network, layer, data, _schedule(epochs), seed, progress)
        regressor = _learn_costs(_network(seed, device), data, _schedule(epochs), seed, progress)
        learnt = learning.plan(network, layer, data.test.images)
        routes = {
            "straight line, picture ignored": learning.straight_routes(learnt),
            "network before training": before,
            f"trained on routes: {estimator.label}": learnt,
            "trained on costs: two-stage": learning.plan(regressor, layer, data.test.images),
        }
    console.print(_table({name: learning.Score.of(taken, data.test) for name, taken in routes.items()}))
    with torch.no_grad():
        costs = network(data.test.images)
    draw(output, land, SIZES.stride, data.test, costs, learnt, history, estimator.label)
    solves, seconds = planner.stats["solves"], perf_counter() - started
    console.print(Text(f"{planner.name} solved {solves:,.0f} problems; {seconds:.0f} s in all. Picture: {output}"))


@contextmanager
def _one_thread() -> Generator[None]:
    """Keep torch to one thread: steps this small gain nothing from a second, and results don't depend on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _schedule(epochs: int) -> learning.Schedule:
    return learning.Schedule(epochs, batch=SIZES.batch)


def _network(seed: int, device: torch.device) -> learning.CostNetwork:
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        network = learning.CostNetwork().to(device)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (missing in torch's stubs)
        return network


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _data(land: terrain.Terrain, expert: mapgrad.Solver, seed: int, device: torch.device, progress: Progress) -> Data:
    generator = np.random.default_rng(seed)
    crops = {
        "train": terrain.random_crops(land.rows(terrain.TRAIN), SIZES.crops, generator),
        "validation": terrain.regular_crops(land.rows(terrain.VALIDATION), SIZES.stride, generator),
        "test": terrain.regular_crops(land.rows(terrain.TEST), SIZES.stride, generator),
    }
    lessons: dict[str, learning.Lessons] = {}
    for name in progress.track(crops, description="Asking the expert for routes"):
        lessons[name] = learning.Lessons.of(crops[name], expert, device)
    counts = ", ".join(f"{len(part.images):,} {name}" for name, part in lessons.items())
    progress.console.print(Text(f"Crops, no pixel in two splits: {counts}"))
    return Data(**lessons)


def _learn_routes(
    network: learning.CostNetwork,
    layer: mapgrad.MAPLayer,
    data: Data,
    schedule: learning.Schedule,
    seed: int,
    progress: Progress,
) -> tuple[learning.CostNetwork, list[learning.Score]]:
    """Train on routes and tell how each epoch went.

    Returns:
        The averaged network of the epoch with the least regret on the validation crops; and these crops' scores, before
        training and after each epoch.
    """
    average = deepcopy(network)

    def validate() -> learning.Score:
        return learning.Score.of(learning.plan(average, layer, data.validation.images), data.validation)

    def loss(lessons: learning.Lessons) -> Tensor:
        return learning.route_loss(network, layer, lessons)

    history, best = [validate()], deepcopy(average)
    for value in _epochs("Learning from routes", network, average, data, loss, schedule, seed, progress):
        score = validate()
        if score.mean_regret < min(each.mean_regret for each in history):
            best = deepcopy(average)
        history.append(score)
        progress.console.print(
            Text(
                f"  epoch {len(history) - 1:>2}/{schedule.epochs}   loss {value:6.3f}   validation: regret "
                f"{score.mean_regret:6.1%}, optimal routes {score.optimal:6.1%}"
            )
        )
    return best, history


def _learn_costs(
    network: learning.CostNetwork, data: Data, schedule: learning.Schedule, seed: int, progress: Progress
) -> learning.CostNetwork:
    """Train on costs, and return the averaged network."""
    average = deepcopy(network)

    def loss(lessons: learning.Lessons) -> Tensor:
        return learning.cost_loss(network, lessons)

    for _ in _epochs("Two-stage regression on the costs", network, average, data, loss, schedule, seed, progress):
        pass
    return average


def _epochs(
    description: str,
    network: learning.CostNetwork,
    average: learning.CostNetwork,
    data: Data,
    loss: Callable[[learning.Lessons], Tensor],
    schedule: learning.Schedule,
    seed: int,
    progress: Progress,
) -> Iterator[float]:
    """Train under a progress bar; yield each epoch's loss."""
    total = schedule.epochs * learning.num_steps(len(data.train.images), schedule)
    task = progress.add_task(description, total=total)
    generator = torch.Generator().manual_seed(seed)
    yield from learning.train(network, average, data.train, loss, schedule, generator, lambda: progress.advance(task))
    progress.remove_task(task)


def _table(scores: dict[str, learning.Score]) -> Table:
    table = Table(title="Test crops", box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("Routes by")
    for title in ("Regret", "Optimal", "Within 5 %"):
        table.add_column(title, justify="right")
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score.mean_regret:.1%}",
            f"{score.optimal:.1%}",
            f"{score.nearly_optimal:.1%}",
        )
    return table
