"""Integer programs from files in MPS format, fixed or free: what is malformed is refused, with the line's number."""

from __future__ import annotations

import math
import warnings
from array import array
from math import isfinite
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.problems._file_model import FileModel
from mapgrad.problems._mps_words import MpsWords, shown
from mapgrad.problems._sparse import SparseRows
from mapgrad.problems._text_file import TextFile, path_with_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from numpy.typing import NDArray

    Words = list[bytes]

_SPACES: Final = b" \t"
_MAXIMISE: Final = {b"MAX": True, b"MAXIMIZE": True, b"MAXIMISE": True}
_SENSES: Final = _MAXIMISE | {b"MIN": False, b"MINIMIZE": False, b"MINIMISE": False}
_SENSE_COMMENT: Final = b"*SENSE:"  # PuLP says the sense there, and only there
_AFTER: Final = {b"COLUMNS": b"ROWS"} | dict.fromkeys(
    (b"RHS", b"RANGES", b"BOUNDS", b"SOS", b"INDICATORS", b"ENDATA"), b"COLUMNS"
)
_SEMI: Final = {b"SC": False, b"SI": True}  # whether the variable is integer too
_VALUED: Final = (b"LO", b"UP", b"FX", b"LI", b"UI", *_SEMI)
_UNVALUED: Final = {b"FR": (-math.inf, math.inf), b"MI": (-math.inf, None), b"PL": (None, math.inf), b"BV": (0.0, 1.0)}
_SOS: Final = {b"S1": 1, b"S2": 2}


def read_mps(path: str | PathLike[str], max_bytes: int) -> FileModel:
    """Return the program that a file describes.

    Raises:
        FileNotFoundError: there is no such file.
        ProblemError: the file's name or content isn't that of a mixed-integer linear program in MPS format.
    """
    return _Reader(TextFile(path_with_suffix(path, ".mps"), max_bytes)).read()


