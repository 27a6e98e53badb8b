"""Stage `hand over`: rows that a solver gives up go to another one."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch

from mapgrad.batching._theta import row_numbers
from mapgrad.errors import UnsupportedProblemError
from mapgrad.solutions import Status
from mapgrad.solvers import successor_of
from mapgrad.workers import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from torch import Tensor

    from mapgrad.batching._clock import Clock
    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import SolverFactory

    Answers = tuple[Solutions, bool]

_SHARE: Final = 0.05
"""Of the time that the other solver takes, a row may cost before it is given up. As that time may turn out to be longer
and rows are then asked for anew, they cost twice the share at most."""

_OF_LIMIT: Final = _SHARE / 4
"""A row is given up after that part of its time limit or never. The other solver gets what two times that leaves: it
takes a quarter of the limit as a rule, and may take some rows four times as long."""

_AT_ONCE: Final = 1e-4
"""Seconds that a row may take before another solver is looked for, which takes far longer where problems are new."""

_TRIED: Final = 4
"""So many rows tell how long the other solver takes, after a first one that makes it ready, before it gets the rest."""

_KINDS: Final = 512

_logger = logging.getLogger("mapgrad")


class Pace(NamedTuple):
    """What handing rows over takes: means in which each time counts as much as all before it.

    Where what is spent on rows that are given up is a share of them, it is a share of all that was taken, in sum.

    Attributes:
        declared: Seconds that the last solver found declares to take for a row.
        first: Seconds for the first row of a problem, as the other solver was made ready for it.
        row: Seconds for a row after that.
    """

    declared: float = 0.0
    first: float = 0.0
    row: float = 0.0

    def of(self, rows: int) -> float:
        """Return the seconds a row that it takes to try the other solver for so many rows of a new problem."""
        return (self.first + (min(rows, 1 + _TRIED) - 1) * self.row) / rows

    def after(self, seconds: float, *, is_first: bool) -> Pace:
        """Return it, having taken so long for a row."""
        old = self.first if is_first else self.row
        mean = (old + seconds) / 2 if old else seconds
        return self._replace(first=mean) if is_first else self._replace(row=mean)


class Paces:
    """What is known of problems that are new by others that are alike: of one class and size. May be shared."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._known: OrderedDict[Hashable, Pace] = OrderedDict()

    def of(self, kind: Hashable) -> Pace:
        """Return that of such problems, which is 0 where none was handed over."""
        with self._lock:
            return self._known.get(kind, Pace())

    def change(self, kind: Hashable, change: Callable[[Pace], Pace]) -> None:
        """Put another pace in the place of that of such problems."""
        with self._lock:
            self._known[kind] = change(self._known.pop(kind, Pace()))
            if len(self._known) > _KINDS:
                self._known.popitem(last=False)


class Work(Protocol):
    """A solver at work."""

    factory: SolverFactory
    problems: Sequence[Problem | None]

    def can_serve(self, problem: Problem) -> bool: ...
    def of_siblings(self, problems: Sequence[Problem]) -> Work: ...
    def ask(
        self,
        rows: Tensor,
        near: Tensor | None,
        clock: Clock | None,
        patience: float | None,
        *,
        priced: bool,
        is_masked: bool,
    ) -> Answers: ...
    def close(self) -> None: ...


