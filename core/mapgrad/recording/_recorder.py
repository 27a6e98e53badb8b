"""Who writes rows to files while a program runs, and where it is switched on."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np

from mapgrad.errors import MapgradError
from mapgrad.problems import IntegerProgram
from mapgrad.recording._row import packed, text_of_row
from mapgrad.recording._script import script_of
from mapgrad.recording._values import encoded
from mapgrad.solutions import Status
from mapgrad.solvers import FunctionSolver, lower
from mapgrad.workers import new_lock, text_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import Lowering, SolverFactory

_OURS: Final = re.compile(r".*-[0-9a-f]{16}\.(json|npz|mps|py)|mapgrad-[0-9a-f]{32}\.(part|mps)")
_COUNTED_AGAIN: Final = 64
"""Other processes may write to the folder: its files are counted anew after that part of the size was written."""
_BYTES_OF_ENTRY: Final = 12
"""The fewest that an entry of a program takes in a file in MPS format."""


@dataclass(frozen=True)
class Asked:
    """Who was asked for rows, and how.

    Attributes:
        factory: Makes the solver.
        options: Its options.
        problems: What was solved: one for all rows, or one for each; None where it isn't known.
        time_limit: Seconds for a row, or None.
        deadline: Seconds for a batch, or None.
        workers: Who ran them.
    """

    factory: SolverFactory
    options: Mapping[str, Any]
    problems: Sequence[Problem | None]
    time_limit: float | None
    deadline: float | None
    workers: object


@dataclass(frozen=True)
class Found:
    """What came of them.

    Attributes:
        rows: θ as it was solved, [N, *shape].
        solutions: Their answers, before anything is filled in.
        numbers: Those to be written.
        seconds: That the batch took.
    """

    rows: Tensor
    solutions: Solutions
    numbers: Sequence[int]
    seconds: float


class Recorder:
    """Writes rows to a folder, each once, until it is closed. Made by `record`.

    Attributes:
        folder: The folder.
        failing: Whether failing rows alone are written.
        max_bytes: The most that the folder's rows may take.
        written: How many rows were.
    """

    def __init__(self, folder: Path, max_bytes: int, *, failing: bool) -> None:
        self.folder, self.failing, self.max_bytes = folder, failing, max_bytes
        self.written = 0
        self._lock = new_lock()
        self._has_warned = False
        self._since_count = 0
        _require_writable(folder)
        self._used = self._count()

    def note(self, asked: Asked, found: Found) -> str | None:
        """Write rows; whatever goes wrong is no error of the program that solves them.

        Returns:
            What to warn of; None if there is nothing, or nothing new.
        """
        with self._lock:
            try:
                for number in found.numbers:
                    self._write(asked, found, number)
            except Exception as error:  # noqa: BLE001 (the run goes on, whatever keeps a row from its file)
                what = str(error) if isinstance(error, _FullError) else text_of(error)
                if not self._has_warned:
                    self._has_warned = True
                    return f"mapgrad.record can't write all rows to {self.folder}: {what}. Nothing else is said of it"
        return None

    def _write(self, asked: Asked, found: Found, number: int) -> None:
        problem = asked.problems[number % len(asked.problems)]
        theta: NDArray[Any] = found.rows[number].detach().cpu().numpy()
        status = Status(int(found.solutions.status[number]))
        arrays: dict[str, NDArray[Any]] = {"theta": theta}
        facts = _facts_of_solver(asked, arrays) | {"problem": encoded(problem, arrays), "shown": repr(problem)}
        key = hashlib.sha256(repr((facts, status, theta.shape, theta.dtype.str)).encode())
        for array in arrays.values():
            key.update(np.ascontiguousarray(array).data)
        name = (
            f"{re.sub(r'[^A-Za-z0-9_.]+', '_', asked.factory.name)[:60]}-{status.name.lower()}-{key.hexdigest()[:16]}"
        )
        if (self.folder / f"{name}.json").exists():
            return
        facts |= _facts_of_answer(found, number, status, theta, arrays)
        facts |= {"versions": _versions(asked.factory), "written": datetime.now(UTC).isoformat(timespec="seconds")}
        data = packed(arrays)
        self._put(f"{name}.npz", data)
        facts["mps"] = self._write_program(asked, problem, theta, name, facts)
        self._put(f"{name}.json", text_of_row(facts | {"replay": f"mapgrad replay {name}.json"}))
        self.written += 1

    def _write_program(
        self, asked: Asked, problem: Problem | None, theta: NDArray[Any], name: str, facts: Mapping[str, Any]
    ) -> str:
        """Write the row's integer program and a script that solves it; return the file's name, or why there is none."""
        if problem is None:
            return "the problem isn't known"
        try:
            lowering = _program_of(asked.factory, problem)
            native = lowering.native
            assert isinstance(native, IntegerProgram)
            if _BYTES_OF_ENTRY * (len(native.matrix.data) + native.num_vars) > self.max_bytes - self._used:
                return "the program is larger than what is left of max_bytes"
            with _temporary(self.folder, ".mps") as part:
                native.to_mps(part, theta=_utilities(lowering, theta))
                self._take(f"{name}.mps", part)
            self._put(f"{name}.py", script_of(asked.factory, facts).encode())
        except (MapgradError, _FullError) as error:
            return str(error)
        return f"{name}.mps"

    def _put(self, name: str, contents: bytes) -> None:
        self._require_room(len(contents))
        with _temporary(self.folder, ".part") as part:
            part.write_bytes(contents)
            self._take(name, part)

    def _take(self, name: str, part: Path) -> None:
        """Give a file its name; there is never a part of it under that."""
        size = part.stat().st_size
        self._require_room(size)
        part.replace(self.folder / name)
        self._used += size
        self._since_count += size

    def _require_room(self, size: int) -> None:
        if self._since_count * _COUNTED_AGAIN > self.max_bytes:
            self._used, self._since_count = self._count(), 0
        if self._used + size > self.max_bytes:
            raise _FullError(
                f"the rows there have max_bytes={self.max_bytes} bytes; take another folder, or allow more"
            )

    def _count(self) -> int:
        size = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name):
                    with suppress(FileNotFoundError):  # another process may have renamed it
                        size += entry.stat().st_size
        return size

    def close(self) -> None:
        """Write no more rows; what was open before goes on."""
        RECORDERS.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Recorder of {'failing' if self.failing else 'all'} rows to {self.folder}, {self.written} written>"


class _FullError(Exception):
    """There is no room left."""


class Recorders:
    """Those that are open in this process.

    Attributes:
        active: The one that was opened last; None where nothing is recorded.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._open: list[Recorder] = []
        self.active: Recorder | None = None

    def add(self, recorder: Recorder) -> None:
        """Open one."""
        with self._lock:
            self._open.append(recorder)
            self.active = recorder

    def remove(self, recorder: Recorder) -> None:
        """Close one, which may be closed already."""
        with self._lock:
            self._open = [each for each in self._open if each is not recorder]
            self.active = self._open[-1] if self._open else None

    @property
    def wants_all(self) -> bool:
        """Whether rows are written that don't fail."""
        return self.active is not None and not self.active.failing


