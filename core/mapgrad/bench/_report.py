"""What a run of a suite found, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import mean, median, quantiles, stdev
from typing import TYPE_CHECKING, Any, Final

from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

FORMAT: Final = 1


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return those of some values; one value is its own quartiles."""
        numbers = [*values]
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        low, _, high = quantiles(numbers, n=4, method="inclusive")
        return cls(median(numbers), low, high)

    @classmethod
    def of_ratios(cls, values: Sequence[float], others: Sequence[float]) -> Spread:
        """Return those of the ratios, round by round: what slows both down cancels."""
        return cls.of(value / max(other, 1e-12) for value, other in zip(values, others, strict=True))

    def times(self, factor: float) -> Spread:
        """Return this in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        room = max(self.high - self.median, self.median - self.low)
        share = f" ± {room / self.median:.0%}" if self.median and room else ""
        return f"{readable(self.median)}{share}"


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return those of two values or more."""
        return cls(mean(values), stdev(values) / len(values) ** 0.5)

    @classmethod
    def of_differences(cls, values: Sequence[float], others: Sequence[float]) -> Estimate:
        """Return those of the differences, pair by pair: what moves both cancels."""
        return cls.of([value - other for value, other in zip(values, others, strict=True)])

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        case: What was solved.
        name: What was measured: a solver, a step, a peer.
        size: Numbers of rows, samples and entries under "B", "S", "n", as far as they matter.
        value: The measurement; None where there is none, and `note` says why.
        unit: Its unit.
        ratio: The measurement as a multiple of another one of the same run.
        against: What the ratio is a multiple of.
        extra: Further columns.
        note: What a reader must know.
        judged: Whether a larger ratio than in an earlier run is a regression.
        runs: What the figures were worked out from, a number for each seed; not in the table.
    """

    case: str
    name: str
    size: Mapping[str, int] = field(default_factory=dict[str, int])
    value: Spread | None = None
    unit: str = ""
    ratio: Spread | None = None
    against: str = ""
    extra: Mapping[str, float | Estimate] = field(default_factory=dict[str, "float | Estimate"])
    note: str = ""
    judged: bool = True
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict[str, "Sequence[float]"])

    @property
    def key(self) -> str:
        """What tells the row from all others of its suite, in this run and in others."""
        size = ", ".join(f"{name} = {number:,}" for name, number in self.size.items())
        return "; ".join(part for part in (self.case, size, self.name, self.unit) if part)


@dataclass(frozen=True)
class Report:
    """What a run of a suite found.

    Attributes:
        suite: The suite's name.
        title: What its figures say.
        rows: The figures.
        machine: CPU, cores, load and the like.
        versions: Of mapgrad and of what it ran on.
        seeds: What random numbers were drawn from.
        is_quick: Whether the figures are rough, so that they can't be compared.
    """

    suite: str
    title: str
    rows: Sequence[Row]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    seeds: Mapping[str, int]
    is_quick: bool = False

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header and rows of text; columns that would be empty are left out."""
        columns: dict[str, list[str]] = {"case": [row.case for row in self.rows]}
        for name in ("B", "S", "n"):
            columns[name] = [f"{row.size[name]:,}" if name in row.size else "" for row in self.rows]
        columns["measured"] = [row.name for row in self.rows]
        if any(row.value for row in self.rows):
            columns["median ± quartiles"] = [f"{row.value} {row.unit}" if row.value else "–" for row in self.rows]
        columns["ratio"] = [f"{row.ratio} ×" if row.ratio else "" for row in self.rows]
        columns["of"] = [row.against if row.ratio else "" for row in self.rows]
        for name in dict.fromkeys(name for row in self.rows for name in row.extra):
            columns[name] = [_cell(row.extra.get(name)) for row in self.rows]
        columns["note"] = [row.note for row in self.rows]
        shown = {name: cells for name, cells in columns.items() if any(cells)}
        return [*shown], [[*cells] for cells in zip(*shown.values(), strict=True)]

    def write(self, path: Path) -> None:
        """Write the report as JSON.

        Raises:
            MapgradError: the file can't be written.
        """
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise MapgradError(f"{path} can't be written: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report that `write` has written.

        Raises:
            MapgradError: the file isn't such a report, or can't be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise MapgradError(f"{path} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise _no_report(path, error) from error
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("format") != FORMAT:
                raise MapgradError(f"{path} has another format of reports: write it again with this version")
            rows: list[dict[str, Any]] = data.pop("rows")
            for row in rows:
                for name in ("value", "ratio"):
                    row[name] = None if row[name] is None else Spread(**row[name])
                extra: dict[str, Any] = row["extra"]
                row["extra"] = {
                    name: value if isinstance(value, int | float) else Estimate(**value)
                    for name, value in extra.items()
                }
            return cls(rows=[Row(**row) for row in rows], **data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _no_report(path, error) from error


def _cell(value: float | Estimate | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, Estimate) else readable(value)


def _no_report(path: Path, error: Exception) -> MapgradError:
    return MapgradError(f"{path} isn't a report that `mapgrad bench SUITE --json FILE` writes: {error!r}")


def readable(number: float) -> str:
    """Return a number with three digits, or all of its integer part."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text: text in the first and the last column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )
