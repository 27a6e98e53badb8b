"""``mapgrad tune``."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

import mapgrad
from mapgrad.cli._bench import console_for_tables, show_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_NOISE = 0.2


def tune(
    problem: Annotated[
        str,
        typer.Argument(
            help="A file that ends in .mps or .lp, packed or not, or a problem such as 'KSubset(100, 10)' or "
            "'ShortestPath.on_grid(5, 5)'.",
            show_default=False,
        ),
    ],
    theta: Annotated[
        Path | None, typer.Option(help="A sample of θ, utilities: an array [N, *shape] in a .npy file.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to draw without --theta.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Which rows.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend.")] = 30.0,
) -> None:
    """Race the installed exact solvers of a problem, and their settings, and tell which is the fastest.

    Without --theta, rows are drawn: around a file's own objective, or at random within the problem's domain.
    """
    described = problem_of(problem)
    sample = _drawn(described, rows, seed) if theta is None else sample_in(theta)
    console = console_for_tables()
    with console.status("Racing"):
        tuning = mapgrad.tune(described, sample, seconds=seconds)
    show_table(f"{len(sample)} rows of {problem}", *tuning.table(), console, left=("solver", "result"))
    options = "".join(f", {name}={value!r}" for name, value in tuning.options.items())
    console.print(Text(f'mapgrad.get_solver("{tuning.name}", problem{options})', "bold"), soft_wrap=True)
    if Path(problem).is_file():
        how = "from_lp" if ".lp" in Path(problem).suffixes else "from_mps"
        console.print(Text(f'problem = mapgrad.IntegerProgram.{how}("{problem}")', "bold"), soft_wrap=True)
    else:
        console.print(Text(f"problem = mapgrad.{problem}", "bold"), soft_wrap=True)
    console.print(Text(tuning.verdict), soft_wrap=True)


def problem_of(text: str) -> mapgrad.Problem:
    """Return the problem that a file or an expression describes.

    Raises:
        BadParameter: it is neither, or the problem's class refuses its arguments.
    """
    suffix = Path(text.removesuffix(".gz").removesuffix(".bz2")).suffix
    if suffix in (".mps", ".lp"):
        read = mapgrad.IntegerProgram.from_mps if suffix == ".mps" else mapgrad.IntegerProgram.from_lp
        if not Path(text).is_file():
            raise typer.BadParameter(f"there is no file {text}", param_hint="PROBLEM")
        return read(text)
    call = _call(text)
    if call is None:
        raise typer.BadParameter(
            f"{text!r} is neither a file that ends in .mps or .lp nor a problem with numbers, lists and the like as "
            f"arguments, such as 'GridShortestPath(12, 12, neighbors=4)'",
            param_hint="PROBLEM",
        )
    name, arguments, named = call
    makers = _makers()
    if name not in makers:
        raise typer.BadParameter(f"{name} isn't one of {', '.join(makers)}", param_hint="PROBLEM")
    try:
        return makers[name](*arguments, **named)
    except (TypeError, ValueError, OSError) as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint="PROBLEM") from error


def _call(text: str) -> tuple[str, list[Any], dict[str, Any]] | None:
    """Return name and arguments of a call whose arguments are literals; None if a text isn't one."""
    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute):
            named = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
            return ast.unparse(call.func), [ast.literal_eval(each) for each in call.args], named
    except (SyntaxError, ValueError):
        pass
    return None


def _makers() -> dict[str, Callable[..., mapgrad.Problem]]:
    """Return what makes problems, by name: their classes, and class methods such as `ShortestPath.on_grid`."""
    makers: dict[str, Callable[..., mapgrad.Problem]] = {}
    for name in mapgrad.__all__:
        kind = getattr(mapgrad, name)
        if isinstance(kind, type) and issubclass(kind, mapgrad.Problem) and kind is not mapgrad.Problem:
            methods = [each for each, value in vars(kind).items() if isinstance(value, classmethod | staticmethod)]
            public = [each for each in methods if not each.startswith("_")]
            makers |= {name: kind, **{f"{name}.{each}": getattr(kind, each) for each in public}}
    return makers


def _drawn(problem: mapgrad.Problem, rows: int, seed: int) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((rows, *problem.shape), generator=generator, dtype=torch.float64)
    objective = getattr(problem, "objective", None)
    if objective is not None:
        centre = -torch.tensor(objective, dtype=torch.float64).reshape(problem.shape)
        return centre * (1 + _NOISE * noise)
    return -noise.abs() if problem.domain is mapgrad.Domain.NONPOSITIVE else noise.abs()


def sample_in(path: Path) -> torch.Tensor:
    """Return the array in a file.

    Raises:
        BadParameter: it can't be read, or isn't one in NumPy's format.
    """
    import numpy as np
    import torch

    try:
        with path.open("rb") as file:
            return torch.tensor(np.lib.format.read_array(file, allow_pickle=False))
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {error.strerror}", param_hint="--theta") from error
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(f"{path} isn't an array in NumPy's format: {error}", param_hint="--theta") from error
