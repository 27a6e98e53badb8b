"""`tune`: the fastest exact solver of a problem, found by trial on a sample of θ."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mapgrad.batching import Solver, admit, get_solver, require_seconds
from mapgrad.bench._clock import one_thread
from mapgrad.bench._race import WRONG, Racer, race
from mapgrad.bench._report import readable, text_table
from mapgrad.errors import MapgradError, ShapeError
from mapgrad.problems import may_be_continuous
from mapgrad.solvers import entries_for
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from mapgrad.problems import Problem

_logger = logging.getLogger("mapgrad")

_FEW: Final = 16

_CHECK_SHARE: Final = 0.2
"""Of the time, what is kept for asking another solver whether the fastest is right."""


@dataclass(frozen=True)
class Trial:
    """How a solver did, under some settings.

    Attributes:
        name: The solver's full name.
        options: Its options; empty for its own choice.
        rows: How many rows it solved, some of them more than once.
        cpu: CPU seconds a row, the median of the largest calls that were made; NaN where none was measured.
        wall: Wall-clock seconds a row, as above.
        pace: Which of the two ranks go by; infinite where none was measured.
        result: What became of it.
    """

    name: str
    options: Mapping[str, Any]
    rows: int
    cpu: float
    wall: float
    pace: float
    result: str

    @property
    def label(self) -> str:
        """The name with the options."""
        return ", ".join([self.name, *(f"{option}={value!r}" for option, value in self.options.items())])


@dataclass(frozen=True)
class Tuning:
    """The fastest solver found; as text, the table of all trials.

    Attributes:
        solver: The solver, ready for batches.
        name: Its full name.
        options: Its options: ``get_solver(tuning.name, problem, **tuning.options)`` makes another one, with a time
            limit or workers.
        trials: All trials, the fastest first.
        checked_by: The solvers that found the same objectives, all of them on the first row at least; empty where no
            other one could be asked.
        checked_rows: On how many rows of the sample one of them did.
    """

    solver: Solver
    name: str
    options: dict[str, Any]
    trials: tuple[Trial, ...] = field(repr=False)
    checked_by: tuple[str, ...] = ()
    checked_rows: int = 0

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header and rows of text."""
        best = self.trials[0].pace
        return ["solver", "µs CPU a row", "µs wall", "÷ fastest", "solves", "result"], [
            [
                trial.label,
                *(f"{readable(each * 1e6)}" if trial.rows else "–" for each in (trial.cpu, trial.wall)),
                f"{readable(trial.pace / best)}" if trial.rows else "–",
                f"{trial.rows:,}",
                trial.result,
            ]
            for trial in self.trials
        ]

    @property
    def verdict(self) -> str:
        """Who agrees with the fastest, in words, and whether its figures are of few rows."""
        rough = "Few rows were timed: give tune more seconds. " if self.trials[0].rows < _FEW else ""
        if not self.checked_by:
            return f"{rough}No other solver could be asked whether its answers are optimal."
        count = f"{self.checked_rows} row{'s' * (self.checked_rows != 1)}"
        return (
            f"{rough}Others found the same objectives, together on {count} of the sample: {', '.join(self.checked_by)}."
        )

    def __str__(self) -> str:
        return f"{text_table(*self.table())}\n{self.verdict}"


def tune(problem: Problem, theta_sample: Tensor, *, seconds: float = 30.0) -> Tuning:
    """Race the installed exact solvers of a problem, and the settings that they offer, and return the fastest.

    All solve growing parts of the sample, in turns, then the whole of it some times; slow ones drop out early. Ranks go
    by CPU time on one thread, with that of child processes; by wall-clock time if θ lies on a GPU. A solver is out that
    finds less than another one, claims an objective that its state doesn't have, or returns what isn't a state. The
    fastest one solves all of the sample, and others check it, as far as time allows.

    Args:
        problem: The feasible set.
        theta_sample: [*batch, *shape], utilities as solvers get them: of costs, −θ. As many rows as possible of those
            that training will bring, with noise; not written to.
        seconds: Wall-clock time to spend, beside imports. A solver's first row may take a tenth of it, or longer where
            an engine can't be stopped; some solver is always tried.

    Returns:
        The fastest solver, with a table of all trials: ``print(tuning)``.

    Raises:
        ShapeError: The sample has no row, or its shape or dtype doesn't fit the problem.
        NonFiniteError: The sample has NaN or infinite entries, other than −inf where that forbids an entry.
        MissingDependencyError: No exact solver of the problem is installed.
        UnsupportedProblemError: There is no exact solver of it.
        ValueError: `seconds` isn't positive.
        MapgradError: None of the solvers answered rightly; the message has the table.
    """
    seconds = require_seconds("seconds", seconds)
    theta = get_solver("auto", require_problem(problem)).at_work().require_theta(theta_sample).detach()
    rows = theta.reshape(-1, *problem.shape)
    if not len(rows):
        raise ShapeError(f"θ has shape {tuple(theta.shape)}, which has no row: tune needs at least one")
    if may_be_continuous(problem):
        rows = rows.double()  # in which states are checked
    rows, clipped, _ = admit(rows, problem, "clip")
    if clipped:
        warnings.warn(
            f"θ leaves the domain of {problem!r} in {clipped} of {len(rows)} rows, which are clipped: tune takes "
            "utilities, which are −costs",
            stacklevel=2,
        )
    racers = _racers(problem)
    deadline = time.monotonic() + seconds  # what is imported first doesn't count
    with one_thread():
        try:
            best = race(racers, rows, problem, deadline - _CHECK_SHARE * seconds, deadline, patience=seconds / 10)
        finally:
            for racer in racers:
                racer.close()
    trials = tuple(
        Trial(each.name, each.options, each.rows, each.cpu, each.wall, each.pace, each.result)
        for each in sorted(racers, key=lambda each: (each is not best, each.is_out, each.pace))
    )
    if best is None:
        table = "\n".join(f"{trial.label}: {trial.result}" for trial in trials)
        raise MapgradError(f"no solver of {problem!r} solved the sample rightly:\n{table}")
    for trial in trials:
        if trial.result.startswith(WRONG):
            _logger.warning("tune drops %s: %s", trial.label, trial.result)
    solver = get_solver(best.name, problem, **best.options)
    return Tuning(solver, best.name, dict(best.options), trials, tuple(best.checked_by), best.checked_rows)


def _racers(problem: Problem) -> list[Racer]:
    """Return the installed exact solvers under each of their settings, the cheapest by their own word first."""
    entries = [entry for entry in entries_for(problem) if not entry.missing()]
    racers: list[Racer] = []
    unset: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda entry: (entry.seconds(problem), entry.name)):
        try:
            is_exact = entry.solver_class().traits.exact
        except MapgradError as error:
            _logger.warning("tune passes over a solver: %s", error)
            continue
        if is_exact:
            racers += [Racer(entry.name, options) for options in (unset, *entry.spec.settings)]
    return racers
