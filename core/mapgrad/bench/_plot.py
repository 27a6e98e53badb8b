"""Curves of a report: time against n, B and S."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mapgrad.bench._figures import new_figure
from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from pathlib import Path

    from mapgrad.bench._report import Report, Row

_AXES: Final = {"n": "entries of θ, n", "B": "rows, B", "S": "samples, S", "rows": "rows solved"}


def plot(report: Report, path: Path) -> None:
    """Draw what a report says of several sizes: a panel for each of n, B, S and rows, and a curve for each name.

    Args:
        report: What a run found.
        path: The picture to write, in a format that its suffix names.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        MapgradError: no figure was measured for several sizes, or the format isn't known.
    """
    panels = {axis: found for axis in _AXES if (found := curves(report, axis))}
    if not panels:
        raise MapgradError(
            f"suite {report.suite!r} has no figure for several sizes here: `mapgrad bench growth` has curves"
        )
    figure = new_figure(6.5 * len(panels), 5)
    for axes, (axis, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for (label, _), rows in found.items():
            values = [row.value for row in rows if row.value]
            sizes = [row.size[axis] for row in rows]
            (line,) = axes.plot(sizes, [value.median for value in values], marker="o", label=label)
            bottom, top = [value.low for value in values], [value.high for value in values]
            axes.fill_between(sizes, bottom, top, color=line.get_color(), alpha=0.2)
        axes.set(xscale="log", yscale="log", xlabel=_AXES[axis], ylabel=" / ".join({unit for _, unit in found}))
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize="small")
    figure.suptitle(report.title)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise MapgradError(f"{path} can't be written: {error}") from error


def curves(report: Report, axis: str) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of each curve, by label and unit: those of several sizes along an axis that else are alike."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in report.rows:
        if row.value and axis in row.size:
            others = tuple((name, number) for name, number in row.size.items() if name != axis)
            found.setdefault((row.case, row.name, row.unit, others), []).append(row)
    several = {key: rows for key, rows in found.items() if len({row.size[axis] for row in rows}) > 1}
    return {
        (", ".join([case, name, *(f"{size} = {number:,}" for size, number in others)]), unit): sorted(
            rows, key=lambda row: row.size[axis]
        )
        for (case, name, unit, others), rows in several.items()
    }
