"""The demo's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib import patheffects
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter

from mapgrad.demo import _learning as learning
from mapgrad.demo import _terrain as terrain

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

_SHOWN: Final = (0.25, 0.5, 0.75)
_EXPERT: Final = "white"
_LEARNT: Final = "#ff4f4f"
_COSTS: Final = "viridis"
_MARKER: Final[dict[str, Any]] = {"color": "black", "mfc": "white", "mew": 1.5, "ms": 8, "ls": "none", "zorder": 3}
_SPLITS: Final = (
    ("train", terrain.TRAIN, "#4c78a8"),
    ("validation", terrain.VALIDATION, "#f2b134"),
    ("test", terrain.TEST, "#d64550"),
)


def draw(
    path: Path,
    land: terrain.Terrain,
    stride: int,
    lessons: learning.Lessons,
    costs: Tensor,
    routes: Tensor,
    history: list[learning.Score],
    method: str,
) -> None:
    """Draw the map, the learning curve, and some test crops with true and learnt costs and routes.

    The crops are chosen by rule: of those where the straight line loses more than in the median, the ones at the
    quartiles of the learnt routes' regret.

    Args:
        path: File to write; its ending decides on the format.
        land: The whole elevation model.
        stride: Pixels between test crops.
        lessons: The test crops.
        costs: [N, CELLS, CELLS], what the network makes of them.
        routes: [N, CELLS, CELLS], the routes that follow.
        history: Scores on the validation crops: before training, and after each epoch.
        method: Name of the gradient, for titles.
    """
    score = learning.Score.of(routes, lessons)
    straight = learning.Score.of(learning.straight_routes(routes), lessons)
    chosen = _quartiles(score, straight)
    figure: Any = Figure(figsize=(13, 8.3), layout="constrained")  # its methods are only half typed
    figure.suptitle(
        "A network learns to read terrain from routes alone, through a shortest-path solver", fontsize=15, weight="bold"
    )
    sides = figure.subfigures(1, 2, width_ratios=[1, 1.8], wspace=0.02)
    overview = sides[0].subplots(2, 1, height_ratios=[1.5, 1])
    corners = terrain.regular_corners(land.rows(terrain.TEST), stride)
    _draw_map(overview[0], land, [corners[number] for number in chosen])
    _draw_curve(overview[1], history, method)
    panels = sides[1].subplots(len(chosen), 3)
    lookout = [_array(part) for part in (lessons.images[:, 0], lessons.minutes, lessons.routes, costs, routes)]
    for position, (row, number) in enumerate(zip(panels, chosen, strict=True)):
        image, minutes, expert, cost, route = (part[number] for part in lookout)
        _draw_crop(sides[1], row, image, minutes, expert, cost, route)
        row[0].set_ylabel(
            f"crop {'ABC'[position]}\nlearnt route +{float(score.regret[number]):.0%}\n"
            f"straight line +{float(straight.regret[number]):.0%}",
            fontsize=10,
        )
    titles = ("what the network sees", "true costs, hidden from it", "costs that it learnt")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=11.5)
    sides[1].legend(
        handles=[
            Line2D([], [], color=_EXPERT, lw=3.5, label="expert's route", path_effects=_outline(5.5)),
            Line2D([], [], color=_LEARNT, lw=2, label="learnt route"),
            Line2D([], [], marker="o", label="start", **_MARKER),
            Line2D([], [], marker="s", label="goal", **_MARKER),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=11,
    )
    figure.savefig(path, dpi=130)


def _quartiles(score: learning.Score, straight: learning.Score) -> list[int]:
    hard = (straight.regret >= straight.regret.median()).nonzero().flatten()
    ranked = hard[score.regret[hard].argsort(stable=True)]
    return [int(ranked[round(share * (len(ranked) - 1))]) for share in _SHOWN]


def _draw_map(axes: Any, land: terrain.Terrain, corners: list[tuple[int, int]]) -> None:
    axes.imshow(land.hillshade, cmap="gray", vmin=0.2, vmax=1)
    height, width = land.elevation.shape
    for name, rows, color in _SPLITS:
        axes.add_patch(Rectangle((0, rows.start), width, rows.stop - rows.start, color=color, alpha=0.28, lw=0))
        axes.text(
            8, (rows.start + rows.stop) / 2, name, va="center", color="white", weight="bold", path_effects=_outline(2.5)
        )
    for letter, (row, column) in zip("ABC", corners, strict=True):
        top = terrain.TEST.start + row
        box = Rectangle((column, top), terrain.CROP_PIXELS, terrain.CROP_PIXELS, fill=False, ec="white", lw=1.8)
        axes.add_patch(box)
        middle = terrain.CROP_PIXELS / 2
        axes.text(
            column + middle,
            top + middle,
            letter,
            ha="center",
            va="center",
            color="white",
            weight="bold",
            path_effects=_outline(2.5),
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title("the Jacksboro fault, Tennessee: no pixel in two splits", fontsize=11.5)


def _draw_curve(axes: Any, history: list[learning.Score], method: str) -> None:
    axes.plot([score.mean_regret for score in history], "o-", color=_LEARNT, label="regret")
    axes.plot([score.optimal for score in history], "s-", color="#4c78a8", label="optimal routes")
    best = min(range(len(history)), key=lambda epoch: history[epoch].mean_regret)
    axes.axvline(best, color="0.6", ls=":", label="kept")
    axes.set_title(f"learning with {method}: validation crops", fontsize=11.5)
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_crop(
    figure: Any,
    row: Any,
    image: NDArray[Any],
    minutes: NDArray[Any],
    expert: NDArray[Any],
    cost: NDArray[Any],
    route: NDArray[Any],
) -> None:
    """Draw one crop: three panels; learnt costs, which have no unit, are scaled to the true ones' median."""
    row[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    norm = LogNorm(minutes.min(), minutes.max())
    row[1].imshow(minutes, cmap=_COSTS, norm=norm)
    shown = row[2].imshow(cost * np.median(minutes) / np.median(cost), cmap=_COSTS, norm=norm)
    for axes in row[1:]:
        axes.add_collection(LineCollection(_steps(expert), colors=_EXPERT, lw=3.5, path_effects=_outline(5.5)))
        axes.add_collection(LineCollection(_steps(route), colors=_LEARNT, lw=2))
        axes.plot(0, 0, "o", **_MARKER)
        axes.plot(terrain.CELLS - 1, terrain.CELLS - 1, "s", **_MARKER)
    for axes in row:
        axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(shown, ax=list(row), pad=0.02, format="{x:g}", ticks=LogLocator(subs=(1, 2, 5)))
    bar.ax.minorticks_off()
    bar.set_label("minutes a cell")


def _steps(route: NDArray[Any]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the moves of a route, as (x, y) pairs: a shortest one has no two neighbours but those along it."""
    cells = [(int(x), int(y)) for y, x in np.argwhere(route)]
    return [(a, b) for i, a in enumerate(cells) for b in cells[:i] if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1]


def _outline(width: float) -> list[Any]:
    return [patheffects.withStroke(linewidth=width, foreground="black")]


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu())
