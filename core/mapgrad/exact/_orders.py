"""Orders in which a diagram may decide the variables: its size hangs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.exact._binary_rows import BinaryRows


def candidate_orders(program: BinaryRows) -> list[NDArray[np.int64]]:
    """Return some orders of the variables, distinct, those that θ prices always first: their own order is the first.

    The others keep the rows apart that are open at a time, or begin with the variables of the largest or the smallest
    coefficients.
    """
    count = program.may_be.shape[1]
    own = np.arange(count, dtype=np.int64)
    is_other, weight = own >= program.num_priced, _weights(program)
    by_weight: list[NDArray[np.int64]] = [np.lexsort((sign * weight, is_other)) for sign in (-1, 1)]
    orders = [own, _fewest_open_rows(program), *by_weight]
    return list({order.tobytes(): order for order in orders}.values())


def _weights(program: BinaryRows) -> NDArray[np.float64]:
    """Return for each variable the sum of its |coefficients|, each as a share of its row."""
    weight = np.zeros(program.may_be.shape[1])
    for row in program.rows:
        size = np.abs(row.coefficients.astype(np.float64))
        weight[row.columns] += size / size.sum()
    return weight


def _fewest_open_rows(program: BinaryRows) -> NDArray[np.int64]:
    """Take next the variable that leaves the fewest rows begun and not ended; among equals, of rows that end soon."""
    count = program.may_be.shape[1]
    rows_of: list[list[int]] = [[] for _ in range(count)]
    opened = np.zeros(count)  # rows that are begun by taking a variable, less those that it ends
    nearness = np.zeros(count)  # of the ends of begun rows
    left = [len(row.columns) for row in program.rows]
    is_left = np.ones(count, dtype=np.bool_)
    for number, row in enumerate(program.rows):
        columns: list[int] = row.columns.tolist()
        for column in columns:
            rows_of[column].append(number)
        if left[number] > 1:
            opened[row.columns] += 1
    order: list[int] = []
    scale = 1 + len(program.rows)
    for last in (program.num_priced, count):
        while len(order) < last:
            score = opened[:last] - nearness[:last] / scale
            column = int(np.where(is_left[:last], score, np.inf).argmin())
            order.append(column)
            is_left[column] = False
            for number in rows_of[column]:
                touched = program.rows[number].columns
                is_new = left[number] == len(touched)
                left[number] -= 1
                if not left[number]:
                    continue
                opened[touched] -= int(is_new) + int(left[number] == 1)
                nearness[touched] += 1 / left[number] - (0 if is_new else 1 / (left[number] + 1))
    return np.array(order, dtype=np.int64)
