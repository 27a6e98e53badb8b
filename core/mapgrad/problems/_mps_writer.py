"""Integer programs as files in MPS format."""

from __future__ import annotations

import bz2
import gzip
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._file_model import INFINITE
from mapgrad.problems._text_file import path_with_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from mapgrad.problems._program_data import ProgramData

_BEGIN, _END = " integer 'MARKER' 'INTORG'", " integer 'MARKER' 'INTEND'"  # around integer columns


def write_mps(program: ProgramData, path: str | PathLike[str]) -> None:
    """Write a program in full form, and its objective where it has one.

    Raises:
        ProblemError: the file's name isn't that of an MPS file, or the format would take a number for an infinite one,
            or has no place for a semi-continuous variable.
    """
    path = path_with_suffix(path, ".mps")
    conditional = [side for *_, low, high in program.indicators for side in (low, high)]
    sides = np.concatenate((program.row_lower, program.row_upper, program.lower, program.upper, conditional))
    large = np.isfinite(sides) & (np.abs(sides) >= INFINITE)
    if large.any():
        raise ProblemError(
            f"{program!r} has the bound or right side {sides[large][0]}, but in MPS files numbers from {INFINITE:g} on "
            "stand for infinity; scale it, or leave it out"
        )
    odd = program.semicontinuous & ((program.lower < 0) | (program.upper == 0))
    if odd.any():
        raise ProblemError(
            f"{program!r} has the semi-continuous variable {int(odd.argmax())} with a negative lower bound or the "
            "upper bound 0, for which MPS files have no place"
        )
    objective = np.zeros(program.num_vars) if program.objective is None else program.objective
    text = "\n".join(_lines(program, objective.tolist())).encode()
    packed = {".gz": lambda: gzip.compress(text, mtime=0), ".bz2": lambda: bz2.compress(text)}
    path.write_bytes(packed[path.suffix]() if path.suffix in packed else text)


def _lines(program: ProgramData, objective: list[float]) -> Iterator[str]:
    rows = list(_rows(program))
    yield from ("NAME program", "ROWS", " N cost")
    yield from (f" {row.kind} r{number}" for number, row in enumerate(rows))
    yield "COLUMNS"
    entries = [[f" c{column} cost {cost!r}"] for column, cost in enumerate(objective)]
    for number, row in enumerate(rows):
        columns, values = row.entries
        for column, value in zip(cast("list[int]", columns.tolist()), values.tolist(), strict=True):
            entries[column].append(f" c{column} r{number} {value!r}")
    for column, integer in enumerate(program.integrality.tolist()):
        yield from (_BEGIN, *entries[column], _END) if integer else entries[column]
    yield from ("RHS", f" right cost {-program.offset!r}")
    yield from (f" right r{number} {row.side!r}" for number, row in enumerate(rows))
    yield from _section("RANGES", (f" range r{n} {row.width!r}" for n, row in enumerate(rows) if row.width is not None))
    yield "BOUNDS"
    bounds = zip(program.lower.tolist(), program.upper.tolist(), strict=True)
    for column, (low, high) in enumerate(bounds):
        yield f" MI bound c{column}" if low == -np.inf else f" LO bound c{column} {low!r}"
        if program.semicontinuous[column]:
            yield f" {'SI' if program.integrality[column] else 'SC'} bound c{column} {min(high, 1e30)!r}"
        else:
            yield f" PL bound c{column}" if high == np.inf else f" UP bound c{column} {high!r}"
    yield from _section("SOS", _sets(program))
    conditions = ((number, *row.condition) for number, row in enumerate(rows) if row.condition)
    yield from _section("INDICATORS", (f" IF r{number} c{column} {value}" for number, column, value in conditions))
    yield "ENDATA\n"


def _section(name: str, lines: Iterable[str]) -> list[str]:
    data = list(lines)
    return [name, *data] if data else []


def _sets(program: ProgramData) -> Iterator[str]:
    for number, (kind, columns, weights) in enumerate(program.sos):
        yield f" S{kind} SOS set{number}"
        yield from (f" SOS c{column} {weight!r}" for column, weight in zip(columns, weights, strict=True))


class _Row(NamedTuple):
    kind: str
    entries: tuple[NDArray[np.int64], NDArray[np.float64]]
    side: float
    width: float | None
    condition: tuple[int, int] | None


def _rows(program: ProgramData) -> Iterator[_Row]:
    """Yield the rows and the indicator rows; those without sides are left out."""
    sides = zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)
    rows = [(program.matrix.row(number), low, high, None) for number, (low, high) in enumerate(sides)]
    added = [(row.row(0), low, high, (column, value)) for column, value, row, low, high in program.indicators]
    for entries, low, high, condition in (*rows, *added):
        for kind, side, width in _spelled(low, high):
            yield _Row(kind, entries, side, width, condition)


def _spelled(low: float, high: float) -> Sequence[tuple[str, float, float | None]]:
    """Return types, right sides and ranges of a row: of two rows where no range brings back both sides exactly."""
    if low == high:
        return [("E", high, None)]
    sides = (("L", high), ("G", low))
    one_sided = [(kind, side, None) for kind, side in sides if np.isfinite(side)]
    if len(one_sided) == 2:
        nearest = high - low
        for width in (nearest, *np.nextafter(nearest, (0, np.inf)).tolist()):
            if width < INFINITE and high - width == low:
                return [("L", high, width)]
            if width < INFINITE and low + width == high:
                return [("G", low, width)]
    return one_sided
