"""Gibbs laws whose states are the paths of a graph without cycles, by log-sum-exp from layer to layer.

A path starts at the first layer's only node and ends at the last one; z is the sum of what its arcs put into θ's
entries. Rows lie in columns: θ is [d, B].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from mapgrad.exact._oracle import Moments, Oracle, choose
from mapgrad.exact._scaled_rows import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems import Problem

_ARC_BYTES: Final = 8 * 9
"""What an arc takes for a row, about, with what its derivative needs."""


class Layer(NamedTuple):
    """Nodes whose arcs lead to later layers. A place is where a node of later layers is kept; place 0 leads nowhere.

    Attributes:
        heads: [m, D] int64, the places where the arcs of m nodes lead; 0 where a node has fewer than D.
        entries: [m, D] int64, the entry of θ that an arc prices.
        factors: [m, D] float64, what it adds to z there.
        keep: [r] int64, the places of the nodes to which arcs of earlier layers lead too: they follow the m new ones.
        places: How many places there are to lead to, with place 0.
    """

    heads: Tensor
    entries: Tensor
    factors: Tensor
    keep: Tensor
    places: int

    def to(self, device: torch.device) -> Layer:
        """Return the layer on a device."""
        heads, entries, factors, keep = (part.to(device) for part in self[:4])
        return Layer(heads, entries, factors, keep, self.places)


def layers_of(
    level: NDArray[np.int64], tails: NDArray[np.int64], heads: NDArray[np.int64], entries: NDArray[np.int64]
) -> list[Layer]:
    """Return the layers of a graph, the first one first.

    Args:
        level: For each node, how many arcs the longest path to the last node has; 0 for that node alone.
        tails: [A], where arcs begin: nodes of higher levels than they lead to.
        heads: [A].
        entries: [A], what they price, each by the factor 1.
    """
    needed = np.zeros(len(level), dtype=np.int64)  # the highest level from which an arc leads to a node
    np.maximum.at(needed, heads, level[tails])
    order = np.argsort(tails, kind="stable")
    tails, heads, entries = tails[order], heads[order], entries[order]
    places = {int(np.flatnonzero(level == 0)[0]): 1}
    layers: list[Layer] = []
    for height in range(1, int(level.max()) + 1):
        nodes = np.flatnonzero(level == height)
        first, last = np.searchsorted(tails, nodes), np.searchsorted(tails, nodes, side="right")
        arcs = first[:, None] + np.arange(int((last - first).max()))
        is_arc = arcs < last[:, None]
        arcs = np.where(is_arc, arcs, 0)
        kept = [node for node in places if needed[node] > height]
        place = np.vectorize(places.get, otypes=[np.int64])
        layers.append(
            Layer(
                torch.as_tensor(np.where(is_arc, place(np.where(is_arc, heads[arcs], heads[first][:, None])), 0)),
                torch.as_tensor(entries[arcs]),
                torch.as_tensor(is_arc.astype(np.float64)),
                torch.tensor([places[node] for node in kept], dtype=torch.int64),
                1 + len(places),
            )
        )
        places = {node: number for number, node in enumerate([*nodes.tolist(), *kept], 1)}
    return layers[::-1]


class Layered(Oracle):
    """Paths through layers."""

    def __init__(self, problem: Problem, arcs: int, longest: int, widest: int, max_bytes: int) -> None:
        """Take a problem.

        Args:
            problem: The problem.
            arcs: How many arcs the layers have.
            longest: How many layers there are.
            widest: How many arcs a node has at most.
            max_bytes: The budget.
        """
        super().__init__(problem, _ARC_BYTES * max(arcs, 1), max_bytes)
        self._longest, self._widest = longest, widest
        self._layers: dict[torch.device, list[Layer]] = {}

    @property
    def _uniforms(self) -> int:
        return self._longest

    @property
    def _sample_numbers(self) -> int:
        return 5 * self._widest + len(self.problem.shape)

    @property
    def held_bytes(self) -> int:
        """What the layers take on one device, in bytes."""
        layers = self._layers[torch.device("cpu")]
        return super().held_bytes + sum(part.nbytes for layer in layers for part in layer[:4])

    def _keep(self, layers: list[Layer]) -> None:
        self._layers[torch.device("cpu")] = layers

    def _layers_on(self, device: torch.device) -> list[Layer]:
        if device not in self._layers:
            here = self._layers[torch.device("cpu")]
            with torch.inference_mode(mode=False):  # what is born under it would be unfit for autograd
                self._layers[device] = [layer.to(device) for layer in here]
        return self._layers[device]

    def _scores(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what the arcs of each layer are worth with all that follows, [m, D, B], and the log-partition [B]."""
        theta = rows.T
        never = theta.new_full((1, theta.shape[1]), NEVER)
        below = torch.cat((never, torch.zeros_like(never)))
        scores: list[Tensor] = []
        for layer in reversed(self._layers_on(rows.device)):
            gains = theta[layer.entries] * layer.factors.unsqueeze(2)
            score = below[layer.heads] + gains
            scores.append(score)
            below = torch.cat((never, score.logsumexp(dim=1), below[layer.keep]))
        return scores[::-1], below[1]

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        return self._scores(rows)[1]

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        scores, total = self._scores(rows)
        means = torch.zeros_like(rows.T)
        reached = torch.ones_like(total).unsqueeze(0)
        for layer, score in zip(self._layers_on(rows.device), scores, strict=True):
            new = len(score)
            arcs = (score.softmax(dim=1) * reached[:new].unsqueeze(1)).flatten(0, 1)
            means = means.index_add(0, layer.entries.flatten(), arcs * layer.factors.flatten().unsqueeze(1))
            came = torch.zeros_like(arcs[:1]).expand(layer.places, -1).index_add(0, layer.heads.flatten(), arcs)
            reached = came.index_add(0, layer.keep, reached[new:])[1:]
        return Moments(means.T, total)

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        count, size = len(uniform), len(rows)
        z = rows.new_zeros(count, size, rows.shape[1])
        column = torch.arange(size, device=rows.device).expand(count, -1)
        place = torch.zeros_like(column)  # less by 1 than places are
        for number, (layer, score) in enumerate(zip(self._layers_on(rows.device), self._scores(rows)[0], strict=True)):
            new = len(score)
            is_new = place < new
            node = place.clamp(max=new - 1)
            arc = choose(score.softmax(dim=1)[node, :, column], uniform[:, :, number])
            gain = (layer.factors[node, arc] * is_new).unsqueeze(2)
            z.scatter_add_(2, layer.entries[node, arc].unsqueeze(2), gain)
            after = layer.heads[node, arc]
            if len(layer.keep):
                after = torch.where(is_new, after, layer.keep[(place - new).clamp(min=0)])
            place = after - 1
        return z
