"""``mapgrad demo``: a network learns to read terrain from routes alone."""

from __future__ import annotations

import enum
import os
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import mapgrad
from mapgrad.cli import _learning as learning
from mapgrad.cli import _terrain as terrain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import Tensor


class EstimatorName(enum.StrEnum):
    """Gradient estimators to choose from."""

    IMLE = "imle"
    AIMLE = "aimle"
    BLACKBOX = "blackbox"
    STRAIGHT_THROUGH = "straight-through"


_TITLES: Final = {
    EstimatorName.IMLE: "I-MLE",
    EstimatorName.AIMLE: "AIMLE",
    EstimatorName.BLACKBOX: "black-box",
    EstimatorName.STRAIGHT_THROUGH: "straight-through",
}


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


def demo(
    solver: Annotated[str, typer.Option(help="The solver that finds the routes; see `mapgrad solvers`.")] = "auto",
    estimator: Annotated[EstimatorName, typer.Option(help="The gradient that passes through it.")] = EstimatorName.IMLE,
    seed: Annotated[int, typer.Option(min=0, help="Draws crops, noise and the network's first weights.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training crops.")] = 8,
    device: Annotated[str, typer.Option(help="Where the network runs, such as cpu or cuda.")] = "cpu",
    output: Annotated[Path, typer.Option(help="The picture to write.")] = Path("mapgrad-demo.png"),
) -> None:
    """Train a network to find routes over real terrain through a combinatorial solver.

    It sees noisy pictures of the land and an expert's routes, never the costs that the expert minimises.
    """
    _require_picture(output)
    from mapgrad.cli._plot import draw

    place = _device(device)
    console = Console()
    problem = mapgrad.GridShortestPath(terrain.CELLS, terrain.CELLS)
    with _one_thread(), mapgrad.get_solver(solver, problem) as planner, _progress(console) as progress:
        started = perf_counter()
        land = terrain.load_terrain()
        data = _data(land, planner, seed, place, progress)
        layer = mapgrad.MAPLayer(planner, _estimator(estimator), minimize=True, seed=seed)
        console.print(Text(f"Learning from routes with {_TITLES[estimator]} through {planner.name}"))
        network = _network(seed, place)
        before = learning.plan(network, layer, data.test.images)
        history = _learn_routes(network, layer, data, _schedule(epochs), seed, progress)
        regressor = _network(seed, place)
        _learn_costs(regressor, data, _schedule(epochs), seed, progress)
        learnt = learning.plan(network, layer, data.test.images)
        routes = {
            "straight line, picture ignored": learning.straight_routes(learnt),
            "network before training": before,
            f"trained on routes: {_TITLES[estimator]}": learnt,
            "trained on costs: two-stage": learning.plan(regressor, layer, data.test.images),
        }
    console.print(_table({name: learning.Score.of(taken, data.test) for name, taken in routes.items()}))
    with torch.no_grad():
        costs = network(data.test.images)
    draw(output, land, SIZES.stride, data.test, costs, learnt, history, _TITLES[estimator])
    solves, seconds = planner.stats["solves"], perf_counter() - started
    console.print(Text(f"{planner.name} solved {solves:,.0f} problems; {seconds:.0f} s in all. Picture: {output}"))


def _require_picture(output: Path) -> None:
    if find_spec("matplotlib") is None:
        raise mapgrad.MissingDependencyError(
            "the demo needs matplotlib, for its picture and for the terrain: pip install 'mapgrad[plot]'"
        )
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if output.suffix.lower().removeprefix(".") not in formats:
        raise typer.BadParameter(f"{output} must end in one of .{', .'.join(sorted(formats))}", param_hint="--output")
    if output.is_dir():
        raise typer.BadParameter(f"{output} is a folder; name a file", param_hint="--output")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}; make it first", param_hint="--output")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise typer.BadParameter(f"{output} can't be written; name another place", param_hint="--output")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise typer.BadParameter(f"torch can't use {name!r} here: {reason}", param_hint="--device") from error
    return device


@contextmanager
def _one_thread() -> Generator[None]:
    """Keep torch to one thread: steps this small gain nothing from a second, and results don't depend on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _estimator(name: EstimatorName) -> mapgrad.Estimator:
    match name:
        case EstimatorName.IMLE:
            return mapgrad.IMLE()
        case EstimatorName.AIMLE:
            return mapgrad.AdaptiveIMLE()
        case EstimatorName.BLACKBOX:
            # The loss is a mean over the batch: its size undoes that, so that λ is a step of one mean cost per cell.
            return mapgrad.Blackbox(lam=SIZES.batch)
        case EstimatorName.STRAIGHT_THROUGH:
            return mapgrad.StraightThrough()


def _schedule(epochs: int) -> learning.Schedule:
    return learning.Schedule(epochs, batch=SIZES.batch)


def _network(seed: int, device: torch.device) -> learning.CostNetwork:
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        return learning.CostNetwork().to(device)


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
) -> list[learning.Score]:
    """Train on routes, tell how each epoch went, and return the validation's scores: before, and after each epoch."""

    def validate() -> learning.Score:
        return learning.Score.of(learning.plan(network, layer, data.validation.images), data.validation)

    def loss(lessons: learning.Lessons) -> Tensor:
        return learning.route_loss(network, layer, lessons)

    history = [validate()]
    for value in _epochs("Learning from routes", network, data, loss, schedule, seed, progress):
        history.append(validate())
        progress.console.print(
            Text(
                f"  epoch {len(history) - 1:>2}/{schedule.epochs}   loss {value:6.3f}   validation: regret "
                f"{history[-1].mean_regret:6.1%}, optimal routes {history[-1].optimal:6.1%}"
            )
        )
    return history


def _learn_costs(
    network: learning.CostNetwork, data: Data, schedule: learning.Schedule, seed: int, progress: Progress
) -> None:
    def loss(lessons: learning.Lessons) -> Tensor:
        return learning.cost_loss(network, lessons)

    for _ in _epochs("Two-stage regression on the costs", network, data, loss, schedule, seed, progress):
        pass


def _epochs(
    description: str,
    network: learning.CostNetwork,
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
    yield from learning.train(network, data.train, loss, schedule, generator, lambda: progress.advance(task))
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
