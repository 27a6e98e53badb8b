"""Rows for `record`, where somebody records."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

from mapgrad.batching._theta import row_numbers
from mapgrad.batching._users_level import users_level
from mapgrad.recording import RECORDERS, Asked, Found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from mapgrad.batching._policy import Policy
    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import SolverFactory


class _Settings(Protocol):
    """What a user asked for."""

    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def time_limit(self) -> float | None: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def workers(self) -> object: ...


class _Work(Protocol):
    """A solver at work."""

    factory: SolverFactory
    problems: Sequence[Problem | None]
    policy: Policy


def record_rows(work: _Work, settings: _Settings, rows: Tensor, solutions: Solutions, seconds: float) -> None:
    """Have rows [N, *shape] written, as they were solved, with their answers: those that fail, or all."""
    recorder = RECORDERS.active
    if recorder is None:
        return
    numbers = range(len(rows))
    if recorder.failing:
        numbers = row_numbers(work.policy.are_unsolved(solutions.status))
    asked = Asked(
        work.factory, settings.options, work.problems, settings.time_limit, settings.deadline, settings.workers
    )
    text = recorder.note(asked, Found(rows, solutions, numbers, seconds))
    if text is not None:
        warnings.warn(text, stacklevel=users_level())
