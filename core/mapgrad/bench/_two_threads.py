"""Suite `threads`: two workers against one, and a solver beside a network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from mapgrad.batching import get_solver
from mapgrad.bench._cases import Case, assignment, cover, grid, knapsack, path
from mapgrad.bench._clock import Effort, interleave, seconds_of
from mapgrad.bench._machine import idle_share
from mapgrad.bench._overlap import compared, two_busy_threads
from mapgrad.bench._overlap import measure as overlap
from mapgrad.bench._report import Row
from mapgrad.bench._suites import Suite
from mapgrad.errors import MapgradError
from mapgrad.solvers import InstanceSolver, entries_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverEntry

CASES: Final = path(30), grid(30), assignment(100), knapsack(14, 2), cover(30, 60)
OVERLAPS: Final = (grid(30), "compiled.shortest_path"), (cover(30, 60), "search"), (cover(30, 60), "highs")
SECONDS_A_BATCH: Final = 0.25
MOST_ROWS: Final = 4096


def measure(case: Case, effort: Effort) -> Iterator[Row]:
    """Yield a row for each solver of the problem's own class that releases the GIL."""
    problem = case.make()
    rows = [*_rows(problem, case, effort)]
    yield from rows or [Row(case.name, "", note="no installed solver of its class releases the GIL", judged=False)]


def _rows(problem: Problem, case: Case, effort: Effort) -> Iterator[Row]:
    for entry in entries_for(problem):
        if entry.missing() or not isinstance(problem, entry.spec.accepts):
            continue
        try:
            solver = entry.solver_class()
            if issubclass(solver, InstanceSolver) and solver.traits.releases_gil:
                yield _measure(entry, case, effort)
        except MapgradError as error:
            yield Row(case.name, entry.name, note=str(error), judged=False)


def _measure(entry: SolverEntry, case: Case, effort: Effort) -> Row:
    problem = case.make()
    with get_solver(entry.name, problem) as one, get_solver(entry.name, problem, workers=2) as two:
        some = case.utilities(4)
        one(some)  # builds the model
        pace = seconds_of(partial(one, some))[1] / len(some)
        most = 8 if effort.is_quick else MOST_ROWS
        count = max(8, min(most, round(SECONDS_A_BATCH / max(pace, 1e-7))))
        rows = case.utilities(count)
        share = idle_share()
        times = interleave({"one": partial(one, rows), "two": partial(two, rows)}, effort)
        share = min(share, idle_share())
    size = {"B": count, "n": rows[0].numel()}
    return compared(case.name, entry.name, size, times, count, "a row", "one worker", share)


SUITE: Final = Suite(
    "Two workers against one, solvers that release the GIL; and a solver beside a network",
    {
        "two busy threads": two_busy_threads,
        **{case.name: partial(measure, case) for case in CASES},
        **{f"overlap, {case.name}, {solver}": partial(overlap, case, solver) for case, solver in OVERLAPS},
    },
    quick=("two busy threads", "assignment 100", "overlap, grid 30, compiled.shortest_path"),
)
