"""What the gradient lab found, as tables that fit a page, as curves and as one HTML file."""

from __future__ import annotations

import html
import io
from statistics import mean, median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mapgrad.bench._figures import new_figure
from mapgrad.bench._lab_cases import SKEWED
from mapgrad.bench._report import Estimate, readable
from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mapgrad.bench._report import Report, Row

_SUMMARY: Final = ("calls", "cosine", "of the mean", "length", "variance", "dead", "µs a row")

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}"
)


class Table(NamedTuple):
    """A table with its title.

    Attributes:
        title: What its cells say.
        header: Names of columns; the first is "estimator".
        rows: Text.
    """

    title: str
    header: list[str]
    rows: list[list[str]]


def lab_tables(report: Report) -> list[Table]:
    """Return two tables for each setting: estimators by problems, and a summary over problems."""
    tables: list[Table] = []
    for setting in dict.fromkeys(_setting(row) for row in report.rows):
        rows = [row for row in report.rows if _setting(row) == setting and row.extra]
        cases = [*dict.fromkeys(_case(row) for row in rows)]
        names = [*dict.fromkeys(row.name for row in rows)]
        if not rows:
            continue
        cells = [[name, *(_cell(_of(rows, case, name)) for case in cases)] for name in names]
        title = f"{setting}: cosine of one gradient at {_budgets(rows, cases)} solver calls a row × length of the mean"
        tables.append(Table(title, ["estimator", *cases], cells))
        middle = [row for case in cases for row in _middle([row for row in rows if _case(row) == case])]
        summary = [[name, *_averages([row for row in middle if row.name == name])] for name in names]
        over = f"means over {len(cases)} problems, of {' and '.join(SKEWED)} medians" if len(cases) > 1 else cases[0]
        title = f"{setting}: {over}, {_budgets(middle, cases)} solver calls a row"
        tables.append(Table(title, ["estimator", *_SUMMARY], summary))
    return tables


def lab_notes(report: Report) -> list[str]:
    """Return what couldn't be measured, and why."""
    return [*dict.fromkeys(f"{_case(row)}, {row.name or _setting(row)}: {row.note}" for row in report.rows if row.note)]


def lab_plot(report: Report, path: Path) -> None:
    """Draw a panel for each problem: the cosine of one gradient against solver calls, in the first setting.

    Args:
        report: What `lab` found.
        path: The picture to write, in a format that its suffix names.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        MapgradError: nothing was measured, or the format isn't known.
    """
    try:
        _figure(report).savefig(path)
    except (ValueError, OSError) as error:
        raise MapgradError(f"{path} can't be written: {error}") from error


def lab_page(report: Report, path: Path) -> None:
    """Write one HTML file with all tables, the curves, and every figure.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        MapgradError: nothing was measured, or the file can't be written.
    """
    picture = io.StringIO()
    _figure(report).savefig(picture, format="svg")
    drawing = picture.getvalue()
    header, rows = report.table()
    parts = [
        f"<h1>{html.escape(report.title)}</h1>",
        drawing[drawing.index("<svg") :],
        *(f"<h2>{html.escape(table.title)}</h2>{_markup(table.header, table.rows)}" for table in lab_tables(report)),
        *(f"<p>{html.escape(note)}</p>" for note in lab_notes(report)),
        f"<h2>Every figure</h2>{_markup(header, rows)}",
        *(
            f"<p>{name}: {html.escape(', '.join(f'{key} {value}' for key, value in facts.items()))}</p>"
            for name, facts in (("machine", report.machine), ("versions", report.versions), ("seeds", report.seeds))
        ),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(report.title)}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise MapgradError(f"{path} can't be written: {error}") from error


def _figure(report: Report) -> Any:
    first = next((_setting(row) for row in report.rows if row.extra), None)
    if first is None:
        raise MapgradError(f"nothing was measured: {'; '.join(lab_notes(report))}")
    rows = [row for row in report.rows if row.extra and _setting(row) == first]
    cases = [*dict.fromkeys(_case(row) for row in rows)]
    across = min(len(cases), 3)
    down = -(-len(cases) // across)
    figure = new_figure(max(4.5 * across, 8), 4 * down + 1)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for panel, case in zip(panels, cases, strict=False):
        mine = [row for row in rows if _case(row) == case]
        for number, name in enumerate(dict.fromkeys(row.name for row in mine)):
            curve = [row for row in mine if row.name == name]
            calls, cosines = ([_number(row, figure) for row in curve] for figure in ("calls", "cosine"))
            colour = f"C{number % 10}"
            if any(calls):
                panel.plot(calls, cosines, marker="osD^v"[number // 10 % 5], color=colour, label=name)
            else:
                panel.axhline(mean(cosines), linestyle="--", color=colour, label=name)
        panel.set(title=case, xscale="log", xlabel="solver calls a row", ylim=(min(0.0, *panel.get_ylim()), 1.02))
        panel.grid(visible=True, which="both", alpha=0.2)
    for panel in panels[len(cases) :]:
        panel.set_axis_off()
    panels[0].set_ylabel("cosine of one gradient")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"{report.title}, {first}")
    return figure


def _markup(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_line("th", header), *(_line("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _case(row: Row) -> str:
    return row.case.rpartition("; ")[0]


def _setting(row: Row) -> str:
    return row.case.rpartition("; ")[2]


def _of(rows: Sequence[Row], case: str, name: str) -> list[Row]:
    return [row for row in rows if _case(row) == case and row.name == name]


def _middle(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the middle one of a case's budgets."""
    budgets = sorted({row.size["calls"] for row in rows})
    return [row for row in rows if row.size["calls"] == budgets[len(budgets) // 2]]


def _budgets(rows: Sequence[Row], cases: Sequence[str]) -> str:
    """Return the budgets, those of most cases first."""
    found = {case: " / ".join(str(size) for size in _sizes(rows, case)) for case in cases}
    kinds = [*dict.fromkeys(found.values())]
    others = [f"{kind} on {', '.join(case for case in cases if found[case] == kind)}" for kind in kinds[1:]]
    return f"{kinds[0]} ({'; '.join(others)})" if others else kinds[0]


def _sizes(rows: Sequence[Row], case: str) -> list[int]:
    return sorted({row.size["calls"] for row in rows if _case(row) == case})


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    cosines = " / ".join(f"{_number(row, 'cosine'):.2f}" for row in rows)
    return f"{cosines} × {_number(rows[-1], 'length'):.2f}"


def _averages(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["–"] * len(_SUMMARY)
    return [
        readable((median if figure in SKEWED else mean)(_number(row, figure) for row in rows)) for figure in _SUMMARY
    ]


def _number(row: Row, figure: str) -> float:
    value = row.extra[figure]
    return value.mean if isinstance(value, Estimate) else value
