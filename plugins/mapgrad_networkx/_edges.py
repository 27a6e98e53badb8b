"""Parallel edges, which the simple graphs of NetworkX can't hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NodePairs:
    """The node pairs that edges join; an answer holds at most one edge of each pair, and then its best.

    Args:
        edges: [E, 2] integers, the two nodes of each edge; not written to.
        directed: Whether (u, v) and (v, u) are two pairs.

    Attributes:
        pairs: The P distinct pairs, in ascending order.
    """

    def __init__(self, edges: NDArray[np.int64], *, directed: bool) -> None:
        ends = edges if directed else np.sort(edges, axis=1)
        pairs, first, pair_of_edge = np.unique(ends, axis=0, return_index=True, return_inverse=True)
        self.pairs: list[tuple[int, int]] = [(u, v) for u, v in pairs.tolist()]
        self._first = first
        self._pair_of_edge = pair_of_edge.ravel()  # numpy 2.0 alone gives it two dimensions

    def best_edges(self, theta: NDArray[np.float64]) -> list[int]:
        """Return each pair's edge of the largest θ [E], the first one of equals: P indices into θ."""
        if len(self.pairs) == len(theta):
            return self._first.tolist()
        by_pair = np.lexsort((-theta, self._pair_of_edge))
        return by_pair[np.searchsorted(self._pair_of_edge[by_pair], np.arange(len(self.pairs)))].tolist()
