"""``mapgrad check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable


def check(
    name: Annotated[str, typer.Argument(help="A solver, as in `mapgrad solvers`, or a plugin.", show_default=False)],
) -> None:
    """Check that a solver keeps every law of the conformance kit; exit code 1 if it breaks one."""
    problems = mapgrad.testing.example_problems(name)
    if not problems:
        raise mapgrad.UnsupportedProblemError(
            f"{name!r} takes none of mapgrad's own small problems, so there is nothing to check it on: call "
            f"mapgrad.testing.check_solver({name!r}, problem) with a small problem that it takes"
        )
    console = Console()
    checks = [check for problem in problems for check in mapgrad.testing.iter_checks(name, problem)]
    findings: dict[str, list[str]] = {}
    for law, run in track(checks, "Checking", console=console, transient=True):
        findings.setdefault(law, []).extend(_findings(run))
    console.print(_table(findings, len(problems)))
    for law, messages in findings.items():
        for message in messages:
            console.print(Text.assemble((f"{law}: ", "bold red"), message, "\n"), soft_wrap=True)
    console.print(Text("on " + "\n   ".join(map(repr, problems)), "dim"), soft_wrap=True)
    if any(findings.values()):
        raise typer.Exit(1)


def _findings(run: Callable[[], None]) -> list[str]:
    try:
        run()
    except mapgrad.ConformanceError as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001 (a solver under test may raise anything)
        return [f"{type(error).__name__}: {error}"]
    return []


def _table(findings: dict[str, list[str]], problems: int) -> Table:
    table = Table("Law", "Result", box=box.SIMPLE_HEAD, pad_edge=False)
    for law, messages in findings.items():
        broken = Text(f"broken on {len(messages)} of {problems} problems", "bold red")
        kept = Text(f"kept on {problems} problem{'s' * (problems > 1)}", "green")
        table.add_row(law, broken if messages else kept)
    return table