RECORDERS: Final = Recorders()


def record(path: str | PathLike[str], *, failing: bool = True, max_bytes: int = 256 * 2**20) -> Recorder:
    """Write each row that a solver fails to a folder, from now on, in all threads of this process.

    A row fails that an exact solver doesn't solve to optimality, or any solver fails, whatever `on_error` makes of it.
    Each is written once, as `replay` and ``mapgrad replay`` take it: a .json file, which says what was asked of which
    solver, what came of it and under which versions, and a .npz file with θ, the state and the problem's arrays. Where
    the problem has an integer program, there are also that of the row, with θ as its objective, in MPS format, and a
    script that solves it without mapgrad, for those who make the engine. No file holds pickled objects. What can't be
    known from a file: what a function was called with beside θ, and options that aren't numbers, text and the like.

    Rows that can't be solved, with NaN say, aren't written. Nothing that happens while rows are written fails the
    program: there is one warning. Ranks may share a folder: rows that are equal have one name.

    Args:
        path: The folder, which is made if it isn't there.
        failing: False writes every row.
        max_bytes: The most that all rows in the folder may take; beyond that no more are written. Each process that
            writes to it at the same time may add a sixty-fourth.

    Returns:
        What ends it, as a context manager or by its method `close`; without that, it goes on as long as the program.

    Raises:
        OSError: The folder can't be made or written to.
        ValueError: `max_bytes` isn't positive.

    Example:
        >>> import mapgrad, torch
        >>> solver = mapgrad.get_solver("highs", mapgrad.IntegerProgram(A_eq=[[2.0, 2.0]], b_eq=[1.0]), on_error="nan")
        >>> with mapgrad.record("faults"):  # doctest: +SKIP
        ...     solver(torch.ones(1, 2))
    """
    if max_bytes <= 0:
        raise ValueError(f"max_bytes must be a positive number of bytes, got {max_bytes!r}")
    recorder = Recorder(Path(path).absolute(), max_bytes, failing=failing)
    RECORDERS.add(recorder)
    return recorder


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, ".part") as part:
            part.write_bytes(b"0")
    except OSError as error:
        text = f"mapgrad.record can't write to {folder}, name another folder: {error.strerror}"
        raise OSError(error.errno, text) from error


