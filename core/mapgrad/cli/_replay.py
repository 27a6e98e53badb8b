"""``mapgrad replay``."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 (typer reads annotations)
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import mapgrad

if TYPE_CHECKING:
    from mapgrad.replaying import Replay


def replay(
    path: Annotated[Path, typer.Argument(help="A row's .json or .npz file.", show_default=False, metavar="FILE")],
    solver: Annotated[
        str | None,
        typer.Option(help="The solver, as in `mapgrad solvers`; else the one that had the row.", show_default=False),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="A module that has the row's problem or solver, or is its plugin.",
        ),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(min=0.001, help="Seconds, in place of the recorded ones.")] = None,
) -> None:
    """Solve a row once more that mapgrad.record wrote; exit code 1 if anything else comes of it.

    It is the same where the status is and, if there is an answer, its objective: among equal optima, states may differ.
    """
    if modules and "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` has it
    limit = {} if time_limit is None else {"time_limit": time_limit}
    try:
        found = mapgrad.replay(path, solver, modules=modules or (), **limit)
    except FileNotFoundError as error:
        raise typer.BadParameter(f"there is no file {error.filename}", param_hint="FILE") from error
    console = Console()
    console.print(_table(found))
    console.print(Text("the same came" if found.is_same else "something else came", "bold"))
    if not found.is_same:
        raise typer.Exit(1)


def _table(found: Replay) -> Table:
    row = found.row
    table = Table("", "recorded", "now", box=box.SIMPLE_HEAD, pad_edge=False)
    problem = "unknown" if row.problem is None else repr(row.problem)
    state = "the same" if found.has_same_state else "another one"
    for name, then, now in (
        ("problem", problem, ""),
        ("solver", row.label, found.solver),
        ("status", row.status.name, found.status.name),
        ("raised", row.cause, found.cause),
        ("objective", _shown(row.objective), _shown(found.objective)),
        ("state", "none" if row.z is None else "", "none" if found.z is None else state),
        ("seconds", "", f"{found.seconds:.3g}"),
    ):
        table.add_row(name, Text(then), Text(now))
    return table


def _shown(value: float | None) -> str:
    return "none" if value is None else repr(value)
