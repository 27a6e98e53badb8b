"""Assignments and rankings: permanents in log space, by dynamic programming over subsets.

Lines of the larger side come one after another; a node is the set of lines of the smaller side that are used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from mapgrad.exact._layered import Layer, Layered
from mapgrad.problems import Assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import Ranking


class Permanents(Layered):
    """Assignments, and rankings as assignments of items to ranks."""

    name = "permanent"

    def __init__(self, problem: Assignment | Ranking, max_bytes: int) -> None:
        few, many = (min(problem.shape), max(problem.shape)) if isinstance(problem, Assignment) else (problem.n,) * 2
        most = few + 1 if few < many else few  # of arcs at a node
        arcs = sum(
            math.comb(few, used) * (most if few < many else few - used)
            for line in range(many)
            for used in range(max(0, few - many + line), min(line, few) + 1)
        )
        super().__init__(problem, arcs, many, most, max_bytes)
        lines = range(many)
        if isinstance(problem, Assignment):
            strides = (problem.cols, 1) if problem.rows <= problem.cols else (1, problem.cols)
            layers = [_layer(few, many, line, strides, 1.0) for line in lines]
        else:
            layers = [_layer(few, many, rank, (1, 0), float(rank)) for rank in lines]
        self._keep(layers)


def _layer(few: int, many: int, line: int, strides: tuple[int, int], factor: float) -> Layer:
    """Return the layer of a line: an arc to line i of the smaller side prices the entry (i, line) · strides."""
    nodes, after = _sets(few, many, line), _sets(few, many, line + 1)
    place = np.zeros(2**few, dtype=np.int64)
    place[after] = np.arange(1, len(after) + 1)
    item = np.arange(few)
    is_free = (nodes[:, None] >> item & 1) == 0
    heads = np.where(is_free, place[nodes[:, None] | 1 << item], 0)
    entries = np.broadcast_to(strides[0] * item + strides[1] * line, heads.shape)
    if few == many:
        heads, entries = (part[is_free].reshape(len(nodes), -1) for part in (heads, entries))
        factors = np.full(heads.shape, factor)
    else:  # the line may stay unused
        heads = np.column_stack((heads, place[nodes]))
        entries = np.column_stack((entries, np.zeros_like(nodes)))
        factors = np.column_stack((np.full(is_free.shape, factor), np.zeros(len(nodes))))
    parts = (torch.tensor(part) for part in (heads, entries, factors, np.empty(0, dtype=np.int64)))
    return Layer(*parts, places=1 + len(after))


def _sets(few: int, many: int, line: int) -> NDArray[np.int64]:
    """Return the sets of used lines, as bits, from which all can still be used, before a line of the larger side."""
    sets = np.arange(2**few, dtype=np.int64)
    used = sum((sets >> bit & 1 for bit in range(few)), start=np.zeros_like(sets))
    return sets[(used <= line) & (few - used <= many - line)]
