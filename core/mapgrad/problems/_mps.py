"""Integer programs as files in MPS format, which HiGHS reads."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._optional import optional_module
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray

    from mapgrad.problems._program import IntegerProgram

_BEGIN, _END = " integer 'MARKER' 'INTORG'", " integer 'MARKER' 'INTEND'"  # around integer columns
_SMALLEST: Final = 1e-12  # of the coefficients that HiGHS keeps, by the lowest limit that it accepts


def read_mps(path: str | PathLike[str]) -> tuple[dict[str, Any], NDArray[np.float64], float]:
    """Return the arguments of the program that a file describes, its objective to be minimised, and its constant.

    Raises:
        FileNotFoundError: there is no such file.
        MissingDependencyError: highspy isn't installed.
        ProblemError: the file's name or content isn't that of a mixed-integer linear program in MPS format.
    """
    path = _checked(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} to read a program from")
    highspy = optional_module("highspy", "reading MPS files", "highs")
    engine = _silent(highspy)
    if engine.readModel(str(path)) == highspy.HighsStatus.kError:
        raise ProblemError(f"HiGHS can't read {path}: it must be a program in MPS format")
    if engine.getModel().hessian_.dim_:
        raise ProblemError(f"{path} has a quadratic objective: only linear ones can be read")
    lp = engine.getLp()
    count: int = lp.num_col_
    # What was read is held column by column.
    columns = np.repeat(np.arange(count), np.diff(np.array(lp.a_matrix_.start_, dtype=np.int64)))
    matrix = SparseRows.from_entries(lp.a_matrix_.index_, columns, lp.a_matrix_.value_, (lp.num_row_, count))
    row_lower, row_upper = np.array(lp.row_lower_), np.array(lp.row_upper_)
    equal = row_lower == row_upper
    below, above = ~equal & np.isfinite(row_upper), ~equal & np.isfinite(row_lower)
    types = lp.integrality_ or [highspy.HighsVarType.kContinuous] * count
    kinds = {highspy.HighsVarType.kContinuous: 0, highspy.HighsVarType.kInteger: 1}
    odd = next((column for column, kind in enumerate(types) if kind not in kinds), None)
    if odd is not None:
        raise ProblemError(
            f"column {odd} of {path} is {types[odd].name[1:]}: only continuous and integer ones are read"
        )
    sign = -1 if lp.sense_ == highspy.ObjSense.kMaximize else 1
    arguments = {
        "A_ub": matrix.select(above).negative().below(matrix.select(below)),
        "b_ub": np.concatenate((row_upper[below], -row_lower[above])),
        "A_eq": matrix.select(equal),
        "b_eq": row_upper[equal],
        "lower": lp.col_lower_,
        "upper": lp.col_upper_,
        "integrality": [kinds[kind] for kind in types],
    }
    return arguments, sign * np.array(lp.col_cost_) + 0.0, sign * lp.offset_ + 0.0


def write_mps(program: IntegerProgram, path: str | PathLike[str]) -> None:
    """Write a program in full form, and its objective where it has one.

    The text is this module's own, as HiGHS forgets that a variable is integer where no row has it.

    Raises:
        MissingDependencyError: highspy isn't installed.
        ProblemError: the file's name isn't that of an MPS file, or HiGHS would not read the same numbers again.
    """
    path = _checked(path)
    optional_module("highspy", "writing MPS files", "highs")
    objective = np.zeros(program.num_vars) if program.objective is None else program.objective
    text = "\n".join(_lines(program, objective.tolist())).encode()
    if not _reads_back(program, objective, text):
        raise ProblemError(
            f"HiGHS would not read {program!r} as it was written: it keeps coefficients from {_SMALLEST:g} on and "
            "bounds and costs below 1e20 in absolute value; scale them"
        )
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _reads_back(program: IntegerProgram, objective: NDArray[np.float64], text: bytes) -> bool:
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "program.mps"
        draft.write_bytes(text)
        try:
            arguments, costs, offset = read_mps(draft)
        except ProblemError:
            return False
    return type(program)(**arguments) == program and np.array_equal(costs, objective) and offset == program.offset


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


def _checked(path: str | PathLike[str]) -> Path:
    """Return a path whose ending tells HiGHS the format."""
    path = Path(path)
    if not path.name.endswith((".mps", ".mps.gz")):
        raise ProblemError(f"the name of an MPS file must end in .mps or .mps.gz, got {path.name!r}")
    return path


def _silent(highspy: Any) -> Any:
    """Return an engine that prints nothing and keeps small and large coefficients."""

    class Engine(highspy.Highs):
        def enableCallbacks(self) -> None:  # noqa: N802 (highspy's name)
            """Enable none: the constructor would, and HiGHS then prints its banner."""

    engine = Engine()
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("small_matrix_value", _SMALLEST)
    engine.setOptionValue("large_matrix_value", math.inf)
    return engine
