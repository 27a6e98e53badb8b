"""Enumeration of the integer points of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mapgrad.problems._budget import Budget
    from mapgrad.problems._program_data import ProgramData

_BLOCK: Final = 1_024  # partial assignments that are extended at once
_ROOM: Final = 1e-6  # of a row's terms: far more than rounding adds up to, as points that pass are checked again


def integer_points(program: ProgramData, budget: Budget) -> Iterator[NDArray[np.float64]]:
    """Yield blocks [N, *shape] of values of the priced variables, among them all that some others complete.

    A depth-first search over the variables in θ's order, which must be integer and bounded. A partial assignment is
    dropped once the bounds of the variables still free keep some row from being met.

    Args:
        program: What to enumerate.
        budget: Pays a step for every four numbers that change and every sixteen that are copied.
    """
    matrix, (rows, count) = program.matrix, (program.matrix.row_of_entry, program.matrix.shape[0])
    ends = np.sort([matrix.data * bound[matrix.indices] for bound in program.hull], axis=0)
    reach = np.maximum(np.where(np.isfinite(ends), np.abs(ends), 0).max(axis=0), np.abs(matrix.data))
    least, most, scale = np.zeros((3, count))
    for totals, terms in ((least, ends[0]), (most, ends[1]), (scale, reach)):
        np.add.at(totals, rows, terms)
    sizes = (np.where(np.isfinite(sides), np.abs(sides), 0) for sides in (program.row_lower, program.row_upper))
    room = _ROOM * np.maximum(scale, np.maximum(*sizes))
    row_lower, row_upper = program.row_lower - room, program.row_upper + room
    start = np.empty((1, len(program.decision))), least[None], most[None]
    stack: list[tuple[int, tuple[NDArray[np.float64], ...]]] = [(0, start)]
    while stack:
        depth, (x, least, most) = stack.pop()
        if depth == len(program.decision):
            yield x.reshape(-1, *program.shape)
            continue
        column = program.decision[depth]
        first, last = (int(bound[column]) for bound in program.hull)
        entries = np.flatnonzero(matrix.indices == column)
        budget.spend(len(x) * (last - first + 1) * (1 + len(entries) // 4 + (count + len(program.decision)) // 16))
        values = np.arange(first, last + 1, dtype=np.float64)
        if program.semicontinuous[column]:
            values = values[(values == 0) | ((values >= program.lower[column]) & (values <= program.upper[column]))]
        touched, terms = rows[entries], values[:, None] * matrix.data[entries]
        x, least, most = (np.repeat(block, len(values), axis=0) for block in (x, least, most))
        x[:, depth] = np.tile(values, len(x) // len(values))
        for activity, end in zip((least, most), ends, strict=True):
            activity[:, touched] += np.tile(terms - end[entries], (len(x) // len(values), 1))
        alive = (least[:, touched] <= row_upper[touched]) & (most[:, touched] >= row_lower[touched])
        keep = np.flatnonzero(alive.all(axis=1))
        for block in reversed(range(0, len(keep), _BLOCK)):
            part = keep[block : block + _BLOCK]
            stack.append((depth + 1, (x[part], least[part], most[part])))
