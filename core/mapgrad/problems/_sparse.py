"""Sparse matrices as values."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._arrays import array_bytes, frozen_array, without_torch
from mapgrad.problems._optional import optional_module

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_BLOCK: int = 2**22  # products held at once by `SparseRows.activities`: 32 MB


class SparseRows:
    """An immutable matrix in compressed sparse row form, canonical: equal matrices have equal arrays.

    Within each row the columns ascend; no entry is zero or there twice (entries of one place are summed).

    Args:
        data: [nnz] real numbers, the entries, row after row.
        indices: [nnz] integers, the column of each entry.
        indptr: [m + 1] integers: row i holds the entries indptr[i] to indptr[i + 1] - 1.
        shape: (m, n), n ≥ 1.

    Attributes:
        data: [nnz] float64, read-only.
        indices: [nnz] int64, read-only.
        indptr: [m + 1] int64, read-only.
        shape: (m, n).

    Raises:
        ProblemError: the arrays don't describe a matrix of this shape, or an entry isn't finite.
    """

    data: NDArray[np.float64]
    indices: NDArray[np.int64]
    indptr: NDArray[np.int64]
    shape: tuple[int, int]

    def __init__(self, data: ArrayLike, indices: ArrayLike, indptr: ArrayLike, shape: tuple[int, int]) -> None:
        height, width = shape
        values, columns = np.asarray(without_torch("data", data), dtype=np.float64), np.asarray(indices, dtype=np.int64)
        starts = np.asarray(indptr, dtype=np.int64)
        if not values.shape == columns.shape == (values.size,):
            raise ProblemError(f"data and indices must be of one length, got shapes {values.shape} and {columns.shape}")
        if starts.shape != (height + 1,) or starts[0] != 0 or starts[-1] != values.size or (np.diff(starts) < 0).any():
            raise ProblemError(
                f"indptr must rise from 0 to {values.size}, the number of entries, in {height + 1} numbers, got "
                f"{starts.tolist() if starts.size <= 12 else f'shape {starts.shape}'}"
            )
        rows = np.repeat(np.arange(height), np.diff(starts))
        _check_entries(rows, columns, values, shape)
        places, position = np.unique(rows * width + columns, return_inverse=True)
        sums = np.bincount(position, weights=values, minlength=len(places))
        places, sums = places[sums != 0], sums[sums != 0]
        rows, columns = np.divmod(places, width)
        for name, value in (
            ("data", frozen_array(sums, np.float64)),
            ("indices", frozen_array(columns, np.int64)),
            ("indptr", frozen_array(np.searchsorted(rows, np.arange(height + 1)), np.int64)),
            ("shape", (height, width)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_entries(cls, rows: ArrayLike, columns: ArrayLike, values: ArrayLike, shape: tuple[int, int]) -> SparseRows:
        """Return the matrix with these entries, zero elsewhere.

        Args:
            rows: [nnz] integers, the row of each entry, in any order.
            columns: [nnz] integers, its column.
            values: [nnz] real numbers, or one for all; entries of one place are summed.
            shape: (m, n), n ≥ 1.

        Raises:
            ProblemError: an entry lies outside the matrix, or isn't finite.
        """
        given = without_torch("values", values)
        row, column, value = (part.ravel() for part in np.broadcast_arrays(rows, columns, given))
        _check_entries(row, column, value, shape)
        order = np.argsort(row, kind="stable")
        starts = np.searchsorted(row[order], np.arange(shape[0] + 1))
        return cls(value[order], column[order], starts, shape)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"SparseRows is immutable: make a new one instead of setting {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseRows):
            return NotImplemented
        return self is other or self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """A stable name of the content: equal for equal matrices, in every process and on every machine."""
        import hashlib

        hasher = hashlib.sha256(repr(self.shape).encode())
        for array in (self.indptr, self.indices, self.data):
            hasher.update(array_bytes(array))
        return hasher.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseRows, (self.data, self.indices, self.indptr, self.shape)

    def __repr__(self) -> str:
        return f"<{self.shape[0]}×{self.shape[1]} matrix, {len(self.data)} entries>"

    @cached_property
    def largest(self) -> NDArray[np.float64]:
        """The largest magnitude in each row, 0 in an empty one: float64 [m], read-only."""
        largest = np.zeros(self.shape[0])
        np.maximum.at(largest, self.row_of_entry, np.abs(self.data))
        return frozen_array(largest, np.float64)

    @cached_property
    def row_of_entry(self) -> NDArray[np.int64]:
        """The row of each entry: int64 [nnz], read-only."""
        return frozen_array(np.repeat(np.arange(self.shape[0]), np.diff(self.indptr)), np.int64)

    def row(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return a row's columns, int64 [k], and their coefficients, float64 [k]: read-only views."""
        part = slice(*self.indptr[number : number + 2].tolist())
        return self.indices[part], self.data[part]

    def touches(self, columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which rows have an entry in one of the columns of a mask [n]: bool [m]."""
        return np.bincount(self.row_of_entry[columns[self.indices]], minlength=self.shape[0]) > 0

    def select(self, rows: NDArray[np.bool_]) -> SparseRows:
        """Return the matrix of those rows that a mask [m] picks."""
        if rows.all():
            return self
        kept = rows[self.row_of_entry]
        lengths = np.diff(self.indptr)[rows]
        return SparseRows(
            self.data[kept], self.indices[kept], np.append(0, lengths.cumsum()), (len(lengths), self.shape[1])
        )

    def negative(self) -> SparseRows:
        """Return the matrix of opposite sign."""
        return SparseRows(-self.data, self.indices, self.indptr, self.shape)

    def scaled(self, bits: int) -> tuple[SparseRows, NDArray[np.int64]]:
        """Return these rows times powers of two, and the exponents.

        Args:
            bits: The largest coefficient of each row gets to [2^bits, 2^(bits + 1)) in absolute value.

        Returns:
            The matrix, and int64 [m], read-only.
        """
        _, exponents = np.frexp(self.largest)
        shifts = frozen_array(np.where(self.largest > 0, bits + 1 - exponents, 0), np.int64)
        data = np.ldexp(self.data, shifts[self.row_of_entry])
        return SparseRows(data, self.indices, self.indptr, self.shape), shifts

    def below(self, other: SparseRows) -> SparseRows:
        """Return the matrix of other's rows, then these.

        Raises:
            ProblemError: the matrices differ in their number of columns.
        """
        if self.shape[1] != other.shape[1]:
            raise ProblemError(f"matrices of {other.shape[1]} and {self.shape[1]} columns can't be stacked")
        if not self.shape[0]:
            return other
        return SparseRows(
            np.concatenate((other.data, self.data)),
            np.concatenate((other.indices, self.indices)),
            np.concatenate((other.indptr, other.indptr[-1] + self.indptr[1:])),
            (other.shape[0] + self.shape[0], self.shape[1]),
        )

    def activities(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ⟨row, x⟩ for each x and row: float64 [N, m] from float64 [N, n]."""
        return self._by_row(np.add, x, self.data)

    def magnitudes(self, x: NDArray[np.float64], least: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
        """Return the largest |coefficient_j| · max(least_j, |x_j|) of each row: float64 [N, m] from x [N, n]."""
        return self._by_row(np.maximum, np.maximum(np.abs(x), least), np.abs(self.data))

    def _by_row(
        self, reduce: np.ufunc, x: NDArray[np.float64], coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        results = np.zeros((len(x), self.shape[0]))
        filled = np.diff(self.indptr) > 0
        if filled.any():
            step = max(1, _BLOCK // len(coefficients))
            for block in range(0, len(x), step):
                products = x[block : block + step, self.indices] * coefficients
                results[block : block + step, filled] = reduce.reduceat(products, self.indptr[:-1][filled], axis=1)
        return results

    def toarray(self) -> NDArray[np.float64]:
        """Return the dense matrix, float64 [m, n]."""
        dense = np.zeros(self.shape)
        dense[self.row_of_entry, self.indices] = self.data
        return dense

    def to_scipy(self) -> Any:
        """Return a `scipy.sparse.csr_array` that holds copies of the arrays.

        Raises:
            MissingDependencyError: scipy isn't installed.
        """
        csr_array = optional_module("scipy.sparse", "SparseRows.to_scipy", "scipy").csr_array
        return csr_array((self.data.copy(), self.indices.copy(), self.indptr.copy()), shape=self.shape)


def _check_entries(rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]) -> None:
    height, width = shape
    outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
    wrong = outside | ~np.isfinite(values)
    if wrong.any():
        number = int(wrong.argmax())
        reason = f"outside the {height}×{width} matrix" if outside[number] else "not finite, as every entry must be"
        raise ProblemError(f"entry {values[number]} at row {rows[number]}, column {columns[number]} is {reason}")
