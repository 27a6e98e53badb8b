"""Figures of matplotlib, which is asked for only where something is drawn."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mapgrad.errors import MapgradError, MissingDependencyError

if TYPE_CHECKING:
    from pathlib import Path


def new_figure(width: float = 1, height: float = 1) -> Any:
    """Return an empty figure that no window shows, sizes in inches.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError("curves need matplotlib: pip install 'mapgrad[plot]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def require_format(path: Path) -> None:
    """Refuse a picture that couldn't be written, before anything is measured.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        MapgradError: the path's suffix names no format.
    """
    known = sorted(new_figure().canvas.get_supported_filetypes())
    suffix = path.suffix[1:].lower()
    if suffix and suffix not in known:
        raise MapgradError(f"{path} can't be written: its suffix must be one of {', '.join(known)}, got {suffix!r}")
