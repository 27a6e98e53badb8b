"""From rows over 0/1 variables to a reduced ordered decision diagram.

From the top, layer after layer, a state is what each row's activity allows the rest of the row: activities that leave
the same choices are one, a row that can't be violated any more has only one, and a state with a row that can't be met
is dropped. From the bottom, nodes with equal children become one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mapgrad.errors import UnsupportedProblemError
from mapgrad.exact._orders import candidate_orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mapgrad.exact._binary_rows import BinaryRow, BinaryRows

    Layers = list[tuple[NDArray[np.int32], NDArray[np.int32]]]

_SUMS: Final = 2**12
"""Sums that the rest of a row may have, up to which its activities are told apart by them."""

_ROUNDS: Final = (2**12, 2**16)
"""States that each order may have in the first rounds: where one does with them, no larger diagram is looked for."""

_KEYS: Final = 2**62
"""Below which products of numbers of values stay, so that one 64-bit integer tells states apart."""

_FREE: Final = 2**62
"""In place of the activity of a row that holds whatever follows."""


class Nodes(NamedTuple):
    """A diagram: every path from its root to a leaf decides all variables, and is a state.

    Node 0 leads nowhere. Leaves come next, then the last layer's nodes, and so on up to the root, the last one of all;
    children of layer i are nodes of layer i + 1, or of the leaves, or 0.

    Attributes:
        order: [d] int64, the entry of θ that each layer decides.
        ends: [d + 1] int64: layer i holds the nodes ends[i + 1] to ends[i] − 1, and ends[d] − 1 leaves come after 0.
        low: [num_nodes] int32, where a node leads if the entry is 0; 0 for leaves.
        high: [num_nodes] int32, the same if the entry is 1.
        leaf_values: [ends[d]] float64, what a leaf adds to ⟨θ, z⟩; −inf for node 0.
    """

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    leaf_values: NDArray[np.float64]


class _TooLargeError(Exception):
    """An order ran out of states or of time."""

    def __init__(self, layer: int, states: int, *, is_late: bool) -> None:
        super().__init__()
        self.layer, self.states, self.is_late = layer, states, is_late


def compile_nodes(program: BinaryRows, max_nodes: int, max_seconds: float) -> Nodes:
    """Return the smallest diagram among those of some orders of the variables.

    Args:
        program: What is compiled.
        max_nodes: How many states the layers may have together before they are reduced.
        max_seconds: How long it may take.

    Raises:
        UnsupportedProblemError: no order does with so many states, or with so much time.
    """
    deadline = time.monotonic() + max_seconds
    orders = candidate_orders(program)
    furthest = -1, 0
    for limit in [*(each for each in _ROUNDS if each < max_nodes), max_nodes]:
        found: list[Nodes] = []
        for order in orders:
            try:
                found.append(_reduced(program, order, _layers(program, order, limit, deadline)))
            except _TooLargeError as error:
                furthest = max(furthest, (error.layer, -error.states))
                if error.is_late:
                    raise _refusal(program, furthest, f"after {max_seconds:g} seconds", "max_seconds") from None
        if found:
            return min(found, key=lambda nodes: len(nodes.low))
    raise _refusal(program, furthest, f"of {max_nodes:,} nodes", "max_nodes")


def _refusal(program: BinaryRows, furthest: tuple[int, int], where: str, budget: str) -> UnsupportedProblemError:
    layer, states = furthest[0], -furthest[1]
    return UnsupportedProblemError(
        f"{program.problem!r} doesn't fit into a diagram {where}: the best of some orders came to {states:,} nodes in "
        f"{layer} of {program.may_be.shape[1]} layers. Allow more by {budget}=…; for best states alone, take another "
        "solver, such as 'auto'"
    )


class _Row:
    """A row while its variables are decided one by one.

    Attributes:
        values: [k] int64, activities, no two of which allow the same of the variables that are left.
        ids: [width] int64, which of them each state has; empty where there is only one.
    """

    def __init__(self, row: BinaryRow, order: NDArray[np.int64], may_be: NDArray[np.bool_]) -> None:
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        by_place = np.argsort(place[row.columns])
        columns = row.columns[by_place]
        self._steps = row.coefficients[by_place].tolist()
        self._row, self._done = row, 0
        self._rests = _rests(self._steps, may_be[:, columns])
        self.values = np.zeros(1, dtype=np.int64)
        self.ids = np.zeros(0, dtype=np.int64)

    def is_possible(self) -> bool:
        """Tell whether the row can be met at all."""
        return bool(self._classes(self.values)[1].all())

    def advance(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Decide the row's next variable.

        Returns:
            For each value before the number of the value after, if the variable is 0 and if it is 1; −1 where the row
            can't be met then.
        """
        count, step = len(self.values), self._steps[self._done]
        self._done += 1
        activities = np.concatenate((self.values, self.values + step))
        classes, is_possible = self._classes(activities)
        _, first, inverse = np.unique(classes[is_possible], return_index=True, return_inverse=True)
        numbers = np.full(2 * count, -1)
        numbers[is_possible] = inverse
        self.values = activities[is_possible][first]
        return numbers[:count], numbers[count:]

    def _classes(self, activities: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the same number for activities that allow the same of the rest, and whether they allow anything."""
        least, most = self._row.lower - activities, self._row.upper - activities
        sums = self._rests[self._done]
        if len(sums) > _SUMS:
            is_free = (least <= sums[0]) & (most >= sums[-1])
            return np.where(is_free, _FREE, activities), (least <= sums[-1]) & (most >= sums[0])
        first, stop = np.searchsorted(sums, least, "left"), np.searchsorted(sums, most, "right")
        return first * (1 + len(sums)) + stop, first < stop

    def keep(self, ids: NDArray[np.int64]) -> None:
        """Note which value each state has, and drop those that none has."""
        is_used = np.zeros(len(self.values), dtype=np.bool_)
        is_used[ids] = True
        self.values = self.values[is_used]
        self.ids = (is_used.cumsum() - 1)[ids] if len(self.values) > 1 else ids[:0]


def _rests(steps: Sequence[int], may_be: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return what the variables from each one on may add to a row, ascending; of too many, some and the last."""
    rests = [np.zeros(1, dtype=np.int64)]
    for step, (may_be_0, may_be_1) in zip(reversed(steps), may_be.T[::-1].tolist(), strict=True):
        last = rests[-1]
        parts = [*([last] if may_be_0 else []), *([last + step] if may_be_1 else [])]
        sums = parts[0] if len(parts) == 1 else np.union1d(*parts)
        rests.append(sums if len(sums) <= _SUMS else np.append(sums[:_SUMS], sums[-1]))
    return rests[::-1]


class _Keys:
    """Numbers that tell states apart."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.numbers, self._count = numbers, 1

    def add(self, ids: NDArray[np.int64], count: int) -> None:
        """Tell states apart by ids below a count, too."""
        if self._count * count >= _KEYS:
            found, self.numbers = np.unique(self.numbers, return_inverse=True)
            self._count = len(found)
        self.numbers = self.numbers * count + ids
        self._count *= count

    def take(self, parents: NDArray[np.int64]) -> _Keys:
        """Return the keys of those states, one or several times."""
        taken = _Keys(self.numbers[parents])
        taken._count = self._count
        return taken


def _layers(program: BinaryRows, order: NDArray[np.int64], limit: int, deadline: float) -> Layers:
    """Return for each layer the places of its states' children in the next one, −1 for none, if the entry is 0 or 1.

    Raises:
        _TooLargeError: there are more states than the limit, or it is too late.
    """
    rows = [_Row(row, order, program.may_be) for row in program.rows]
    rows_of: list[dict[_Row, None]] = [{} for _ in order]
    for row, given in zip(rows, program.rows, strict=True):
        columns: list[int] = given.columns.tolist()
        for column in columns:
            rows_of[column][row] = None
    width = total = int(all(row.is_possible() for row in rows))
    layers: Layers = []
    decided: list[int] = order.tolist()
    for layer, column in enumerate(decided):
        changing = rows_of[column]
        staying = [row for row in rows if len(row.ids) and row not in changing]
        keys = _Keys(np.zeros(width, dtype=np.int64))
        for row in staying:
            keys.add(row.ids, len(row.values))
        is_open = [np.full(width, may_be) for may_be in program.may_be[:, column]]
        after: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for row in changing:
            ids = row.ids if len(row.ids) else np.zeros(width, dtype=np.int64)
            low, high = (numbers[ids] for numbers in row.advance())
            is_open[0] &= low >= 0
            is_open[1] &= high >= 0
            after.append((low, high))
        places = [np.flatnonzero(mask) for mask in is_open]
        parents = np.concatenate(places)
        keys = keys.take(parents)
        reached = [np.concatenate((low[places[0]], high[places[1]])) for low, high in after]
        for row, ids in zip(changing, reached, strict=True):
            keys.add(ids, max(len(row.values), 1))
        _, first, inverse = np.unique(keys.numbers, return_index=True, return_inverse=True)
        children = np.full((2, width), -1, dtype=np.int32)
        children[0, places[0]], children[1, places[1]] = np.split(inverse, [len(places[0])])
        layers.append((children[0], children[1]))
        width = len(first)
        total += width
        if total > limit or time.monotonic() > deadline:
            raise _TooLargeError(layer + 1, total, is_late=total <= limit)
        for row in staying:
            row.ids = row.ids[parents[first]]
        for row, ids in zip(changing, reached, strict=True):
            row.keep(ids[first])
    return layers


def _reduced(program: BinaryRows, order: NDArray[np.int64], layers: Layers) -> Nodes:
    """Merge nodes with equal children from below; leaves stand for what the variables add that θ doesn't price."""
    priced = program.num_priced
    width = int((np.stack(layers[-1]).max(initial=-1)) + 1)
    values = np.zeros(width)
    for (low, high), column in zip(reversed(layers[priced:]), reversed(order[priced:].tolist()), strict=True):
        values = np.append(values, -np.inf)
        with np.errstate(over="ignore"):  # told below
            values = np.maximum(values[low], values[high] + program.utilities[column - priced])
    leaf_values, ids = np.unique(np.append(values, -np.inf), return_inverse=True)  # −inf comes first
    if np.isinf(leaf_values[1:]).any():
        raise UnsupportedProblemError(
            f"the utilities of variables that θ doesn't price overflow in {program.problem!r}: scale `fixed` down"
        )
    total = len(leaf_values)
    ends, below, nodes = [total], total, [np.zeros((2, total), dtype=np.int64)]
    for low, high in reversed(layers[:priced]):
        pairs, inverse = np.unique(ids[low] * below + ids[high], return_inverse=True)
        leads_nowhere = int(len(pairs) > 0 and pairs[0] == 0)
        numbers = np.where(inverse >= leads_nowhere, total + inverse - leads_nowhere, 0)
        ids = np.append(numbers, 0)  # −1 is the last one
        nodes.append(np.stack(np.divmod(pairs[leads_nowhere:], below)))
        total += nodes[-1].shape[1]
        below = total
        ends.append(total)
    low, high = np.concatenate(nodes, axis=1).astype(np.int32)
    return Nodes(order[:priced].copy(), np.array(ends[::-1]), low, high, leaf_values)
