"""Stage `hand over`: rows that a solver gives up go to another one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

import torch

from mapgrad.batching._locks import new_lock
from mapgrad.batching._theta import row_numbers
from mapgrad.solutions import Status
from mapgrad.solvers import successor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import SolverFactory

    Answers = tuple[Solutions, bool]

_SHARE: Final = 0.05
"""Of the time that the other solver takes, a row may cost before it is given up. As that time may turn out to be longer
and rows are then asked for anew, they cost twice the share at most."""

_OF_LIMIT: Final = 0.1
"""A row is given up after that part of its time limit or never; the other solver gets what two times that leaves."""

_TRIED: Final = 4
"""So many rows tell how long the other solver takes, after a first one that makes it ready, before it gets the rest."""

_logger = logging.getLogger("mapgrad")


class Work(Protocol):
    """A solver at work."""

    factory: SolverFactory
    problems: Sequence[Problem | None]

    def of_siblings(self, problems: Sequence[Problem]) -> Work: ...
    def ask(self, rows: Tensor, near: Tensor | None, *, priced: bool, is_masked: bool) -> Answers: ...
    def close(self) -> None: ...


class HandOver:
    """How long a solver may take for a row, and which other one gets the rows that take longer.

    The time is a share of what the other solver declares to take for a row and, once it was asked, of what it takes:
    rows that are hard for one are hard for the other, too. The other solver is found when there are rows to be solved.

    Args:
        factory: Makes the solver that gives rows up.
        problem: The feasible set.
        limit: Seconds that a row may take in all; None for no limit.
        start: Puts another solver to work, with a limit of its own.
    """

    def __init__(
        self,
        factory: SolverFactory,
        problem: Problem,
        limit: float | None,
        start: Callable[[SolverFactory, float | None], Work],
    ) -> None:
        self._factory, self._problem, self._limit, self._start = factory, problem, limit, start
        self._lock = new_lock()
        self._is_found = self._is_ready = False
        self._other: Work | None = None
        self._patience: float | None = None

    @property
    def patience(self) -> float | None:
        """Seconds that a row may take; None where there is no other solver, or the time limit comes first."""
        with self._lock:
            if not self._is_found:
                self._find()
                self._is_found = True
        return self._patience

    def _find(self) -> None:
        found = successor_of(self._factory, self._problem)
        if found is None:
            return
        other, seconds = found
        self._other = self._start(other, None if self._limit is None else (1 - 2 * _OF_LIMIT) * self._limit)
        self._allow(_SHARE * seconds)

    def _allow(self, seconds: float) -> None:
        self._patience = seconds if self._limit is None or seconds <= _OF_LIMIT * self._limit else None

    def complete(
        self, work: Work, answers: Answers, rows: Tensor, near: Tensor | None, *, priced: bool, is_masked: bool
    ) -> Answers:
        """Have the rows solved that were given up.

        Args:
            work: The solver that gave them up.
            answers: What it answered, and whether all rows succeeded; the first is written to.
            rows: [N, *shape].
            near: States to start from, or None.
            priced: Whether objectives are asked for.
            is_masked: Whether rows have forbidden entries.

        Returns:
            All answers, with the count of rows handed over among their stats, and whether all rows succeeded.
        """
        solutions, other = answers[0], self._other
        left = _given_up(solutions)
        if other is None or not left:
            return answers

        def ask(solver: Work, part: list[int]) -> None:
            problems = [problem for problem in work.problems if problem is not None]
            if len(problems) > 1:
                problems = [problems[row % len(problems)] for row in part]
            own = solver.of_siblings(problems)
            found, _ = own.ask(rows[part], None if near is None else near[part], priced=priced, is_masked=is_masked)
            _write(solutions, part, found)

        asked = 0
        while left:
            tried = left[: _TRIED if self._is_ready else 1] if asked <= _TRIED else left
            began = time.perf_counter()
            ask(other, tried)
            seconds = _SHARE * (time.perf_counter() - began) / len(tried)
            asked += len(tried)
            left = left[len(tried) :]
            if self._is_ready and left and self._patience is not None and seconds > 2 * self._patience:
                self._allow(seconds)
                ask(work, left)
                left = [] if self.patience is None else sorted(set(left).intersection(_given_up(solutions)))
            self._is_ready = True
        _logger.info("%s handed over %d of %d rows to %s", self._factory.name, asked, len(rows), other.factory.name)
        solutions.stats["handed_over"] = asked
        return solutions, bool((solutions.status == Status.OPTIMAL).all())

    def close(self) -> None:
        """Free the other solver's native models."""
        if self._other is not None:
            self._other.close()


def _given_up(solutions: Solutions) -> list[int]:
    return row_numbers((solutions.status == Status.TIME_LIMIT) & solutions.z.flatten(1)[:, 0].isnan())


def _write(solutions: Solutions, rows: Sequence[int], found: Solutions) -> None:
    """Put the answers to some rows in their places."""
    for name in ("z", "status", "objective", "bound", "variables"):
        held, values = getattr(solutions, name), getattr(found, name)
        if held is not None:
            held[rows] = torch.nan if values is None else values
    for place, row in enumerate(rows):
        solutions.causes.pop(row, None)
        if place in found.causes:
            solutions.causes[row] = found.causes[place]
