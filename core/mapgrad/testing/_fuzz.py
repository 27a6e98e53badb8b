"""Random programs of known optimum for solvers of integer programs, and what became of each."""

from __future__ import annotations

import copy
import enum
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import get_solver, require_seconds
from mapgrad.errors import (
    MissingDependencyError,
    PluginError,
    ProblemError,
    RowsError,
    UnknownSolverError,
    UnsupportedProblemError,
)
from mapgrad.solutions import Status
from mapgrad.testing._case import name_of
from mapgrad.testing._fuzz_programs import KINDS, known_program
from mapgrad.testing._known_programs import TOLERANCE, row_rooms
from mapgrad.testing._shrinking import shrunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import SolverLike
    from mapgrad.testing._known_programs import KnownProgram

_SECONDS: Final = 10.0
_QUICK: Final = 1.0  # a program is shrunk if it takes no longer: each smaller one that is tried takes as long
_GRACE: Final = 2.0  # for a solver that ends at its limit, and not before


class Verdict(enum.StrEnum):
    """What became of a program."""

    RIGHT = "right"
    ERROR = "error"
    """The row ended as `Status.ERROR`, and a text says why; or with an optimum that isn't proved, as `FEASIBLE`."""
    WRONG = "wrong"
    SLOW = "slow"
    """The row ended as `Status.TIME_LIMIT`, after all the time that it may take."""
    REFUSED = "refused"
    """The solver takes no such program."""


@dataclass(frozen=True)
class FuzzOutcome:
    """What a solver made of one program.

    Attributes:
        kind: The program's kind.
        number: The program's number among those of its kind and seed.
        known: The program, with what is true of it.
        verdict: What became of it.
        text: What the solver answered, where that isn't right.
        seconds: How long it took.
    """

    kind: str
    number: int
    known: KnownProgram
    verdict: Verdict
    text: str = ""
    seconds: float = 0.0


@dataclass
class FuzzReport:
    """What a solver made of many programs.

    Attributes:
        counts: How often each verdict came, by kind.
        failures: A line for each program that ended as an error, wrong or slow.
    """

    counts: dict[str, Counter[Verdict]] = field(default_factory=dict[str, "Counter[Verdict]"])
    failures: list[str] = field(default_factory=list[str])

    def total(self, verdict: Verdict) -> int:
        """Return how often a verdict came."""
        return sum(counts[verdict] for counts in self.counts.values())

    def __str__(self) -> str:
        lines = [" " * 18 + "".join(f"{verdict:>9}" for verdict in Verdict)]
        for kind, counts in self.counts.items():
            lines.append(f"{kind:18}" + "".join(f"{counts[verdict]:9}" for verdict in Verdict))
        lines.append(f"{'all':18}" + "".join(f"{self.total(verdict):9}" for verdict in Verdict))
        return "\n".join([*lines, *self.failures])


def fuzz_solver(
    solver: SolverLike,
    count: int,
    *,
    seed: int = 0,
    kinds: str | Sequence[str] | None = None,
    folder: str | PathLike[str] | None = None,
    time_limit: float = _SECONDS,
    **options: Any,
) -> FuzzReport:
    """Try a solver of integer programs on random ones whose optimum is known without it.

    An answer is right where its status is, and its state misses no row by more than 1e-9 of the row's largest term,
    no bound and no integrality at all, and the optimum by at most 1e-9 of max |θ| or, where a variable is continuous,
    of Σ |θ_j z_j|. Better than the optimum it may be by what rows missed that far are worth.

    Args:
        solver: A name, or a class or object in place of one.
        count: How many programs, shared by the kinds.
        seed: Of the programs.
        kinds: Some of the kinds, or one; None means all.
        folder: Where programs that fail are written in MPS format; None writes none. One that failed within a second is
            made smaller as long as it fails, for some seconds; one that took longer is written as it is.
        time_limit: Seconds that a program may take. One that ends as `Status.TIME_LIMIT` then is slow, and not wrong.
        options: As for `mapgrad.get_solver`.

    Returns:
        How often each verdict came, by kind, and what failed; its text is a table.

    Raises:
        ProblemError: A kind is unknown.
        TypeError: The solver, given by its name or class, has no such option; or `count` or `seed` isn't an int.
        ValueError: One of them is negative, or the time limit isn't a positive number.
    """
    outcomes = iter_fuzz(solver, count, seed=seed, kinds=kinds, time_limit=time_limit, **options)
    return report_of(outcomes, solver, seed, folder, time_limit=time_limit, **options)


