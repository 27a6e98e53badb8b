"""Spanning trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INDICES, INFEASIBLE, INTEGER, ROWS, STATES, STATUSES, utilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Edges(NamedTuple):
    """The edges that a tree may have, in ascending order, and their ends."""

    numbers: NDArray[np.int64]
    tails: NDArray[np.int64]
    heads: NDArray[np.int64]


class Boruvka(mapgrad.InstanceSolver[mapgrad.SpanningTree, _Edges]):
    """Borůvka's algorithm (1926): all parts of the forest take their best edge at once, until one part is left.

    Each round at least halves the number of parts, and drops the edges within one: O(E log n) steps. Utilities are only
    compared, so their magnitude doesn't matter; the lower index counts as the better one of equals, which makes the
    tree unique: the one that Kruskal's algorithm finds.

    It was faster than Kruskal's algorithm, which sorts, on all graphs tried, and than Prim's but on large dense ones.
    """

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def init(self) -> _Edges:
        """Leave out loops, and make the kernel ready."""
        _grow.ready()
        tails, heads = self.problem.edges.T
        numbers = np.flatnonzero(tails != heads)
        return _Edges(numbers, tails[numbers], heads[numbers])

    def solve_rows(self, state: _Edges, block: mapgrad.Block) -> None:
        """Write the edges of each row's best tree."""
        _grow(utilities(block), self.problem.num_nodes, *state, block.z, block.status)


@mapgrad.kernel(ROWS, INTEGER, INDICES, INDICES, INDICES, STATES, STATUSES)
def _grow(theta: Any, num_nodes: Any, numbers: Any, tails: Any, heads: Any, z: Any, status: Any) -> None:
    edge, tail, head = np.empty_like(numbers), np.empty_like(numbers), np.empty_like(numbers)
    best, best_utility = np.empty(num_nodes, np.int64), np.empty(num_nodes)
    joins, label = np.empty(num_nodes, np.int64), np.empty(num_nodes, np.int64)
    for row in range(len(theta)):
        utility, tree = theta[row], z[row]
        tree[:] = 0.0
        edge[:], tail[:], head[:] = numbers, tails, heads
        count, num_parts = len(numbers), num_nodes
        while num_parts > 1:
            best[:num_parts], best_utility[:num_parts] = -1, -np.inf
            for k in range(count):
                value = utility[edge[k]]
                if value > best_utility[tail[k]]:
                    best[tail[k]], best_utility[tail[k]] = k, value
                if value > best_utility[head[k]]:
                    best[head[k]], best_utility[head[k]] = k, value
            if best[:num_parts].min() < 0:
                tree[:] = np.nan
                status[row] = INFEASIBLE
                break
            # Each part joins the one across its best edge; of two that chose the same edge, the first one stays.
            num_staying = 0
            for part in range(num_parts):
                k = best[part]
                other = tail[k] + head[k] - part
                if best[other] == k and part < other:
                    joins[part], label[part] = part, num_staying
                    num_staying += 1
                else:
                    joins[part] = other
                    tree[edge[k]] = 1.0
            for part in range(num_parts):
                stays = part
                while joins[stays] != stays:
                    joins[stays] = joins[joins[stays]]
                    stays = joins[stays]
                label[part] = label[stays]
            num_parts = num_staying
            # Edges between parts move up. To write them all and count some is faster than to decide on each.
            num_between = 0
            for k in range(count):
                one, other = label[tail[k]], label[head[k]]
                edge[num_between], tail[num_between], head[num_between] = edge[k], one, other
                num_between += one != other
            count = num_between
