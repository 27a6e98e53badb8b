"""``mapgrad demo``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mapgrad
from mapgrad.cli._bench import require_writable
from mapgrad.demo import EstimatorName

if TYPE_CHECKING:
    import torch


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
    place = _device(device)
    from mapgrad.demo._demo import run

    run(solver, estimator, seed=seed, epochs=epochs, device=place, output=output)


def _require_picture(output: Path) -> None:
    if find_spec("matplotlib") is None:
        raise mapgrad.MissingDependencyError(
            "the demo needs matplotlib, for its picture and for the terrain: pip install 'mapgrad[plot]'"
        )
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if output.suffix.lower().removeprefix(".") not in formats:
        raise typer.BadParameter(f"{output} must end in one of .{', .'.join(sorted(formats))}", param_hint="--output")
    require_writable(output, "--output")


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise typer.BadParameter(f"torch can't use {name!r} here: {reason}", param_hint="--device") from error
    return device