class _Reader(MpsWords):
    def __init__(self, file: TextFile) -> None:
        super().__init__(file)
        self.maximise: bool | None = None
        self.rows: dict[bytes, int] = {}  # those of type N too
        self.types: list[bytes] = []
        self.last_column: list[int] = []  # with an entry in the row, from 1
        self.columns: dict[bytes, int] = {}
        self.column = b""  # the one that is being described
        self.is_integer = False  # between two markers
        self.integrality: list[bool] = []
        self.entry_rows, self.entry_values = array("q"), array("d")
        self.starts: list[int] = []  # of each column among the entries
        self.right: dict[int, float] = {}
        self.ranges: dict[int, tuple[float, int]] = {}  # with their lines
        self.lower: dict[int, float] = {}
        self.upper: dict[int, float] = {}
        self.bound_lines: dict[int, int] = {}  # the last of each column
        self.semicontinuous: set[int] = set()
        self.sets: list[tuple[int, dict[int, float]]] = []  # type, and weight of each column
        self.conditions: dict[int, tuple[int, int]] = {}  # column and value on which a row depends
        self.condition_lines: list[int] = []

    def read(self) -> FileModel:
        handle = self._no_section
        for line in self.file:
            words = line.split()
            if not words:
                continue
            if line[0] in _SPACES:
                handle(words)
            elif line[0] != ord("*"):
                handle = self._open(words)
            elif line.startswith(_SENSE_COMMENT) and words[-1].upper().removeprefix(_SENSE_COMMENT) in _SENSES:
                self._objsense([words[-1].removeprefix(_SENSE_COMMENT)])
        if self.section != b"ENDATA":
            raise self.file.error("the file ends without ENDATA: a part of it may be missing")
        return self._model()

    def _open(self, words: Words) -> Callable[[Words], None]:
        keyword = words[0].upper()
        if self.section == b"OBJSENSE" and len(words) == 1 and keyword in _SENSES:  # some begin it in column 1
            self._objsense(words)
            return self._objsense
        handlers: dict[bytes, Callable[[Words], None]] = {
            b"NAME": self._no_section,
            b"OBJSENSE": self._objsense,
            b"ROWS": self._row,
            b"COLUMNS": self._column,
            b"RHS": self._right,
            b"RANGES": self._range,
            b"BOUNDS": self._bound,
            b"SOS": self._sos,
            b"INDICATORS": self._indicator,
            b"ENDATA": self._no_section,
        }
        if self.section == b"ENDATA" and keyword not in handlers:  # what MIPLIB's dcmulti has there isn't MPS
            return self._no_section
        self._close()
        if keyword not in handlers:
            raise self.file.error(
                f"{shown(words[0])} begins in the first column but isn't a section that is read "
                f"({', '.join(name.decode() for name in handlers)}); lines of data begin with a space"
            )
        if keyword in self.sections:
            raise self.file.error(f"section {keyword.decode()} comes a second time")
        if keyword == b"NAME" and b"ROWS" in self.sections:
            raise self.file.error("NAME must come before ROWS")
        before = _AFTER.get(keyword)
        if before and before not in self.sections:
            raise self.file.error(f"section {keyword.decode()} must come after {before.decode()}")
        if len(words) > 1 and keyword not in (b"NAME", b"OBJSENSE"):
            raise self.file.error(
                f"section {keyword.decode()} must begin with this word alone, got {shown(words[1])} behind it"
            )
        self.section = keyword
        self.sections[keyword] = None
        if keyword == b"OBJSENSE" and len(words) > 1:
            self._objsense(words[1:])
        return handlers[keyword]

    def _close(self) -> None:
        """Check that the section that ends is whole."""
        if self.section == b"ENDATA":
            raise self.file.error("something follows ENDATA")
        if self.section == b"OBJSENSE" and self.maximise is None:
            raise self.file.error("OBJSENSE ends without MAX or MIN")
        if self.section == b"ROWS" and b"N" not in self.types:
            raise self.file.error("ROWS has no row of type N, the objective; add one, which may be empty")
        if self.section == b"COLUMNS" and self.is_integer:
            raise self.file.error("COLUMNS ends without the marker 'INTEND' that belongs to the last 'INTORG'")
        if self.section == b"COLUMNS" and not self.columns:
            raise self.file.error("COLUMNS has no column: a program needs at least one")

    def _no_section(self, words: Words) -> None:
        place = f"{self.section.decode()} has no lines of data" if self.section else "no section has begun"
        raise self.file.error(f"{place}, got {shown(words[0])}")

    def _objsense(self, words: Words) -> None:
        maximise = _SENSES.get(words[0].upper()) if len(words) == 1 else None
        if maximise is None:
            raise self.file.error(f"the sense of the objective must be MAX or MIN, got {shown(b' '.join(words))}")
        if self.maximise not in (None, maximise):
            raise self.file.error("the sense of the objective is given a second time, and not as before")
        self.maximise = maximise

    def _row(self, words: Words) -> None:
        if len(words) != 2:
            raise self.miscounted(words, "a type and a name")
        kind, name = words
        if kind not in (b"N", b"L", b"G", b"E"):
            raise self.file.error(f"the type of a row must be N, L, G or E, got {shown(kind)}")
        if name in self.rows:
            raise self.file.error(f"row {shown(name)} is declared a second time")
        self.rows[name] = len(self.types)
        self.types.append(kind)
        self.last_column.append(0)

    def _column(self, words: Words) -> None:
        if len(words) == 3 and words[1] == b"'MARKER'":
            self._marker(words[2])
            return
        if len(words) not in (3, 5):
            raise self.miscounted(words, "a column, then one or two pairs of a row and a number")
        name = words[0]
        if name != self.column:
            if name in self.columns:
                raise self.file.error(f"column {shown(name)} comes again, after others or a marker")
            self.columns[name] = len(self.columns)
            self.column = name
            self.integrality.append(self.is_integer)
            self.starts.append(len(self.entry_rows))
        self._entry(words[1], words[2])
        if len(words) == 5:
            self._entry(words[3], words[4])

    def _entry(self, name: bytes, word: bytes) -> None:
        try:
            row, value = self.rows[name], float(word)
        except (KeyError, ValueError):
            row, value = self.known(self.rows, "row", name), self.number(word)
        if b"_" in word or not isfinite(value):
            self.number(word)
        column = len(self.starts)
        if self.last_column[row] == column:
            raise self.twice(f"the entry of column {shown(self.column)} in row", name)
        self.last_column[row] = column
        self.entry_rows.append(row)
        self.entry_values.append(value)

    def _marker(self, kind: bytes) -> None:
        if kind not in (b"'INTORG'", b"'INTEND'"):
            raise self.file.error(f"a marker must be 'INTORG' or 'INTEND', got {shown(kind)}")
        if (kind == b"'INTORG'") == self.is_integer:
            raise self.file.error(f"marker {kind.decode()} comes {'twice' if self.is_integer else 'without INTORG'}")
        self.is_integer = not self.is_integer
        self.column = b""

    def _right(self, words: Words) -> None:
        for name, row, value in self._pairs(words):
            if row in self.right:
                raise self.twice("the right side of row", name)
            if math.isinf(value) and self.types[row] != (b"L" if value > 0 else b"G"):
                raise self.file.error(f"row {shown(name)} of type {self.types[row].decode()} can't have side {value}")
            self.right[row] = value

    def _range(self, words: Words) -> None:
        for name, row, value in self._pairs(words):
            if row in self.ranges:
                raise self.twice("the range of row", name)
            if self.types[row] == b"N":
                raise self.file.error(f"row {shown(name)} is of type N: it can't have a range")
            self.ranges[row] = value, self.file.number

    def _pairs(self, words: Words) -> Iterator[tuple[bytes, int, float]]:
        """Yield the rows and numbers behind the name of the set, which may be missing."""
        if not 2 <= len(words) <= 5:
            raise self.miscounted(words, "the name of a set, then one or two pairs of a row and a number")
        named = len(words) % 2
        self.check_set(words[0] if named else b"")
        for place in range(named, len(words), 2):
            row = self.known(self.rows, "row", words[place])
            yield words[place], row, self.number(words[place + 1], self.types[row] != b"N")

    def _bound(self, words: Words) -> None:
        kind, *rest = words
        if kind in _VALUED:
            length = 2
        elif kind in _UNVALUED:
            length = 1 if len(rest) == 1 or (len(rest) == 2 and rest[1] in self.columns) else 2
        else:
            known = ", ".join(name.decode() for name in (*_VALUED, *_UNVALUED))
            raise self.file.error(f"the type of a bound must be one of {known}, got {shown(kind)}")
        if len(rest) not in (length, length + 1):
            raise self.miscounted(words, "a type, the name of a set, a column, and a number where the type has one")
        self.check_set(rest[0] if len(rest) > length else b"")
        name, *numbers = rest[-length:]
        column = self.known(self.columns, "column", name)
        value = self.number(numbers[0], True) if numbers else None
        self._set_bound(kind, name, column, value)

    def _set_bound(self, kind: bytes, name: bytes, column: int, value: float | None) -> None:
        low: float | None
        high: float | None
        if kind in _UNVALUED:
            low, high = _UNVALUED[kind]
            if value is not None and value != (1 if kind == b"BV" else 0) and isfinite(value):
                raise self.file.error(f"bound type {kind.decode()} has no number, got {value}")
        else:
            low = None if kind in (b"UP", b"UI", *_SEMI) else value
            high = None if kind in (b"LO", b"LI") else value
        for side, sides, number, wrong in (
            ("lower", self.lower, low, math.inf),
            ("upper", self.upper, high, -math.inf),
        ):
            if number is None:
                continue
            if column in sides:
                raise self.twice(f"the {side} bound of column", name)
            if number == wrong:
                raise self.file.error(f"the {side} bound of column {shown(name)} can't be {number}")
            sides[column] = number
        if kind in _SEMI:
            if value == 0:
                raise self.file.error(f"{kind.decode()} 0 means 0 to some and no bound to others: write FX or 1e30")
            self.semicontinuous.add(column)
        self.integrality[column] |= kind in (b"BV", b"LI", b"UI", b"SI")
        self.bound_lines[column] = self.file.number

    def _sos(self, words: Words) -> None:
        if words[0] in _SOS:
            if len(words) not in (2, 3):
                raise self.miscounted(words, "S1 or S2, and a name with or without SOS before it")
            if words[0] in self.columns:
                raise self.file.error(f"{shown(words[0])} begins a set, but is a column too: give it another name")
            self.sets.append((_SOS[words[0]], {}))
            return
        if not self.sets:
            raise self.file.error(f"a set must begin with S1 or S2, got {shown(words[0])}")
        if len(words) not in (2, 3):
            raise self.miscounted(words, "a column and its weight, with or without SOS before them")
        (kind, weights), (name, word) = self.sets[-1], words[-2:]
        column, weight = self.known(self.columns, "column", name), self.number(word)
        if column in weights:
            raise self.twice("the weight of column", name)
        if kind == 2 and weight in weights.values():
            raise self.file.error(f"the weight {weight} is there twice, and leaves the order of a set of type 2 open")
        weights[column] = weight

    def _indicator(self, words: Words) -> None:
        if len(words) != 4 or words[0] != b"IF":
            raise self.miscounted(words, "IF, a row, a column, and 0 or 1")
        row, column = self.known(self.rows, "row", words[1]), self.known(self.columns, "column", words[2])
        if self.types[row] == b"N":
            raise self.file.error(f"row {shown(words[1])} is of type N: it can't depend on a column")
        if row in self.conditions:
            raise self.twice("the condition of row", words[1])
        if words[3] not in (b"0", b"1"):
            raise self.file.error(f"the value of column {shown(words[2])} must be 0 or 1, got {shown(words[3])}")
        self.conditions[row] = column, int(words[3])
        self.condition_lines.append(self.file.number)

    def _model(self) -> FileModel:
        rows, values, count = np.array(self.entry_rows), np.array(self.entry_values), len(self.columns)
        columns = np.repeat(np.arange(count), np.diff([*self.starts, len(rows)]))
        objective, is_row = self.types.index(b"N"), np.array([kind != b"N" for kind in self.types])
        number_of_row = np.cumsum(is_row) - 1
        kept, priced = is_row[rows], rows == objective
        sign = -1 if self.maximise else 1
        costs = np.zeros(count)
        costs[columns[priced]] = sign * values[priced]
        matrix = SparseRows.from_entries(
            number_of_row[rows[kept]], columns[kept], values[kept], (int(is_row.sum()), count)
        )
        row_lower, row_upper = self._sides()
        lower, upper = self._box()
        depends = np.zeros(len(self.types), dtype=np.bool_)
        depends[list(self.conditions)] = True
        return FileModel(
            matrix=matrix.select(~depends[is_row]),
            row_lower=row_lower[is_row & ~depends],
            row_upper=row_upper[is_row & ~depends],
            lower=lower,
            upper=upper,
            integrality=np.array(self.integrality),
            costs=costs + 0.0,
            offset=-sign * self.right.get(objective, 0.0) + 0.0,
            semicontinuous=np.isin(np.arange(count), list(self.semicontinuous)),
            sos=tuple((kind, list(weights), list(weights.values())) for kind, weights in self.sets),
            indicators=tuple(self._indicators(matrix, number_of_row, row_lower, row_upper, lower, upper)),
        )

    def _indicators(
        self, matrix: SparseRows, number_of_row: NDArray[np.int64], *sides_and_bounds: NDArray[np.float64]
    ) -> Iterator[tuple[int, int, SparseRows, float, float]]:
        row_lower, row_upper, lower, upper = sides_and_bounds
        for (row, (column, value)), line in zip(self.conditions.items(), self.condition_lines, strict=True):
            if not (self.integrality[column] and lower[column] >= 0 and upper[column] <= 1):
                name = shown(list(self.columns)[column])
                raise self.file.error(f"column {name} must be integer with bounds 0 and 1", line)
            columns, values = matrix.row(int(number_of_row[row]))
            left = SparseRows(values, columns, [0, len(values)], (1, matrix.shape[1]))
            yield column, value, left, float(row_lower[row]), float(row_upper[row])

    def _sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        right = np.zeros(len(self.types))
        right[list(self.right)] = list(self.right.values())
        lower, upper = (
            np.where([kind == open_type for kind in self.types], side, right)
            for open_type, side in ((b"L", -np.inf), (b"G", np.inf))
        )
        for row, (width, line) in self.ranges.items():
            if np.isinf(right[row]):
                raise self.file.error("a row whose right side is infinite can't have a range", line)
            if self.types[row] == b"L" or (self.types[row] == b"E" and width < 0):
                lower[row] = right[row] - abs(width)
            else:
                upper[row] = right[row] + abs(width)
        return lower, upper

    def _box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the columns' bounds: 0/1 for integer ones of which nothing is said, 0 and infinity for others."""
        unsaid = np.array(self.integrality)
        unsaid[list(self.bound_lines)] = False
        lower, upper = np.zeros(len(unsaid)), np.where(unsaid, 1.0, np.inf)
        upper[list(self.upper)] = list(self.upper.values())
        negative = [column for column, bound in self.upper.items() if bound < 0 and column not in self.lower]
        lower[negative] = -np.inf
        lower[list(self.lower)] = list(self.lower.values())
        names = list(self.columns)
        if negative:
            warnings.warn(
                f"{self.file.path}, line {self.bound_lines[negative[0]]}: column {shown(names[negative[0]])} has a "
                "negative upper bound and no lower one, which is therefore -inf, as for CPLEX and Gurobi"
                f"{f' (so are those of {len(negative) - 1} more)' if len(negative) > 1 else ''}; say it by MI or LO",
                stacklevel=6,
            )
        for column, line in self.bound_lines.items():
            low, high = float(lower[column]), float(upper[column])
            if column in self.semicontinuous and low < 0:
                raise self.file.error(
                    f"column {shown(names[column])} is semi-continuous: its lower bound must be at least 0, got {low}",
                    line,
                )
            if low > high or (self.integrality[column] and isfinite(low) and math.ceil(low) > high):
                kind = "integer" if self.integrality[column] else "number"
                raise self.file.error(
                    f"no {kind} lies within the bounds of column {shown(names[column])}, {low} and {high}", line
                )
        return lower, upper