def iter_fuzz(
    solver: SolverLike,
    count: int,
    *,
    seed: int = 0,
    kinds: str | Sequence[str] | None = None,
    time_limit: float = _SECONDS,
    **options: Any,
) -> Iterator[FuzzOutcome]:
    """Yield what a solver makes of each program, as `fuzz_solver` tries them, with the same errors."""
    names = (kinds,) if isinstance(kinds, str) else tuple(KINDS if kinds is None else kinds)
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise ProblemError(f"kinds of programs are {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}")
    count, seed = whole_number("count", count, 0), whole_number("seed", seed, 0)
    time_limit = require_seconds("time_limit", time_limit)
    if isinstance(solver, str | type):
        get_solver(solver, None, time_limit=time_limit, **options).close()  # refuses options that nobody knows
    for place in range(count):
        kind, number = names[place % len(names)], place // len(names)
        known = known_program(kind, seed, number)
        started = time.monotonic()
        verdict, text = judged(solver, known, time_limit, **options)
        yield FuzzOutcome(kind, number, known, verdict, text, time.monotonic() - started)


def report_of(
    outcomes: Iterable[FuzzOutcome],
    solver: SolverLike,
    seed: int,
    folder: str | PathLike[str] | None = None,
    *,
    time_limit: float = _SECONDS,
    **options: Any,
) -> FuzzReport:
    """Return the report of outcomes; programs that failed are written into the folder, shrunk if they are quick."""
    report = FuzzReport()
    for outcome in outcomes:
        report.counts.setdefault(outcome.kind, Counter())[outcome.verdict] += 1
        if outcome.verdict in (Verdict.RIGHT, Verdict.REFUSED):
            continue
        known, text = outcome.known, outcome.text
        if folder is not None and outcome.seconds <= _QUICK and outcome.verdict is not Verdict.SLOW:
            limited = {**options, "time_limit": min(time_limit, 2 * _QUICK)}
            known = shrunk(known, partial(_ends_so, solver, outcome.verdict, _words(text), limited))
            text = judged(solver, known, **limited)[1]
        line = f"{outcome.verdict}: {outcome.kind} {outcome.number} of seed {seed}: {text}"
        if folder is not None:
            path = Path(folder) / f"{name_of(solver)}-{outcome.kind}-{seed}-{outcome.number}.mps"
            _write(known, path)
            line += f"; see {path}"
        report.failures.append(line)
    return report


def _ends_so(
    solver: SolverLike, verdict: Verdict, words: list[str], options: dict[str, Any], known: KnownProgram
) -> bool:
    """Tell whether the same becomes of a program."""
    found, text = judged(solver, known, **options)
    return found is verdict and _words(text) == words


def _words(text: str) -> list[str]:
    """Return the first words of a text, without its numbers."""
    return re.findall(r"[A-Za-z]{2,}", text)[:3]


