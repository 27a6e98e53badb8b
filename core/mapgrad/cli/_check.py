"""``mapgrad check``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

import mapgrad
from mapgrad.cli._fuzz import fuzz

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.testing import Outcome


def check(
    name: Annotated[str, typer.Argument(help="A solver, as in `mapgrad solvers`, or a plugin.", show_default=False)],
    count: Annotated[
        int,
        typer.Option("--fuzz", metavar="N", min=0, help="Try N random integer programs instead of the laws."),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Which random programs.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where programs that fail are written, in MPS format.")] = Path(),
) -> None:
    """Check that a solver keeps every law of the conformance kit; exit code 1 if it breaks one.

    With --fuzz, the solver meets random integer programs whose optimum is known; exit code 1 if an answer is wrong.
    """
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} isn't a folder; name another one", param_hint="--folder")
    try:
        if count:
            fuzz(name, count, seed, folder)
            return
        problems = mapgrad.testing.example_problems(name)
    except mapgrad.UnknownSolverError as error:
        call = f"fuzz_solver(Class, {count})" if count else "check_solver(Class, problem)"
        raise mapgrad.UnknownSolverError(
            f"{error}. The command finds solvers of installed plugins: for a class that no entry point names, call "
            f"mapgrad.testing.{call}, or mapgrad.register its plugin and check it by name, in Python"
        ) from None
    if not problems:
        raise mapgrad.UnsupportedProblemError(
            f"{name!r} takes none of mapgrad's own small problems, so there is nothing to check it on: call "
            f"mapgrad.testing.check_solver({name!r}, problem) with a small problem that it takes"
        )
    console = Console()
    checks = [check for problem in problems for check in mapgrad.testing.iter_checks(name, problem)]
    results: dict[str, list[Outcome | str]] = {}
    for law, run in track(checks, "Checking", console=console, transient=True):
        results.setdefault(law, []).append(_result(run))
    console.print(_table(results))
    messages = [(law, each) for law, found in results.items() for each in found if isinstance(each, str)]
    for law, message in messages:
        console.print(Text.assemble((f"{law}: ", "bold red"), message, "\n"), soft_wrap=True)
    console.print(Text("on " + "\n   ".join(map(repr, problems)), "dim"), soft_wrap=True)
    if messages:
        raise typer.Exit(1)


def _result(run: Callable[[], Outcome]) -> Outcome | str:
    """Return the outcome of a check, or the message of what it raised."""
    try:
        return run()
    except mapgrad.ConformanceError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (a solver under test may raise anything)
        return f"{type(error).__name__}: {error}"


def _table(results: dict[str, list[Outcome | str]]) -> Table:
    table = Table("Law", "Result", box=box.SIMPLE_HEAD, pad_edge=False)
    for law, found in results.items():
        outcomes = [each for each in found if not isinstance(each, str)]
        broken, kept = len(found) - len(outcomes), sum(outcome.applies for outcome in outcomes)
        lines = [Text(f"broken on {broken} of {len(found)} problems", "bold red")] if broken else []
        if kept and not broken:
            lines.append(Text(f"kept on {kept} problem{'s' * (kept > 1)}", "green"))
        reasons = Counter((outcome.applies, reason) for outcome in outcomes for reason in outcome.reasons)
        for (applies, reason), count in reasons.items():
            finding = "left out" if applies else "doesn't apply"
            lines.append(Text(f"{finding} on {count}: {reason}", "dim"))
        table.add_row(law, Text("\n").join(lines))
    return table
