"""Arborescences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INDICES, INFEASIBLE, INTEGER, ROWS, STATES, STATUSES, utilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNSEEN, _ON_PATH, _REACHED, _ENTERED = range(4)


class _Arcs(NamedTuple):
    """The arcs that an arborescence may have, by their heads: node v is entered by those of starts[v]:starts[v + 1]."""

    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    tails: NDArray[np.int64]
    heads: NDArray[np.int64]


class Edmonds(mapgrad.InstanceSolver[mapgrad.Arborescence, _Arcs]):
    """The algorithm of Chu and Liu (1965) and Edmonds (1967), along one path at a time (Gabow et al., 1986).

    A path grows backwards from a node by the best arc into its first node, until it meets the nodes that the root
    reaches. Where it meets itself, the cycle becomes one node, into which an arc is worth what it adds to the arc that
    it would replace. Each of the problem's nodes keeps its best arc from outside the contracted node that holds it, and
    looks for another one when that arc's tail joins, too. So rows take E + V² steps and, in the worst case, V E.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> _Arcs:
        """Sort the arcs by their heads, and make the kernel ready."""
        _grow.ready()
        tails, heads = self.problem.arcs.T
        numbers = np.flatnonzero((tails != heads) & (heads != self.problem.root))
        numbers = numbers[np.argsort(heads[numbers], kind="stable")]
        starts = np.searchsorted(heads[numbers], np.arange(self.problem.num_nodes + 1))
        return _Arcs(starts, numbers, tails[numbers], heads[numbers])

    def solve_rows(self, state: _Arcs, block: mapgrad.Block) -> None:
        """Write the arcs of a best arborescence of each row."""
        _grow(utilities(block), self.problem.num_nodes, self.problem.root, *state, block.z, block.status)


@mapgrad.kernel(ROWS, INTEGER, INTEGER, INDICES, INDICES, INDICES, INDICES, STATES, STATUSES)
def _grow(
    theta: Any, num_nodes: Any, root: Any, starts: Any, numbers: Any, tails: Any, heads: Any, z: Any, status: Any
) -> None:
    most = 2 * num_nodes
    # Of the problem's nodes: the contracted node that holds it, the next one in that one's list, and what the arcs into
    # it are worth less by now.
    part_of, following, replaced = np.empty(num_nodes, np.int64), np.empty(num_nodes, np.int64), np.empty(num_nodes)
    # Its best arc from outside that node, what that is worth, and its tail; at first, its own node stands for none.
    candidate, worth, origin = np.empty(num_nodes, np.int64), np.empty(num_nodes), np.empty(num_nodes, np.int64)
    # Of all nodes: both ends of its list, the node that it was contracted into, the arc that enters it, what that adds.
    first, last, into = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    entry, gain = np.empty(most, np.int64), np.empty(most)
    mark, path = np.empty(most, np.int64), np.empty(most, np.int64)
    for row in range(len(theta)):
        utility = theta[row]
        for node in range(num_nodes):
            part_of[node] = first[node] = last[node] = origin[node] = node
        following[:] = entry[:] = -1
        replaced[:] = 0.0
        mark[:] = _UNSEEN
        mark[root] = _REACHED
        count = num_nodes
        is_feasible = True
        for start in range(num_nodes):
            part, length = part_of[start], 0
            while mark[part] != _REACHED:
                best, value = -1, -np.inf
                node = first[part]
                while node >= 0:
                    if part_of[origin[node]] == part:  # from within
                        candidate[node], worth[node], origin[node] = -1, -np.inf, root
                        for k in range(starts[node], starts[node + 1]):
                            if utility[numbers[k]] > worth[node] and part_of[tails[k]] != part:
                                candidate[node], worth[node], origin[node] = k, utility[numbers[k]], tails[k]
                    if worth[node] - replaced[node] > value:
                        best, value = candidate[node], worth[node] - replaced[node]
                    node = following[node]
                if best < 0:
                    is_feasible = False
                    break
                entry[part], gain[part], mark[part] = best, value, _ON_PATH
                path[length] = part
                length += 1
                part = part_of[tails[best]]
                if mark[part] == _ON_PATH:
                    met, part = part, count
                    count += 1
                    first[part] = -1
                    member = -1
                    while member != met:
                        length -= 1
                        member = path[length]
                        into[member] = part
                        node = first[member]
                        while node >= 0:
                            part_of[node] = part
                            replaced[node] += gain[member]
                            node = following[node]
                        if first[part] < 0:
                            last[part] = last[member]
                        following[last[member]] = first[part]
                        first[part] = first[member]
            if not is_feasible:
                break
            for k in range(length):
                mark[path[k]] = _REACHED
        if not is_feasible:
            status[row] = INFEASIBLE
            continue
        # From the outermost nodes inwards: the arc into a node enters all those in it that hold the arc's head, too.
        tree = z[row]
        tree[:] = 0.0
        for part in range(count - 1, -1, -1):
            if part != root and mark[part] != _ENTERED:
                node = heads[entry[part]]
                while node != part:
                    entry[node], mark[node] = entry[part], _ENTERED
                    node = into[node]
        for node in range(num_nodes):
            if node != root:
                tree[numbers[entry[node]]] = 1.0
