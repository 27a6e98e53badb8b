"""Suite `kernels`: all installed solvers of a problem against each other, and against the costs that they declare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from mapgrad.batching import get_solver
from mapgrad.bench._cases import KERNELS, Case, auto, bare_kernel
from mapgrad.bench._clock import YARDSTICK, Effort, interleave, seconds_of, yardstick
from mapgrad.bench._objectives import worse_rows
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.errors import SolveTimeoutError
from mapgrad.solutions import Status
from mapgrad.solvers import entries_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from mapgrad.bench._clock import Times, Work
    from mapgrad.solvers import SolverEntry

MOST_ROWS: Final = 128
SECONDS_A_CALL: Final = 0.05
PATIENCE: Final = 1.0
"""Seconds that the first row may take."""
_UNPROVED: Final = f"no proof within {PATIENCE:g} s"


@dataclass(frozen=True)
class Candidate:
    """A solver that takes part.

    Attributes:
        work: Its kernel on the first `count` rows.
        count: How many rows a call solves.
        objective: What they are worth, [count].
        is_exact: Whether they are said to be optimal.
    """

    work: Work
    count: int
    objective: torch.Tensor
    is_exact: bool


def measure(case: Case, effort: Effort) -> Iterator[Row]:
    """Yield a row for each solver that takes the problem, the fastest first, then those that can't be measured."""
    problem, most = case.make(), 8 if effort.is_quick else MOST_ROWS
    rows = case.utilities(most)
    entries = {entry.name: entry for entry in entries_for(problem)}
    candidates: dict[str, Candidate] = {}
    problems: list[Row] = []
    for name, entry in entries.items():
        found = _candidate(entry, case, rows)
        if isinstance(found, str):
            problems.append(Row(case.name, name, {"n": rows[0].numel()}, note=found, judged=False))
        else:
            candidates[name] = found
    works: dict[str, Work] = {name: each.work for name, each in candidates.items()}
    times = interleave({**works, YARDSTICK: yardstick}, effort)
    exact = {name: each.objective for name, each in candidates.items() if each.is_exact}
    wrong = worse_rows(rows, exact)
    per_row = {name: Spread.of(times[name].cpu).times(1e6 / each.count) for name, each in candidates.items()}
    chosen = auto(problem).name if exact else ""
    for name in sorted(candidates, key=lambda name: per_row[name].median):
        notes = ["auto's choice"] if name == chosen else []
        notes += [] if candidates[name].is_exact else ["heuristic"]
        notes += [f"WRONG on {len(wrong[name])} rows: others found better ones"] if wrong.get(name) else []
        ratio = _ratio(times[name], times[YARDSTICK], candidates[name].count)
        yield Row(
            case.name,
            name,
            {"n": rows[0].numel()},
            value=per_row[name],
            unit="µs a row",
            ratio=ratio,
            against=YARDSTICK,
            extra=_extra(per_row[name].median, min(each.median for each in per_row.values()), entries[name], case),
            note="; ".join(notes),
        )
    yield from problems


def _candidate(entry: SolverEntry, case: Case, rows: torch.Tensor) -> Candidate | str:
    """Return a solver's kernel on as many rows as fit into a call, or why there is none."""
    if missing := entry.missing():
        return missing
    problem = case.make()
    try:
        with get_solver(entry.name, problem, time_limit=PATIENCE, on_error="incumbent", merge=False) as solver:
            first = solver.solve(rows[:1])
            is_exact = solver.traits.exact
            if is_exact and first.status.item() != Status.OPTIMAL:
                return _UNPROVED
        seconds, _ = seconds_of(bare_kernel(entry.name, problem, [rows[:1]]))
        count = min(len(rows), max(1, math.floor(SECONDS_A_CALL / max(seconds, 1e-9))))
        with get_solver(entry.name, problem, on_error="incumbent", merge=False) as solver:
            objective = solver.solve(rows[:count]).objective
        return Candidate(bare_kernel(entry.name, problem, [rows[:count]]), count, objective, is_exact)
    except SolveTimeoutError:
        return _UNPROVED
    except Exception as error:  # noqa: BLE001 (whatever one plugin's solver raises, the others are measured)
        return f"{type(error).__name__}: {error}"


def _ratio(times: Times, loop: Times, count: int) -> Spread:
    return Spread.of_ratios(times.cpu, loop.cpu).times(1 / count)


def _extra(micros: float, fastest: float, entry: SolverEntry, case: Case) -> dict[str, float]:
    declared = entry.seconds(case.make()) * 1e6
    extra = {"× fastest": micros / fastest}
    if math.isfinite(declared):
        extra |= {"declared, µs": declared, "declared ÷ measured": declared / micros}
    return extra


SUITE: Final = Suite(
    "Bare solvers, without the core: time a row, and what they declare for the choice of «auto»",
    {case.name: partial(measure, case) for case in KERNELS},
    quick=("path 5×5", "assignment 10"),
)
