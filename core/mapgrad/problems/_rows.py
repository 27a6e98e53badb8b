"""Linear constraints under construction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Rows:
    """Rows ⟨a, x⟩ of linear constraints with their right sides, written block by block.

    Args:
        num_vars: Number of variables.
    """

    def __init__(self, num_vars: int) -> None:
        self.num_vars = num_vars
        self._entries: list[list[NDArray[np.float64]]] = []
        self._right: list[NDArray[np.float64]] = []
        self._count = 0

    def add(self, right: ArrayLike, *terms: tuple[ArrayLike, ArrayLike, ArrayLike]) -> None:
        """Append a block of rows.

        Args:
            right: [k] right sides, one for each row of the block.
            terms: Triples (rows, columns, coefficients) that broadcast together, rows counted within the block:
                coefficient · x[column] is added to the row's left side.
        """
        for rows, columns, coefficients in terms:
            entries = np.broadcast_arrays(np.asarray(rows) + self._count, columns, coefficients)
            self._entries.append([entry.ravel().astype(np.float64) for entry in entries])
        self._right.append(np.asarray(right, dtype=np.float64))
        self._count += len(self._right[-1])

    @property
    def left(self) -> SparseRows:
        """The coefficients, one row for each right side."""
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        shape = (self._count, self.num_vars)
        return SparseRows.from_entries(rows.astype(np.int64), columns.astype(np.int64), values, shape)

    @property
    def right(self) -> NDArray[np.float64]:
        """The right sides."""
        return np.concatenate(self._right)
