"""Who writes rows to files while a program runs, and where it is switched on."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from mapgrad.arguments import whole_number
from mapgrad.errors import MapgradError
from mapgrad.problems import IntegerProgram
from mapgrad.recording._facts import facts_of_answer, facts_of_solver, program_of, utilities, versions
from mapgrad.recording._row import packed, text_of_row
from mapgrad.recording._script import script_of
from mapgrad.recording._values import encoded
from mapgrad.solutions import Status
from mapgrad.workers import new_lock, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from mapgrad.problems import Problem
    from mapgrad.recording._facts import Asked, Found

_OURS: Final = re.compile(r".*-[0-9a-f]{16}\.(json|npz|mps|py)|mapgrad-[0-9a-f]{32}\.(part|mps)")
_COUNTED_AGAIN: Final = 64
"""Other processes may write to the folder: its files are counted anew after that part of the size was written."""
_REASON: Final = 2_000
"""The most that a reason why a row has no program takes."""
_BYTES_OF_ENTRY: Final = 12
"""The fewest that an entry of a program takes in a file in MPS format."""


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
        self._has_warned = self._is_full = False
        self._since_count = self._reserved = 0
        _require_writable(folder)
        self._used = self._count()

    def note(self, asked: Asked, found: Found) -> str | None:
        """Write rows; whatever goes wrong is no error of the program that solves them.

        Returns:
            What to warn of; None if there is nothing, or nothing new.
        """
        with self._lock:
            try:
                for number in () if self._is_full else found.numbers:
                    self._write(asked, found, number)
            except Exception as error:  # noqa: BLE001 (the run goes on, whatever keeps a row from its file)
                self._is_full = isinstance(error, _FullError)
                what = str(error) if self._is_full else text_of(error)
                if not self._has_warned:
                    self._has_warned = True
                    return f"mapgrad.record can't write all rows to {self.folder}: {what}. Nothing else is said of it"
        return None

    def _write(self, asked: Asked, found: Found, number: int) -> None:
        problem = asked.problems[number % len(asked.problems)]
        theta: NDArray[Any] = found.rows[number].detach().cpu().numpy()
        status = Status(int(found.solutions.status[number]))
        arrays: dict[str, NDArray[Any]] = {"theta": theta}
        facts = facts_of_solver(asked, arrays) | {"problem": encoded(problem, arrays), "shown": repr(problem)}
        key = hashlib.sha256(repr((facts, status, theta.shape, theta.dtype.str)).encode())
        for array in arrays.values():
            key.update(np.ascontiguousarray(array).data)
        name = (
            f"{re.sub(r'[^A-Za-z0-9_.]+', '_', asked.factory.name)[:60]}-{status.name.lower()}-{key.hexdigest()[:16]}"
        )
        if (self.folder / f"{name}.json").exists():
            return
        facts |= facts_of_answer(found, number, status, theta, arrays)
        facts |= {"versions": versions(asked.factory), "written": datetime.now(UTC).isoformat(timespec="seconds")}
        facts["replay"] = f"mapgrad replay {name}.json"
        data = packed(arrays)
        self._reserved = len(data) + len(text_of_row(facts)) + _REASON
        try:
            self._require_room(0)
            facts["mps"] = self._write_program(asked, problem, theta, name, facts)
            self._reserved = 0
            self._put(f"{name}.npz", data)
            self._put(f"{name}.json", text_of_row(facts))  # the last one, as it is what says that there is a row
        except Exception:
            self._remove_parts(name)
            raise
        finally:
            self._reserved = 0
        self.written += 1

    def _remove_parts(self, name: str) -> None:
        """Remove what is there of a row that isn't whole, as where the disk is full."""
        if not (self.folder / f"{name}.json").exists():  # which another process may have written meanwhile
            for path in (self.folder / f"{name}{suffix}" for suffix in (".mps", ".py", ".npz")):
                with suppress(OSError):
                    size = path.stat().st_size
                    path.unlink()
                    self._used -= size

    def _write_program(
        self, asked: Asked, problem: Problem | None, theta: NDArray[Any], name: str, facts: Mapping[str, Any]
    ) -> str:
        """Write the row's integer program and a script that solves it; return the file's name, or why there is none."""
        if problem is None:
            return "the problem isn't known"
        try:
            lowering = program_of(asked.factory, problem)
            native = lowering.native
            assert isinstance(native, IntegerProgram)
            if _BYTES_OF_ENTRY * (len(native.matrix.data) + native.num_vars) > self._room:
                return "the program is larger than what is left of max_bytes"
            with _temporary(self.folder, ".mps") as part:
                native.to_mps(part, theta=utilities(lowering, theta))
                self._take(f"{name}.mps", part)
            self._put(f"{name}.py", script_of(asked.factory, facts).encode())
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 (a problem of a user's makes the program; the row is written without)
            text = str(error) if isinstance(error, MapgradError | _FullError) else text_of(error)
            return text[: _REASON // 4]
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

    @property
    def _room(self) -> int:
        return self.max_bytes - self._used - self._reserved

    def _require_room(self, size: int) -> None:
        if self._since_count * _COUNTED_AGAIN > self.max_bytes:
            self._used, self._since_count = self._count(), 0
        if size > self._room:
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
        wants_all: Whether it writes rows that don't fail, too.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._open: list[Recorder] = []
        self.active: Recorder | None = None
        self.wants_all = False

    def add(self, recorder: Recorder) -> None:
        """Open one."""
        self._change(lambda others: [*others, recorder])

    def remove(self, recorder: Recorder) -> None:
        """Close one, which may be closed already."""
        self._change(lambda others: [each for each in others if each is not recorder])

    def _change(self, change: Callable[[list[Recorder]], list[Recorder]]) -> None:
        with self._lock:
            self._open = change(self._open)
            self.active = self._open[-1] if self._open else None
            self.wants_all = self.active is not None and not self.active.failing


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
        TypeError: `max_bytes` isn't an int.
        ValueError: It isn't positive.

    Example:
        >>> import mapgrad, torch
        >>> solver = mapgrad.get_solver("highs", mapgrad.IntegerProgram(A_eq=[[2.0, 2.0]], b_eq=[1.0]), on_error="nan")
        >>> with mapgrad.record("faults"):  # doctest: +SKIP
        ...     solver(torch.ones(1, 2))
    """
    recorder = Recorder(Path(path).absolute(), whole_number("max_bytes", max_bytes, 1), failing=failing)
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
