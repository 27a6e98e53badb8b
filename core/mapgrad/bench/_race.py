"""A race of solvers over a sample: slow ones drop out, and answers are compared."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.batching import Solver, get_solver, row_numbers
from mapgrad.bench._clock import seconds_of
from mapgrad.bench._objectives import room_of
from mapgrad.errors import MapgradError, UndecidedError
from mapgrad.solutions import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions

WRONG: Final = "wrong: "
"""How the result of a solver begins whose answer is wrong."""

_REPEATS: Final = 7
_MOST_REPEATS: Final = 300
_ENOUGH: Final = 0.2
"""CPU seconds of calls of one size: shorter measurements are noise."""

_LONG: Final = 20.0
"""How many times as long as the fastest one's row a row may take, before an engine that can be stopped is."""
_SHORTEST_LIMIT: Final = 0.1


@dataclass(eq=False)
class Racer:
    """A solver under some settings, on its way.

    Attributes:
        name: The solver's full name.
        options: Its options.
        rows: How many rows were timed.
        size: How many rows the largest calls had, whose times count.
        times: CPU and wall-clock seconds of each of these calls.
        result: What became of it.
        is_out: Whether it answered wrongly or not at all, and so has left the race.
        by_wall: Whether its pace is that of the wall clock, as θ lies on a GPU.
        objectives: [N] float64, what its states of the sample's rows are worth; NaN where it wasn't asked.
        checked_by: Who found the same objectives.
        checked_rows: On how many rows one of them did.
    """

    name: str
    options: Mapping[str, Any]
    rows: int = 0
    size: int = 0
    times: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    result: str = "not tried: the time was up"
    is_out: bool = False
    by_wall: bool = False
    objectives: Tensor = field(default_factory=lambda: torch.zeros(0))
    checked_by: list[str] = field(default_factory=list[str])
    checked_rows: int = 0
    _solver: Solver | None = None

    @property
    def cpu(self) -> float:
        """CPU seconds a row, the median."""
        return median(cpu for cpu, _ in self.times) / self.size if self.times else math.nan

    @property
    def wall(self) -> float:
        """Wall-clock seconds a row, the median."""
        return median(wall for _, wall in self.times) / self.size if self.times else math.nan

    @property
    def pace(self) -> float:
        """What ranks go by: seconds a row, infinite where none was timed."""
        seconds = self.wall if self.by_wall else self.cpu
        return seconds if self.rows else math.inf

    @property
    def is_measured(self) -> bool:
        """Whether it has run for so long that its pace is no noise."""
        return sum(cpu for cpu, _ in self.times) > _ENOUGH

    def start(self, theta: Tensor, problem: Problem, limit: float) -> None:
        """Solve the sample's first row, twice: native models and kernels are made for the first one."""
        self.by_wall = theta.device.type != "cpu"
        self.objectives = torch.full((len(theta),), torch.nan, dtype=torch.float64)
        self.result = "slower"
        try:
            self._solver = get_solver(
                self.name, problem, on_error="incumbent", merge=False, time_limit=limit, **self.options
            )
            self._solver(theta[:1])
        except Exception as error:  # noqa: BLE001 (a solver that can't be made is out of the race, whatever it raises)
            self.fail(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return
        self.run(theta, 0, 1)

    def run(self, theta: Tensor, start: int, stop: int, *, is_timed: bool = True) -> None:
        """Solve some rows of the sample, and have their time count or not."""
        assert self._solver is not None
        solver = self._solver
        found: list[Solutions] = []
        try:
            cpu, wall = seconds_of(lambda: found.append(solver.solve(theta[start:stop])))
        except MapgradError as error:
            self.fail(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return
        if is_timed:
            self.rows += stop - start
            if stop - start > self.size:
                self.size, self.times = stop - start, []
            if stop - start == self.size:
                self.times.append((cpu, wall))
        (solutions,) = found
        unproved = row_numbers(solutions.status != Status.OPTIMAL)
        if unproved:
            status = Status(int(solutions.status[unproved[0]]))
            self.fail(f"row {start + unproved[0]}: {status.name}")
        elif mistake := _mistake(solver.problem, theta[start:stop], solutions, start):
            self.fail(mistake)
        else:
            self.objectives[start:stop] = solutions.objective.cpu()

    def fail(self, reason: str) -> None:
        """Leave the race, for good."""
        self.is_out, self.result = True, reason

    def close(self) -> None:
        """Free native models."""
        if self._solver is not None:
            self._solver.close()


def race(
    racers: Sequence[Racer], theta: Tensor, problem: Problem, end: float, deadline: float, *, patience: float
) -> Racer | None:
    """Let all run, and return the fastest one whose answers hold; None if nobody's do.

    Args:
        racers: The likely fastest first.
        theta: [N, *shape].
        problem: The feasible set.
        end: When the race ends, on the monotonic clock.
        deadline: When checks of the fastest one's answers end.
        patience: Seconds that a row may take.
    """
    _start_all(racers, theta, problem, end, patience)
    while True:
        _expose(racers, theta)
        alive = [each for each in racers if each.rows and not each.is_out]
        if not alive:
            return None
        best = _fastest(alive, racers, theta, end)
        if best is not None and _holds(best, racers, theta, deadline):
            best.result = "fastest"
            return best


def _start_all(racers: Sequence[Racer], theta: Tensor, problem: Problem, end: float, patience: float) -> None:
    limit = patience
    for racer in racers:
        if time.monotonic() >= end and any(each.rows and not each.is_out for each in racers):
            return
        racer.start(theta, problem, limit)
        if not racer.is_out:
            limit = min(limit, max(_SHORTEST_LIMIT, _LONG * racer.wall))


def _fastest(alive: list[Racer], racers: Sequence[Racer], theta: Tensor, end: float) -> Racer | None:
    """Return who is fastest on the largest calls that time allows; None if that one turns out to be wrong."""
    for number, (start, stop) in enumerate(_portions(len(theta))):
        if len(alive) == 1 and not alive[0].objectives.isnan().any() and alive[0].is_measured:
            break
        for turn in range(len(alive)):
            if time.monotonic() >= end:
                break
            alive[(turn + number) % len(alive)].run(theta, start, stop)
        _expose(racers, theta)
        honest = [each for each in racers if each.rows and not each.is_out]
        if not honest:
            return None
        best = min(honest, key=lambda each: each.pace)
        if time.monotonic() >= end or (len(best.times) > _REPEATS and best.is_measured):
            return best
        factor = 1 + 4 / math.sqrt(best.rows)
        alive = [each for each in honest if each.pace <= factor * best.pace]
    return min(alive, key=lambda each: each.pace)


def _portions(count: int) -> Iterator[tuple[int, int]]:
    """Yield parts of the sample that double, from its second row on, then the whole of it many times."""
    start = 1
    while start < count:
        yield start, min(2 * start, count)
        start *= 2
    for _ in range(_MOST_REPEATS):
        yield 0, count


def _holds(best: Racer, racers: Sequence[Racer], theta: Tensor, deadline: float) -> bool:
    """Tell whether nobody finds more than the fastest did: others solve what they haven't yet, until time is up."""
    others = [each for each in racers if each.rows and not each.is_out and each is not best]
    plugin = best.name.partition(".")[0]
    for other in sorted(others, key=lambda each: (each.name.partition(".")[0] == plugin, each.pace)):
        for start, stop in _portions(len(theta)):
            if other.is_out or not other.objectives.isnan().any() or time.monotonic() >= deadline:
                break
            if other.objectives[start:stop].isnan().any() and other.wall * (stop - start) < deadline - time.monotonic():
                other.run(theta, start, stop, is_timed=False)
        _expose(racers, theta)
        if best.is_out:
            return False
        if not other.is_out and not other.objectives.isnan().any():
            break
    known = ~best.objectives.isnan()
    agreeing = [each for each in others if not each.is_out and (known & ~each.objectives.isnan()).any()]
    if agreeing:
        seen = torch.stack([known & ~each.objectives.isnan() for each in agreeing])
        best.checked_by = [*dict.fromkeys(each.name for each in agreeing)]
        best.checked_rows = int(seen.any(0).sum())
    return True


def _expose(racers: Sequence[Racer], theta: Tensor) -> None:
    """Throw out who found less than another one did."""
    honest = [each for each in racers if each.rows and not each.is_out]
    if not honest:
        return
    found = torch.stack([each.objectives for each in honest])
    best, who = found.nan_to_num(nan=-torch.inf).max(0)
    short = found < best - room_of(theta, best)  # NaN isn't less
    for racer, rows in zip(honest, short, strict=True):
        if bad := row_numbers(rows):
            row = bad[0]
            racer.fail(
                f"{WRONG}{racer.objectives[row]:.12g} in row {row}, where {honest[int(who[row])].name} found "
                f"{best[row]:.12g}"
            )


def _mistake(problem: Problem | None, theta: Tensor, solutions: Solutions, first: int) -> str:
    """Say what is wrong with answers by themselves; empty if nothing is."""
    assert problem is not None
    try:
        states = problem.contains(solutions.z)
    except UndecidedError:
        states = torch.ones(len(theta), dtype=torch.bool)
    if bad := row_numbers(~states):
        return f"{WRONG}its answer to row {first + bad[0]} isn't a state"
    if np.size(getattr(problem, "fixed", ())):
        return ""  # θ doesn't price all that an objective is made of
    values = (theta.double().masked_fill(theta.isneginf(), 0.0) * solutions.z.double()).flatten(1).sum(1)
    room = room_of(theta, values)
    if bad := row_numbers((solutions.objective - values).abs().cpu() > room):
        row = bad[0]
        return (
            f"{WRONG}it claims {solutions.objective[row]:.12g} in row {first + row}, where its state is worth "
            f"{values[row]:.12g}"
        )
    return ""