def judged(
    solver: SolverLike, known: KnownProgram, time_limit: float = _SECONDS, **options: Any
) -> tuple[Verdict, str]:
    """Return what becomes of a program, and what is wrong with the answer."""
    started = time.monotonic()
    try:
        with get_solver(solver, known.program, time_limit=time_limit, **options) as at_work:
            solutions = at_work.solve(torch.tensor(known.theta))
    except UnsupportedProblemError as error:
        return Verdict.REFUSED, str(error)
    except (MissingDependencyError, PluginError, UnknownSolverError):
        raise
    except RowsError as error:
        if error.solutions is None:
            return Verdict.WRONG, f"{type(error).__name__}: {error}"
        solutions = error.solutions
    except Exception as error:  # noqa: BLE001 (a solver under test may raise anything)
        return Verdict.WRONG, f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    if seconds > time_limit + _GRACE:
        return Verdict.WRONG, f"{seconds:.1f} s, with a limit of {time_limit:g} s"
    return _judge(solutions, known, is_late=seconds >= time_limit, seconds=seconds)


def _judge(solutions: Solutions, known: KnownProgram, *, is_late: bool, seconds: float) -> tuple[Verdict, str]:
    status = Status(int(solutions.status))
    expected = known.status.name + (f" {known.value!r}" if known.status is Status.OPTIMAL else "")
    if status is Status.TIME_LIMIT:
        return (Verdict.SLOW if is_late else Verdict.WRONG), f"TIME_LIMIT after {seconds:.1f} s instead of {expected}"
    if status is Status.ERROR:
        message = str(solutions.causes.get(0, "")).strip()
        return (Verdict.ERROR if message else Verdict.WRONG), f"ERROR ({message}) instead of {expected}"
    z = solutions.z.numpy()
    if status is Status.FEASIBLE and known.status is Status.OPTIMAL and not _fault_of(known, z):
        return Verdict.ERROR, f"FEASIBLE, which is true, instead of {expected}"
    if status is not known.status:
        value = f" {float(known.theta @ z)!r}" if np.isfinite(z).all() else ""
        return Verdict.WRONG, f"{status.name}{value} instead of {expected}"
    if status is not Status.OPTIMAL:
        return Verdict.RIGHT, ""
    fault = _fault_of(known, z)
    return (Verdict.WRONG, f"{fault}; right: {expected}") if fault else (Verdict.RIGHT, "")


def _fault_of(known: KnownProgram, z: NDArray[np.float64]) -> str:
    """Return what is wrong with a state that is said to be optimal."""
    program, theta = known.program, known.theta
    outside = np.maximum(program.lower - z, z - program.upper)
    if outside.max(initial=0) > 0:
        return f"z[{outside.argmax()}] = {float(z[outside.argmax()])!r} is out of bounds"
    broken = program.integrality & (z != z.round())
    if broken.any():
        return f"z[{broken.argmax()}] = {float(z[broken.argmax()])!r} isn't an integer"
    missed, rooms = _row_misses(program, z), row_rooms(program, z)
    row = int(np.argmax(missed - rooms)) if len(missed) else 0
    if len(missed) and missed[row] > rooms[row]:
        return f"row {row} is missed by {missed[row]:.2g}, and {rooms[row]:.2g} is allowed"
    terms = 0.0 if program.integrality.all() else max(known.terms, float(np.abs(theta * z).sum()))
    room = TOLERANCE * max(terms, float(np.abs(theta).max(initial=0)))
    difference = float(theta @ z) - known.value
    if difference < -room:
        return f"z is worth {-difference:.3g} less than the optimum, and {room:.2g} is allowed"
    if difference > room + 2 * known.gain:
        return f"z is worth {difference:.3g} more than the optimum, and {room + 2 * known.gain:.2g} is allowed"
    return ""


def _row_misses(program: IntegerProgram, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much x [num_vars] misses each row."""
    activity = program.matrix.activities(x[None])[0]
    return np.maximum(0.0, np.maximum(program.row_lower - activity, activity - program.row_upper))


def _write(known: KnownProgram, path: Path) -> None:
    """Write a program with the row of θ as its objective, to be minimised: its costs are -θ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = copy.copy(known.program)
    vars(program).update(objective=-known.theta)
    program.to_mps(path)
