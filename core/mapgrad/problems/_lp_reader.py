"""Integer programs from files in LP format, which HiGHS reads after checks that it doesn't make."""

from __future__ import annotations

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._file_model import FileModel
from mapgrad.problems._optional import optional_module
from mapgrad.problems._sparse import SparseRows
from mapgrad.problems._text_file import TextFile, path_with_suffix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

_SMALLEST: Final = 1e-12  # of the coefficients that HiGHS keeps, by the lowest limit that it accepts
_ROWS = re.compile(rb"subject to|such that|st\.?|s\.t\.")
_AFTER_ROWS = re.compile(rb"bounds?|gen(erals?)?|int(egers?)?|bin(ary|aries)?|semis?|semi-continuous|end")
_SETS = re.compile(rb"sos[12]?")
_LABEL = re.compile(rb"([^\s:]+)\s*:")
_NAME_PART = rb"[^\s+\-*<>=:\[\]^/]"
_WORD = re.compile(rb"[\d.](?:[eE][+-]\d|" + _NAME_PART + rb")*|" + _NAME_PART + rb"+")
_NUMBER = re.compile(rb"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_RESERVED: Final = (b"free", b"inf", b"infinity")


def read_lp(path: str | PathLike[str], max_bytes: int) -> FileModel:
    """Return the program that a file describes.

    Raises:
        FileNotFoundError: there is no such file.
        MissingDependencyError: highspy isn't installed.
        ProblemError: the file's name or content isn't that of a mixed-integer linear program in LP format.
    """
    file = TextFile(path_with_suffix(path, ".lp"), max_bytes)
    highspy = optional_module("highspy", "reading LP files", "highs")
    engine = _silent(highspy)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "program.lp"
        with copy.open("wb") as unpacked:
            unpacked.writelines(line + b"\n" for line in _checked(file))
        status = engine.readModel(str(copy))
    if status == highspy.HighsStatus.kError:
        raise ProblemError(f"HiGHS can't read {path}: it must be a program in LP format")
    if status != highspy.HighsStatus.kOk:
        raise ProblemError(
            f"HiGHS would change the program in {path}: a row must have a variable once, and coefficients be 0 or at "
            f"least {_SMALLEST:g} in absolute value"
        )
    if engine.getModel().hessian_.dim_:
        raise ProblemError(f"{path} has a quadratic objective: only linear ones can be read")
    return _model(highspy, engine.getLp())


def _checked(file: TextFile) -> Iterator[bytes]:
    """Yield the lines of a file; refuse numbers that aren't numbers, rows declared twice, and unknown names."""
    labels: set[bytes] = set()
    names: set[bytes] = set()
    in_rows = after_rows = False
    for line in file:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise file.error(f"the text isn't UTF-8: {error.reason}") from error
        if b"\0" in line:
            raise file.error("the text has a NUL byte")
        text = line.partition(b"\\")[0].strip()
        if _SETS.fullmatch(text.lower()):
            raise file.error("special ordered sets in LP files aren't read: write the program as an MPS file")
        if in_rows and b"->" in text:
            raise file.error("indicator rows in LP files aren't read: write the program as an MPS file")
        if _AFTER_ROWS.fullmatch(text.lower()):
            in_rows, after_rows = False, True
        elif _ROWS.fullmatch(text.lower()):
            in_rows = True
        else:
            if in_rows:
                for label in _LABEL.findall(text):
                    if label in labels:
                        raise file.error(f"row {label.decode()!r} is declared a second time")
                    labels.add(label)
            found = {name for word in _WORD.findall(_LABEL.sub(b" ", text)) if (name := _name(file, word))}
            if after_rows and found - names:
                name = min(found - names).decode()
                raise file.error(
                    f"no row and no objective has {name!r}; put 0 {name} into the objective if it is meant"
                )
            names |= found
        yield line


def _name(file: TextFile, word: bytes) -> bytes:
    """Return the name in a word, without a number right before it; nothing where it has none."""
    number = _NUMBER.match(word)
    name = word[number.end() :] if number else word
    if name.lower() == b"nan" or (name and not (name[:1].isalpha() or (name[0] not in b".," and not number))):
        raise file.error(f"expected a number or a name, got {word.decode()!r}")
    return b"" if name.lower() in _RESERVED else name


def _model(highspy: Any, lp: Any) -> FileModel:
    count: int = lp.num_col_
    # What was read is held column by column.
    columns = np.repeat(np.arange(count), np.diff(np.array(lp.a_matrix_.start_, dtype=np.int64)))
    kinds = highspy.HighsVarType
    types = lp.integrality_ or [kinds.kContinuous] * count
    sign = -1 if lp.sense_ == highspy.ObjSense.kMaximize else 1
    return FileModel(
        matrix=SparseRows.from_entries(lp.a_matrix_.index_, columns, lp.a_matrix_.value_, (lp.num_row_, count)),
        row_lower=np.array(lp.row_lower_),
        row_upper=np.array(lp.row_upper_),
        lower=np.array(lp.col_lower_),
        upper=np.array(lp.col_upper_),
        integrality=np.array([kind in (kinds.kInteger, kinds.kSemiInteger) for kind in types]),
        costs=sign * np.array(lp.col_cost_) + 0.0,
        offset=sign * lp.offset_ + 0.0,
        semicontinuous=np.array([kind in (kinds.kSemiContinuous, kinds.kSemiInteger) for kind in types]),
    )


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
