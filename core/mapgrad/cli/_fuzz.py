"""``mapgrad check --fuzz``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

import mapgrad

if TYPE_CHECKING:
    from pathlib import Path

    from mapgrad.testing import FuzzReport


def fuzz(name: str, count: int, seed: int, folder: Path) -> None:
    """Try a solver on random programs and print what came of it; exit code 1 where an answer is wrong.

    Raises:
        UnsupportedProblemError: the solver takes none of them.
    """
    console = Console()
    outcomes = track(
        mapgrad.testing.iter_fuzz(name, count, seed=seed), "Fuzzing", total=count, console=console, transient=True
    )
    report = mapgrad.testing.report_of(outcomes, name, seed, folder)
    console.print(_table(report))
    if report.total(mapgrad.testing.Verdict.REFUSED) == count:
        raise mapgrad.UnsupportedProblemError(
            f"{name!r} takes none of these integer programs, so that nothing was tried: try more of them by a larger "
            f"--fuzz, or hold it to the laws by `mapgrad check {name}`"
        )
    for line in report.failures:
        console.print(Text(line), soft_wrap=True)
    if report.total(mapgrad.testing.Verdict.WRONG):
        raise typer.Exit(1)


def _table(report: FuzzReport) -> Table:
    verdicts = list(mapgrad.testing.Verdict)
    table = Table("Programs", *(verdict.value for verdict in verdicts), box=box.SIMPLE_HEAD, pad_edge=False)
    for kind, counts in report.counts.items():
        table.add_row(kind, *(str(counts[verdict]) for verdict in verdicts))
    table.add_section()
    table.add_row("all", *(str(report.total(verdict)) for verdict in verdicts))
    return table
