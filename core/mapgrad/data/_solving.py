"""All rows of a data set through a solver, part by part where a bar shows how far it came."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import FailedRow, error_of
from mapgrad.errors import MissingDependencyError, RowsError
from mapgrad.solutions import Solutions, Status

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem

_PARTS: Final = 100
"""Into which rows are divided at most."""

_ROWS: Final = 64
"""That a part has at least, so that workers seldom wait for the last of them."""


def solve_parts(solver: Solver, theta: Tensor, problems: Sequence[Problem] | None, *, progress: bool) -> Solutions:
    """Solve rows, with a bar that shows how many are.

    Args:
        solver: Who solves.
        theta: [N, *shape], utilities that the solver admits.
        problems: One problem a row, in place of the solver's own.
        progress: Whether there is a bar; without one, all rows are one part.

    Returns:
        z, status, objective, bound, causes and seconds.

    Raises:
        RowsError: rows have no acceptable answer; all are tried, and the others' answers come with it.
        MissingDependencyError: there is to be a bar, but rich isn't installed.
    """
    if not progress:
        return solver.solve(theta) if problems is None else solver.solve(theta, problems)
    parts: list[Solutions] = []
    causes: dict[int, BaseException] = {}
    failed: list[int] = []
    with closing(_with_bar(len(theta))) as bar:  # whatever is raised, the bar ends
        for rows in bar:
            try:
                part = solver.solve(theta[rows]) if problems is None else solver.solve(theta[rows], problems[rows])
            except RowsError as error:
                if error.solutions is None:
                    raise
                part = error.solutions
                failed += [rows.start + row for row in error.rows]
            causes |= {rows.start + row: cause for row, cause in part.causes.items()}
            parts.append(part)
    whole = Solutions(
        torch.cat([part.z for part in parts]),
        torch.cat([part.status for part in parts]),
        torch.cat([part.objective for part in parts]),
        torch.cat([part.bound for part in parts]),
        seconds=sum(part.seconds for part in parts),
        causes=causes,
    )
    if failed:
        label = solver.name if problems is not None else solver.at_work().factory.label
        of_row = [solver.problem] * len(theta) if problems is None else problems
        described = {
            row: FailedRow(Status(int(whole.status[row])), causes.get(row), label, of_row[row], solver.on_error)
            for row in failed
        }
        raise error_of(described, (len(theta),), whole)
    return whole


def _with_bar(count: int) -> Generator[slice]:
    """Yield the rows of each part, at least one part, while a bar shows those that are done."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise MissingDependencyError("progress=True needs rich: pip install 'mapgrad[cli]'") from error
    columns = (TextColumn("solving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("solving", total=count)
        size = max(_ROWS, -(-count // _PARTS))
        for first in range(0, max(count, 1), size):
            rows = slice(first, min(first + size, count))
            yield rows
            bar.update(task, completed=rows.stop)