@contextmanager
def _temporary(folder: Path, suffix: str) -> Generator[Path]:
    """Name a file that is gone at the end, unless it has got another name."""
    path = folder / f"mapgrad-{uuid.uuid4().hex}{suffix}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _facts_of_solver(asked: Asked, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    factory, options, left_out = asked.factory, dict[str, Any](), dict[str, str]()
    for name, value in asked.options.items():
        try:
            options[name] = encoded(value, arrays)
        except TypeError:
            left_out[name] = repr(value)
    workers = asked.workers if isinstance(asked.workers, int | str | None) else repr(asked.workers)
    facts = {"name": _path_of(factory), "label": factory.label, "options": options, "options_left_out": left_out}
    facts |= {"time_limit": asked.time_limit, "deadline": asked.deadline, "workers": workers}
    return {"solver": facts}


def _path_of(factory: SolverFactory) -> str:
    """Return a solver's name or, for a class, an object or a function of a user's, where that is."""
    if factory.spec is not None:
        return factory.name
    solver: Any = factory.factory
    solver = solver.function if isinstance(solver, FunctionSolver) else solver
    kind = solver if hasattr(solver, "__qualname__") else cast("Any", type(solver))
    return f"{kind.__module__}:{kind.__qualname__}"


def _facts_of_answer(
    found: Found, number: int, status: Status, theta: NDArray[Any], arrays: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    solutions = found.solutions
    z: NDArray[Any] = solutions.z[number].detach().cpu().numpy()
    objective = None
    if np.isfinite(z).all():
        arrays["z"] = z
        given: Any = solutions.objective
        objective = float("nan") if given is None else float(given[number])
        if np.isnan(objective):
            priced = np.where(np.isneginf(theta), 0.0, theta.astype(np.float64))
            objective = float(np.vdot(priced, z.astype(np.float64)))
    cause = solutions.causes.get(number)
    return {
        "status": status.name,
        "cause": "" if cause is None else text_of(cause),
        "objective": encoded(objective, arrays),
        "row": number,
        "rows": len(found.rows),
        "seconds_of_all_rows": round(found.seconds, 6),
    }


def _program_of(factory: SolverFactory, problem: Problem) -> Lowering:
    """Return how a problem becomes an integer program: that of the solver, if it gets one.

    Raises:
        UnsupportedProblemError: it has none.
    """
    lowering = factory.lowering(problem)
    return lowering if isinstance(lowering.native, IntegerProgram) else lower(problem, (IntegerProgram,))


def _utilities(lowering: Lowering, theta: NDArray[Any]) -> NDArray[np.float64]:
    """Return the utilities of a program's variables, −inf for those that must be 0."""
    entries = np.isneginf(theta)[None]
    rows = lowering.rows(np.where(entries, 0.0, theta[None]).astype(np.float64))
    return np.where(lowering.forbidden(entries), -np.inf, rows).reshape(lowering.native.shape)


def _versions(factory: SolverFactory) -> dict[str, str]:
    """Return the versions of Python, mapgrad and what the solver needs."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mapgrad", "torch", "numpy", *(factory.spec.requires if factory.spec is not None else ())):
        for name in _distributions().get(package, [package]):
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return packages_distributions()
