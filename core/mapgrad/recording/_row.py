"""One row's files: JSON for what people read, and beside it an array file of NumPy, without pickled objects."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from mapgrad.errors import MapgradError
from mapgrad.recording._values import decoded, decoded_problem
from mapgrad.solutions import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from os import PathLike

    from numpy.lib.npyio import NpzFile
    from numpy.typing import NDArray

    from mapgrad.problems import Problem

FORMAT: Final = "mapgrad row 1"
_HEADER: Final = 4_096
"""More bytes than stand before an array's entries."""
_LARGEST: Final = 1 << 30
"""The most bytes that all arrays of a row may take once they are unpacked."""
_FLOATS: Final = np.dtype(np.float32), np.dtype(np.float64)


@dataclass(frozen=True)
class RecordedRow:
    """A row as a file has it.

    Attributes:
        theta: θ as it was solved, within the problem's domain, [*shape] float32 or float64.
        problem: The feasible set; None where it wasn't known.
        solver: The solver's full name; for a class or function of a user's its path, ``module:name``.
        label: Its name, with distribution and version of its plugin.
        options: Its options, as far as a file can hold them.
        time_limit: Seconds for the row, or None.
        deadline: Seconds for its batch, or None.
        workers: Who ran it, in the words of `get_solver`.
        status: How it ended.
        cause: What was raised; empty if nothing was.
        objective: ⟨θ, z⟩, with the utilities of what θ doesn't price; None without a state.
        z: The state, [*shape]; None if there is none.
        versions: Of Python, mapgrad and the packages that took part.
    """

    theta: NDArray[Any]
    problem: Problem | None
    solver: str
    label: str
    options: Mapping[str, Any]
    time_limit: float | None
    deadline: float | None
    workers: int | str | None
    status: Status
    cause: str
    objective: float | None
    z: NDArray[Any] | None
    versions: Mapping[str, str]


class _Arrays(Mapping[str, "NDArray[Any]"]):
    """The arrays of a file, each unpacked once, where it is asked for and not too large.

    Args:
        file: It, open.
    """

    def __init__(self, file: NpzFile) -> None:
        self._file = file
        self._unpacked: dict[str, NDArray[Any]] = {}
        self._left = _LARGEST

    def size(self, name: str) -> int:
        """Return how many bytes an array has in the file, its header included, once it is unpacked."""
        archive = self._file.zip
        assert archive is not None
        return archive.getinfo(f"{name}.npy").file_size

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._unpacked:
            if name not in self._file.files:
                raise KeyError(name)
            size = self.size(name)
            if size > self._left:
                raise ValueError(
                    f"{name} is of {size} bytes, where {self._left} of the {_LARGEST} are left that a row's arrays may "
                    f"take"
                )
            self._left -= size
            self._unpacked[name] = self._file[name]
        return self._unpacked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the contents of an array file.

    Raises:
        ValueError: They are too large to be read again.
    """
    size = sum(array.nbytes + _HEADER for array in arrays.values())
    if size > _LARGEST:
        raise ValueError(f"a row's arrays may take {_LARGEST} bytes, and those of one take {size}")
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def text_of_row(facts: Mapping[str, Any]) -> bytes:
    """Return the contents of a row's JSON."""
    text = json.dumps({"format": FORMAT, **facts}, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")  # surrogates of file names that aren't UTF-8


def read_row(path: str | PathLike[str], modules: Collection[str] = ()) -> RecordedRow:
    """Return a row that `record` wrote.

    Args:
        path: One of the row's files.
        modules: Modules of the user's that define its problem.

    Raises:
        FileNotFoundError: there is no such file.
        MapgradError: it isn't such a row, or needs a module that isn't named.
    """
    text, data = (Path(path).absolute().with_suffix(suffix) for suffix in (".json", ".npz"))
    try:
        facts: Any = json.loads(text.read_bytes())
        if not isinstance(facts, dict) or cast("dict[str, Any]", facts).get("format") != FORMAT:
            raise ValueError(f"it isn't in the format {FORMAT!r}")  # noqa: TRY301 (told like all that may be wrong)
        with np.load(data, allow_pickle=False) as file:
            return _row(cast("dict[str, Any]", facts), _Arrays(file), modules)
    except (FileNotFoundError, MapgradError):
        raise
    except Exception as error:
        raise MapgradError(f"{text} isn't a row that mapgrad.record wrote, or is damaged: {error}") from error


def _row(facts: dict[str, Any], arrays: _Arrays, modules: Collection[str]) -> RecordedRow:
    solver = facts["solver"]
    problem = decoded_problem(facts["problem"], arrays, modules)
    if problem is not None:
        _require_room(arrays, problem.shape)
    row = RecordedRow(
        theta=arrays["theta"],
        problem=problem,
        solver=str(solver["name"]),
        label=str(solver["label"]),
        options={name: decoded(value, arrays, modules) for name, value in solver["options"].items()},
        time_limit=solver["time_limit"],
        deadline=solver["deadline"],
        workers=solver["workers"],
        status=Status[facts["status"]],
        cause=str(facts["cause"]),
        objective=decoded(facts["objective"], arrays, modules),
        z=arrays.get("z"),
        versions=facts["versions"],
    )
    _require_sound(row)
    return row


def _require_room(arrays: _Arrays, shape: tuple[int, ...]) -> None:
    """Refuse arrays that unpack to far more than θ and a state take, before they are unpacked.

    Raises:
        ValueError: There is one.
    """
    most = math.prod(shape) * np.dtype(np.float64).itemsize + _HEADER
    for name in {"theta", "z"}.intersection(arrays):
        size = arrays.size(name)
        if size > most:
            raise ValueError(f"{name} is of {size} bytes, where floats of shape {shape} belong")


def _require_sound(row: RecordedRow) -> None:
    """Refuse values that no row has.

    Raises:
        ValueError: There is one.
    """
    shape = row.theta.shape if row.problem is None else row.problem.shape
    for name, array in (("theta", row.theta), ("z", row.z)):
        if array is not None and (array.dtype not in _FLOATS or array.shape != shape):
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, where floats of shape {shape} belong")
    for name in ("time_limit", "deadline", "objective"):
        value: Any = getattr(row, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and (value > 0 or name == "objective")):
            raise ValueError(f"{name} is {value!r}")
