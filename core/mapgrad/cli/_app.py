"""The commands, and what becomes of their errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

import mapgrad
from mapgrad.cli._bench import bench
from mapgrad.cli._check import check
from mapgrad.cli._demo import demo
from mapgrad.cli._lab import lab
from mapgrad.cli._replay import replay
from mapgrad.cli._solvers import solvers
from mapgrad.cli._tune import tune


class _Commands(TyperGroup):
    """Commands whose `MapgradError` is a message to the user and exit code 2, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except mapgrad.MapgradError as error:
            Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(solvers)
app.command()(check)
app.command()(demo)
app.command()(bench)
app.command()(lab)
app.command()(tune)
app.command()(replay)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mapgrad {mapgrad.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Any combinatorial solver as a PyTorch layer."""
