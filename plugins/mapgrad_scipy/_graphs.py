"""Graphs as SciPy's csgraph routines take them, with every edge in its own place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sparse_graph(
    num_nodes: int, tails: NDArray[np.int64], heads: NDArray[np.int64]
) -> tuple[csr_array, NDArray[np.int64]]:
    """Return a directed graph whose weights, `data`, are to be set, and the edge behind each of its entries.

    It is put together by hand because the constructors of `scipy.sparse` add parallel edges up. In this form csgraph
    keeps them, and takes a stored zero for an edge that costs nothing.

    Args:
        num_nodes: Number of nodes.
        tails: [E] where edges begin.
        heads: [E] where they end.
    """
    edges = np.argsort(tails, kind="stable")
    starts = np.zeros(num_nodes + 1, dtype=np.int32)  # csgraph refuses 64-bit indices
    np.cumsum(np.bincount(tails, minlength=num_nodes), out=starts[1:])
    entries = (np.ones(len(edges)), heads[edges].astype(np.int32), starts)
    return csr_array(entries, shape=(num_nodes, num_nodes)), edges
