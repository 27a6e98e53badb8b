"""``mapgrad bench``."""

from __future__ import annotations

import enum
import os
from pathlib import Path  # noqa: TC003 (typer reads annotations)
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.bench import Change, Report


class Suite(enum.StrEnum):
    """The suites, without the import of what measures them."""

    STEP = "step"
    KERNELS = "kernels"
    ROAD = "road"
    THREADS = "threads"
    WORKERS = "workers"
    GROWTH = "growth"
    FAULTS = "faults"
    SOAK = "soak"
    PEERS = "peers"
    TRAINING = "training"


CURVES: Final = (Suite.STEP, Suite.ROAD, Suite.GROWTH, Suite.SOAK, Suite.PEERS)
"""The suites that measure a case at several sizes."""


def bench(
    suite: Annotated[Suite, typer.Argument(help="What to measure.", show_default=False)],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A few small cases, roughly; not with --compare, nor with --plot for step and peers."
        ),
    ] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="CASE", help="Cases whose names begin so.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="training: methods whose names begin so.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="training: the first of the seeds.", min=0)] = None,
    resume: Annotated[
        list[Path] | None, typer.Option(help="training: an earlier run's figures, which aren't measured again.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="An earlier run's figures; exit code 1 if any got worse beyond its spread."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="step, road, growth, soak, peers: the picture to draw, time against n, B and S."),
    ] = None,
) -> None:
    """Measure this library on this machine: medians of CPU time on one thread, and ratios within the run.

    step: a training step beside the bare kernels. kernels: all solvers of a problem, and the costs that they declare.
    road: the way to a solver and back. threads: two workers against one. workers: a row in threads, processes and on
    local clusters. growth: time and memory against B, S and n.
    faults: what rows cost that raise, hang or kill their process. soak: memory while rows fail, for a minute or twenty.
    peers: other libraries.
    training: what networks learn by each gradient, and how many solver calls that takes.
    """
    if quick and compare is not None:
        raise typer.BadParameter("figures of --quick are too rough to be judged: leave out --quick or --compare")
    if plot is not None and suite not in CURVES:
        raise typer.BadParameter(
            f"{suite.value} measures each case at one size, which makes no curve: leave out --plot, or take one of "
            f"{', '.join(each.value for each in CURVES)}"
        )
    if quick and plot is not None and suite in (Suite.STEP, Suite.PEERS):
        raise typer.BadParameter("--quick measures one size, which makes no curve: leave out --quick")
    prepare(json, plot)
    if plot is not None:
        from mapgrad.bench._figures import require_format

        require_format(plot)
    from mapgrad.bench import Report, run_suite
    from mapgrad.bench import compare as compared
    from mapgrad.bench import plot as draw

    earlier = None if compare is None else Report.read(compare)
    if earlier is not None and earlier.is_quick:
        raise typer.BadParameter(
            f"{compare} is of a run with --quick, whose figures are too rough to be judged: measure it again without",
            param_hint="--compare",
        )
    known = [*map(Report.read, resume or ())]
    console = console_for_tables()
    with console.status("Measuring") as status:
        report = run_suite(
            suite.value,
            quick=quick,
            only=only or (),
            methods=method or (),
            seed=seed,
            known=known,
            watch=lambda case: status.update(f"{case} …"),
        )
    _show(report, console)
    if json is not None:
        report.write(json)
    got_worse = earlier is not None and _show_changes(compared(earlier, report), earlier, report, console)
    if plot is not None:
        draw(report, plot)
    if got_worse:
        raise typer.Exit(1)


def prepare(*outputs: Path | None) -> None:
    """Refuse files that can't be written before anything is measured, and ask for one thread.

    NumPy and torch look at the environment when they are loaded, which must come later.

    Raises:
        BadParameter: a file can't be written.
    """
    for path in outputs:
        if path is not None:
            require_writable(path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def require_writable(path: Path, option: str | None = None) -> None:
    """Refuse a file that can't be written.

    Args:
        path: Where it is to be.
        option: What the user named it by.

    Raises:
        BadParameter: it is a folder, its folder doesn't exist, or writing isn't allowed.
    """
    try:
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; name a file", param_hint=option)
        if not path.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {path.parent}; make it first", param_hint=option)
        _try_writing(path)
    except OSError as error:
        text = f"{path} can't be written; name another place: {error.strerror}"
        raise typer.BadParameter(text, param_hint=option) from error


def _try_writing(path: Path) -> None:
    """Open a file for writing, and leave it as it is: what access rights say isn't all that may be in the way.

    Raises:
        OSError: it can't be opened.
    """
    is_there = path.exists()
    if is_there and not path.is_file():
        return  # a pipe's reader would take it for the end
    with path.open("ab"):
        pass
    if not is_there:
        path.resolve().unlink()


def console_for_tables() -> Console:
    """Return a console for tables: where it isn't a terminal's, a line may be as long as it is."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=1_000)


def show_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], console: Console, *, left: Sequence[str]
) -> None:
    """Print a table: Markdown where it doesn't go to a terminal, so that a document can have it."""
    console.print(Text(title, "bold"), "", sep="\n", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN, pad_edge=not console.is_terminal)
    for name in header:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print()


def show_origin(report: Report, console: Console) -> None:
    """Print what a report's figures were measured on, and with which seeds."""
    for name, facts in (("machine", report.machine), ("versions", report.versions), ("seeds", report.seeds)):
        console.print(Text(f"{name}: {', '.join(f'{key} {value}' for key, value in facts.items())}"), soft_wrap=True)


def _show(report: Report, console: Console) -> None:
    left = ("case", "measured", "of", "note")
    show_table(report.title, *report.table(), console, left=left)
    show_origin(report, console)
    if not report.machine["quiet"]:
        console.print(Text("The machine wasn't quiet: trust the ratios, not the times.", "yellow"), soft_wrap=True)


def _show_changes(changes: Sequence[Change], earlier: Report, report: Report, console: Console) -> bool:
    """Print how ratios differ from those of an earlier run, and tell whether any got worse."""
    rows = [
        [change.key, str(change.before), str(change.now), f"{change.factor:.2f}", "worse" * change.is_regression]
        for change in sorted(changes, key=lambda change: -change.factor)
    ]
    console.print()
    show_table(
        "Ratios beside the earlier run's",
        ["figure", "before", "now", "now ÷ before", ""],
        rows,
        console,
        left=("figure", ""),
    )
    if earlier.machine.get("cpu") != report.machine.get("cpu"):
        console.print(Text(f"The earlier run was on another CPU, {earlier.machine.get('cpu')}.", "yellow"))
    worse = sum(change.is_regression for change in changes)
    console.print(f"{worse} of {len(changes)} figures got worse beyond the spread")
    return worse > 0
