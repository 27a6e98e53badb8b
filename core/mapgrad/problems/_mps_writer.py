"""Integer programs as files in MPS format."""

from __future__ import annotations

import bz2
import gzip
from typing import TYPE_CHECKING, cast

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._file_model import INFINITE
from mapgrad.problems._text_file import path_with_suffix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from mapgrad.problems._program import IntegerProgram

_BEGIN, _END = " integer 'MARKER' 'INTORG'", " integer 'MARKER' 'INTEND'"  # around integer columns


def write_mps(program: IntegerProgram, path: str | PathLike[str]) -> None:
    """Write a program in full form, and its objective where it has one.

    Raises:
        ProblemError: the file's name isn't that of an MPS file, or the format would take a number for an infinite one.
    """
    path = path_with_suffix(path, ".mps")
    sides = np.concatenate((program.row_lower, program.row_upper, program.lower, program.upper))
    large = np.isfinite(sides) & (np.abs(sides) >= INFINITE)
    if large.any():
        raise ProblemError(
            f"{program!r} has the bound or right side {sides[large][0]}, but in MPS files numbers from {INFINITE:g} on "
            "stand for infinity; scale it, or leave it out"
        )
    objective = np.zeros(program.num_vars) if program.objective is None else program.objective
    text = "\n".join(_lines(program, objective.tolist())).encode()
    packed = {".gz": lambda: gzip.compress(text, mtime=0), ".bz2": lambda: bz2.compress(text)}
    path.write_bytes(packed[path.suffix]() if path.suffix in packed else text)


def _lines(program: IntegerProgram, objective: list[float]) -> Iterator[str]:
    rows = list(_rows(program))
    yield from ("NAME program", "ROWS", " N cost")
    yield from (f" {kind} r{number}" for number, (_, kind, _, _) in enumerate(rows))
    yield "COLUMNS"
    entries = [[f" c{column} cost {cost!r}"] for column, cost in enumerate(objective)]
    for number, (row, *_) in enumerate(rows):
        columns, values = program.matrix.row(row)
        for column, value in zip(cast("list[int]", columns.tolist()), values.tolist(), strict=True):
            entries[column].append(f" c{column} r{number} {value!r}")
    for column, integer in enumerate(program.integrality.tolist()):
        yield from (_BEGIN, *entries[column], _END) if integer else entries[column]
    yield from ("RHS", f" right cost {-program.offset!r}")
    yield from (f" right r{number} {side!r}" for number, (_, _, side, _) in enumerate(rows))
    widths = [f" range r{number} {width!r}" for number, (_, _, _, width) in enumerate(rows) if width is not None]
    yield from ("RANGES", *widths) if widths else ()
    yield "BOUNDS"
    for column, (low, high) in enumerate(zip(program.lower.tolist(), program.upper.tolist(), strict=True)):
        yield f" MI bound c{column}" if low == -np.inf else f" LO bound c{column} {low!r}"
        yield f" PL bound c{column}" if high == np.inf else f" UP bound c{column} {high!r}"
    yield "ENDATA\n"


def _rows(program: IntegerProgram) -> Iterator[tuple[int, str, float, float | None]]:
    """Yield number, type, right side and range of each row; a row without sides is left out."""
    sides = zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)
    for row, (low, high) in enumerate(sides):
        if low == high:
            yield row, "E", high, None
        elif np.isinf(low) or np.isinf(high):
            if high < np.inf:
                yield row, "L", high, None
            elif low > -np.inf:
                yield row, "G", low, None
        else:
            nearest = high - low
            widths = [width for width in (nearest, *np.nextafter(nearest, (0, np.inf)).tolist()) if width < INFINITE]
            if any(high - (width := each) == low for each in widths):
                yield row, "L", high, width
            elif any(low + (width := each) == high for each in widths):
                yield row, "G", low, width
            else:  # no width brings back both sides exactly
                yield from ((row, "L", high, None), (row, "G", low, None))
