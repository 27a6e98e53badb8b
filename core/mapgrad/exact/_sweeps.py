"""Sweeps over a diagram for a batch of rows, layer by layer in torch, on any device.

Rows lie in columns: θ is [d, B]. So that large θ cost no digits, an entry adds min(−θ, 0) to a state if it is 0 and
min(θ, 0) if it is 1, which is less by max(θ, 0) than what it adds to ⟨θ, z⟩; that difference counts as a constant in
derivatives, as no result depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from mapgrad.exact._scaled_rows import NEVER

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.exact._compiler import Nodes


class Layer(NamedTuple):
    """A layer on a device: the entry that it decides, and its nodes' children, by their places in the next one.

    Place 0 leads nowhere; the next layer's nodes follow.
    """

    entry: int
    low: Tensor
    high: Tensor


class Levels(NamedTuple):
    """A diagram on a device.

    Attributes:
        layers: From the root's layer down.
        leaves: [1 + leaves] float64, what leaves add, −∞ first.
    """

    layers: list[Layer]
    leaves: Tensor


def levels_of(nodes: Nodes, device: torch.device) -> Levels:
    """Return a diagram's layers on a device."""
    ends = [*nodes.ends.tolist(), 1]
    low, high = (torch.tensor(children, dtype=torch.int64, device=device) for children in (nodes.low, nodes.high))
    layers: list[Layer] = []
    for layer, entry in enumerate(nodes.order.tolist()):
        part = slice(ends[layer + 1], ends[layer])
        # the next layer begins at ends[layer + 2], which becomes place 1
        children = ((each[part] - (ends[layer + 2] - 1)).clamp(min=0) for each in (low, high))
        layers.append(Layer(entry, *children))
    return Levels(layers, torch.tensor(nodes.leaf_values, device=device))


def best(levels: Levels, theta: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return argmax ⟨θ, z⟩ over the states, and what it is worth less Σ max(θ, 0): [d, B] and [B].

    Of two equal values, the state is taken that has a 1 in the first layer in which they differ.

    Args:
        levels: The diagram.
        theta: [d, B] float64, −inf where an entry must be 0.
        factor: [B], what θ was multiplied by, as leaves must be.
    """
    taken = theta.clamp(min=0)
    low_gain, high_gain = -taken, theta - taken
    nothing = theta.new_full((1, theta.shape[1]), -torch.inf)
    below = levels.leaves.unsqueeze(1) * factor
    choices: list[Tensor] = []
    for layer in reversed(levels.layers):
        low = below.index_select(0, layer.low).add_(low_gain[layer.entry])
        high = below.index_select(0, layer.high).add_(high_gain[layer.entry])
        choices.append(high >= low)
        below = torch.cat((nothing, torch.maximum(low, high)))
    z = torch.zeros_like(theta)
    place = torch.zeros(theta.shape[1], dtype=torch.int64, device=theta.device)
    for layer in levels.layers:
        if not len(layer.low):  # the set is empty
            break
        is_one = choices.pop().gather(0, place.unsqueeze(0)).squeeze(0)
        z[layer.entry] = is_one
        place = torch.where(is_one, layer.high[place], layer.low[place]).sub_(1).clamp_(min=0)
    return z, below[-1]


class Weights(NamedTuple):
    """Logarithms of the sums of weights below each node.

    Attributes:
        values: From the leaves up, [1 + nodes, B] for each layer.
        low_gain: [d, B], what an entry adds if it is 0.
        high_gain: [d, B], if it is 1.
        shift: [B], what all values at the root lack.
    """

    values: list[Tensor]
    low_gain: Tensor
    high_gain: Tensor
    shift: Tensor

    @property
    def total(self) -> Tensor:
        """The logarithm of the sum over all states less `shift`, [B]; below `NO_STATE` where there is none."""
        return self.values[-1][-1]

    def odds(self, layer: Layer, below: Tensor) -> Tensor:
        """Return log P(1) / P(0) of the entry at each of a layer's nodes, given the values of the next layer."""
        low = below.index_select(0, layer.low) + self.low_gain[layer.entry]
        return below.index_select(0, layer.high) + self.high_gain[layer.entry] - low


def weigh(levels: Levels, theta: Tensor, temperature: float) -> Weights:
    """Sum the weights exp(⟨θ, z⟩ + leaf / τ) from below, for θ that was divided by τ already: [d, B], finite."""
    taken = theta.detach().clamp(min=0)
    low_gain, high_gain = -taken, theta - taken
    nothing = theta.new_full((1, theta.shape[1]), NEVER)
    leaves = (levels.leaves / temperature).clamp(min=NEVER)
    values = [leaves.unsqueeze(1).expand(-1, theta.shape[1])]
    for layer in reversed(levels.layers):
        low = values[-1].index_select(0, layer.low) + low_gain[layer.entry]
        high = values[-1].index_select(0, layer.high) + high_gain[layer.entry]
        values.append(torch.cat((nothing, log_add(low, high))))
    return Weights(values, low_gain, high_gain, taken.sum(dim=0))


def log_add(low: Tensor, high: Tensor) -> Tensor:
    """Return log(exp(low) + exp(high)); `torch.logaddexp` has second derivatives NaN where the two are far apart."""
    odds = high - low
    is_high = odds > 0
    return torch.where(is_high, high, low) + F.softplus(torch.where(is_high, -odds, odds))


def marginals(levels: Levels, weights: Weights) -> tuple[Tensor, Tensor]:
    """Return E z, [d, B], by carrying the probability to come to each node from the root down; and E leaf, [B]."""
    means: dict[int, Tensor] = {}
    values = weights.values[:-1]
    reached = torch.ones_like(weights.shift).unsqueeze(0)
    for layer in levels.layers:
        below = values.pop()
        odds = weights.odds(layer, below)
        ones, zeros = reached * torch.sigmoid(odds), reached * torch.sigmoid(-odds)
        means[layer.entry] = ones.sum(dim=0)
        reached = torch.zeros_like(below).index_add(0, layer.high, ones).index_add(0, layer.low, zeros)[1:]
    return torch.stack([means[entry] for entry in range(len(means))]), levels.leaves[1:] @ reached


def sample(levels: Levels, weights: Weights, uniform: Tensor) -> Tensor:
    """Return states drawn independently, [S, d, B], from uniform numbers in [0, 1) of this shape."""
    z = torch.zeros_like(uniform)
    values = weights.values[:-1]
    column = torch.arange(uniform.shape[2], device=uniform.device).expand(uniform.shape[0], -1)
    place = torch.zeros_like(column)
    for layer in levels.layers:
        below = values.pop()
        low, high = layer.low[place], layer.high[place]
        gain = weights.high_gain[layer.entry] - weights.low_gain[layer.entry]
        odds = gain + (below[high, column] - below[low, column])
        is_one = uniform[:, layer.entry] < torch.sigmoid(odds)
        z[:, layer.entry] = is_one
        place = torch.where(is_one, high, low).sub_(1).clamp_(min=0)
    return z