class HandOver:
    """How long a solver may take for a row, and which other one gets the rows that take longer.

    The time is a share of what the other solver declares to take for a row and, once it was asked, of what it takes:
    rows that are hard for one are hard for the other, too. The other solver is looked for once a row was given up.
    Until it is ready for the problem, what it took for others that are alike counts as well.

    Args:
        factory: Makes the solver that gives rows up.
        problem: The feasible set.
        limit: Seconds that a row may take in all; None for no limit.
        start: Puts another solver to work on a problem, with a limit of its own.
        paces: What is known of problems that are alike.
    """

    def __init__(
        self,
        factory: SolverFactory,
        problem: Problem,
        limit: float | None,
        start: Callable[[SolverFactory, Problem, float | None], Work],
        paces: Paces,
    ) -> None:
        self._factory, self._problem, self._limit, self._start = factory, problem, limit, start
        self._paces, self._kind = paces, (type(problem), *_size_of(factory.lowering(problem).native))
        self._lock = new_lock()
        self._is_found = self._is_ready = False
        self._others: list[Work] = []
        self._seconds = 0.0  # a row, as far as known, for the other solver; infinite where there is none

    def patience(self, rows: int, clock: Clock | None = None) -> float | None:
        """Return the seconds that a row may take, of so many that are solved together.

        It is None where there is no other solver, or the time limit or the batch's deadline comes first.
        """
        limits = math.inf if self._limit is None else self._limit, math.inf if clock is None else clock.left
        most = _OF_LIMIT * min(limits)
        known = self._paces.of(self._kind)
        seconds = _SHARE * (self._seconds if self._is_found else known.declared)
        if not self._is_ready:
            seconds = max(seconds, _SHARE * known.of(rows))
        if not self._is_found:
            seconds = max(seconds, min(_AT_ONCE, most))
        return seconds if seconds <= most and seconds < math.inf else None

    def _look(self) -> None:
        """Find another solver, unless it was looked for."""
        with self._lock:
            if not self._is_found:
                seconds = self._find(self._problem)
                self._seconds = math.inf if seconds is None else seconds
                if seconds is not None:  # else there may be one for others, whose search never ends
                    self._paces.change(self._kind, lambda pace: pace._replace(declared=seconds))
                self._is_found = True

    def _find(self, problem: Problem) -> float | None:
        """Put another solver to work on a problem, and return its declared seconds a row; None where there is none."""
        found = successor_of(self._factory, problem)
        if found is None:
            return None
        other, seconds = found
        limit = None if self._limit is None else (1 - 2 * _OF_LIMIT) * self._limit
        self._others.insert(0, self._start(other, problem, limit))
        return seconds

    def _other_for(self, problem: Problem) -> Work:
        """Return the other solver for a problem: one that serves it, a new one, or the last one where none takes it."""
        with self._lock:
            if not any(other.can_serve(problem) for other in self._others):
                self._find(problem)
            return next((other for other in self._others if other.can_serve(problem)), self._others[0])

    def solve(
        self, work: Work, rows: Tensor, near: Tensor | None, clock: Clock | None, *, priced: bool, is_masked: bool
    ) -> Answers:
        """Have rows solved, and those that are given up by another solver.

        Args:
            work: The solver that may give rows up.
            rows: [N, *shape], N ≥ 1.
            near: States to start from, or None.
            clock: The batch's deadline; None for any time.
            priced: Whether objectives are asked for.
            is_masked: Whether rows have forbidden entries.

        Returns:
            All answers, with the count of rows handed over among their stats, and whether all rows succeeded.
        """
        patience = self.patience(len(rows), clock)
        answers = work.ask(rows, near, clock, patience, priced=priced, is_masked=is_masked)
        solutions = answers[0]
        left = [] if answers[1] or patience is None else _given_up(solutions)
        if not left:
            return answers
        problems = [problem for problem in work.problems if problem is not None]

        def ask(solver: Work, part: list[int], patience: float | None = None) -> None:
            own = solver.of_siblings([problems[row % len(problems)] for row in part] if len(problems) > 1 else problems)
            starts = None if near is None else near[part]
            found, _ = own.ask(rows[part], starts, clock, patience, priced=priced, is_masked=is_masked)
            write_answers(solutions, part, found)

        def ask_others(part: list[int]) -> None:
            groups: dict[int, tuple[Work, list[int]]] = {}
            for row in part:
                other = self._other_for(problems[row % len(problems)])
                groups.setdefault(id(other), (other, []))[1].append(row)
                names.add(other.factory.name)
            for other, of_other in groups.values():
                ask(other, of_other)

        def ask_again(part: list[int]) -> list[int]:
            nonlocal patience
            before, patience = patience, self.patience(len(part), clock)
            if before is not None and patience is not None and patience <= before:
                patience = before
                return part
            ask(work, part, patience)
            return [] if patience is None else sorted(set(part).intersection(_given_up(solutions)))

        names: set[str] = set()
        asked = 0
        self._look()
        left = ask_again(left)
        while left:
            is_first, has_time = not self._is_ready, clock is None or clock.left > 0
            tried = left[: 1 if is_first else _TRIED] if asked <= _TRIED else left
            began = time.perf_counter()
            ask_others(tried)
            asked += len(tried)
            left = left[len(tried) :]
            if not has_time:
                continue
            late = int((solutions.status[tried] == Status.TIME_LIMIT).sum())
            seconds = (time.perf_counter() - began) / max(len(tried) - late, 1)
            self._paces.change(self._kind, partial(Pace.after, seconds=seconds, is_first=is_first))
            self._is_ready = True
            is_limited = late > 0 and (clock is None or clock.left > 0)  # and not by what it takes to make it ready
            if seconds > 2 * self._seconds and (is_limited or not is_first):
                self._seconds = seconds
                left = ask_again(left) if left else left
        if asked:
            others = ", ".join(sorted(names))
            _logger.info("%s handed over %d of %d rows to %s", self._factory.name, asked, len(rows), others)
            solutions.stats["handed_over"] = asked
        return solutions, bool((solutions.status == Status.OPTIMAL).all())

    def close(self) -> None:
        """Free the other solvers' native models."""
        for other in self._others:
            other.close()


def _size_of(problem: Problem) -> tuple[object, ...]:
    """Return the shape of a problem and, where a program can stand for it, how many rows that has."""
    try:
        return problem.shape, len(problem.to_ilp().row_upper)
    except UnsupportedProblemError:
        return (problem.shape,)


def _given_up(solutions: Solutions) -> list[int]:
    return row_numbers((solutions.status == Status.TIME_LIMIT) & solutions.z.flatten(1)[:, 0].isnan())


def write_answers(
    solutions: Solutions, rows: Sequence[int], found: Solutions, places: Sequence[int] | None = None
) -> None:
    """Put answers in the places of some rows: those at these places, or all of them in turn."""
    places = range(len(rows)) if places is None else places
    for name in ("z", "status", "objective", "bound", "variables"):
        held, values = getattr(solutions, name), getattr(found, name)
        if held is not None:
            is_there = values is not None and values.shape[1:] == held.shape[1:]
            held[rows] = values[list(places)].to(held) if is_there else torch.nan  # pyright: ignore[reportOptionalSubscript, reportUnknownMemberType] (attributes by name)
    for place, row in zip(places, rows, strict=True):
        solutions.causes.pop(row, None)
        if place in found.causes:
            solutions.causes[row] = found.causes[place]
