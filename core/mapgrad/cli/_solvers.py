"""``mapgrad solvers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import mapgrad

if TYPE_CHECKING:
    from rich.console import RenderableType

_TABLE_WIDTH: Final = 80
_NAME_WIDTH: Final = 28
_STYLES: Final = {"ok": "green", "missing": "yellow", "broken": "bold red", "blocked": "dim"}


def solvers() -> None:
    """List the solvers of all plugins: what each accepts, or why it can't be used."""
    console = Console()
    infos = mapgrad.list_solvers()
    console.print(_table(infos) if console.width >= _TABLE_WIDTH else _blocks(infos))


def _table(infos: list[mapgrad.SolverInfo]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widest = max((len(info.name) for info in infos), default=0)
    table.add_column("Solver", overflow="fold", min_width=min(widest, _NAME_WIDTH))
    for title in ("Distribution", "Status", "Accepts, why not"):
        table.add_column(title, overflow="fold")
    for info in infos:
        table.add_row(Text(info.name, "bold"), _origin(info), _status(info), _remarks(info))
    return table


def _blocks(infos: list[mapgrad.SolverInfo]) -> RenderableType:
    parts: list[RenderableType] = []
    for info in infos:
        parts.append(Text.assemble((info.name, "bold"), "  ", _status(info)))
        origin = Text.assemble("plugin ", info.plugin, ", ", _origin(info))
        parts.append(Padding(Group(origin, _remarks(info)), (0, 0, 0, 2)))
    return Group(*parts)


def _origin(info: mapgrad.SolverInfo) -> Text:
    return Text(f"{info.distribution} {info.version}") if info.distribution else Text("this program", "dim")


def _status(info: mapgrad.SolverInfo) -> Text:
    return Text(info.status, _STYLES[info.status])


def _remarks(info: mapgrad.SolverInfo) -> Text:
    accepts = Text(", ".join(problem.__name__ for problem in info.accepts))
    return Text("\n").join(part for part in (accepts, Text(info.detail, _STYLES[info.status])) if part)
