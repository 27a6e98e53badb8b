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
    sides = np.concatenate((program.row_upper, program.lower, program.upper))
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
    matrix, equal = program.matrix, np.isfinite(program.row_lower)
    yield from ("NAME program", "ROWS", " N cost")
    yield from (f" {'E' if both else 'L'} r{row}" for row, both in enumerate(equal))
    yield "COLUMNS"
    entries = [[f" c{column} cost {cost!r}"] for column, cost in enumerate(objective)]
    columns = cast("list[int]", matrix.indices.tolist())
    for row, column, value in zip(matrix.row_of_entry.tolist(), columns, matrix.data.tolist(), strict=True):
        entries[column].append(f" c{column} r{row} {value!r}")
    for column, integer in enumerate(program.integrality.tolist()):
        yield from (_BEGIN, *entries[column], _END) if integer else entries[column]
    yield from ("RHS", f" right cost {-program.offset!r}")
    yield from (f" right r{row} {value!r}" for row, value in enumerate(program.row_upper.tolist()))
    yield "BOUNDS"
    for column, (low, high) in enumerate(zip(program.lower.tolist(), program.upper.tolist(), strict=True)):
        yield f" MI bound c{column}" if low == -np.inf else f" LO bound c{column} {low!r}"
        yield f" PL bound c{column}" if high == np.inf else f" UP bound c{column} {high!r}"
    yield "ENDATA\n"
