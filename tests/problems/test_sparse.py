from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapgrad.errors import MissingDependencyError, ProblemError
from mapgrad.problems import SparseRows

Entry = tuple[int, int, int]
entries = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-2, 2)), max_size=15)


@given(entries, entries)
@settings(max_examples=60, deadline=None)
def test_matrices_are_canonical(first: list[Entry], second: list[Entry]) -> None:
    def dense(given: list[Entry]) -> np.ndarray:
        array = np.zeros((4, 3))
        for row, column, value in given:
            array[row, column] += value
        return array

    one, other = (SparseRows.from_entries(*np.reshape(e, (-1, 3)).T, (4, 3)) for e in (first, second))
    assert one.toarray().tolist() == dense(first).tolist()
    assert (one == other) is (hash(one) == hash(other)) is bool((dense(first) == dense(second)).all())
    assert one == SparseRows.from_entries(*np.reshape(first[::-1], (-1, 3)).T, (4, 3))
    assert one == SparseRows(one.data, one.indices, one.indptr, one.shape)
    assert (one.data != 0).all()
    for row in range(4):
        columns, values = one.row(row)
        assert columns.tolist() == np.flatnonzero(dense(first)[row]).tolist()
        assert values.tolist() == dense(first)[row, columns].tolist()
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(one.activities(x), x @ dense(first).T, atol=1e-12)
    np.testing.assert_array_equal(one.to_scipy().toarray(), dense(first))


def test_arrays_are_read_only_and_typed() -> None:
    given = np.array([1.0, 2.0])
    matrix = SparseRows(given, [2, 0], [0, 1, 2], (2, 3))
    given[:] = 7
    assert matrix.toarray().tolist() == [[0, 0, 1], [2, 0, 0]]
    assert (matrix.data.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float64, np.int64, np.int64)
    for twin in (matrix, pickle.loads(pickle.dumps(matrix)), copy.deepcopy(matrix)):
        assert twin == matrix
        for array in (twin.data, twin.indices, twin.indptr, *twin.row(0)):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
    with pytest.raises(AttributeError, match="SparseRows is immutable: make a new one instead of setting 'shape'"):
        matrix.shape = (3, 2)
    matrix.to_scipy().data[0] = 5
    assert matrix.data[0] == 1
    assert matrix != "matrix"
    assert repr(matrix) == "<2×3 matrix, 2 entries>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], [3], [0, 1], (1, 3)), "entry 1.0 at row 0, column 3 is outside the 1×3 matrix"),
        (([1], [-1], [0, 1], (1, 3)), "entry 1.0 at row 0, column -1 is outside the 1×3 matrix"),
        (([np.inf], [0], [0, 1], (1, 3)), "entry inf at row 0, column 0 is not finite, as every entry must be"),
        (([1, 2], [0], [0, 2], (1, 3)), r"data and indices must be of one length, got shapes \(2,\) and \(1,\)"),
        (([1], [0], [0, 2], (1, 3)), r"indptr must rise from 0 to 1, the number of entries, in 2 numbers, got \[0, 2"),
        (([1], [0], [0, 1, 0, 1], (3, 3)), r"in 4 numbers, got \[0, 1, 0, 1\]"),
        (([1], [0], np.zeros(20), (1, 3)), r"in 2 numbers, got shape \(20,\)"),
    ],
)
def test_malformed_matrices_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        SparseRows(*arguments)
    with pytest.raises(ProblemError, match="entry 1 at row 2, column 0 is outside the 2×2 matrix"):
        SparseRows.from_entries([2], [0], [1], (2, 2))


def test_matrices_of_other_widths_are_not_stacked() -> None:
    with pytest.raises(ProblemError, match="matrices of 2 and 3 columns can't be stacked"):
        SparseRows([], [], [0], (0, 3)).below(SparseRows([], [], [0], (0, 2)))


def test_scipy_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    matrix = SparseRows([1], [0], [0, 1], (1, 2))
    with pytest.raises(MissingDependencyError, match=r"^SparseRows.to_scipy needs scipy: pip install 'mapgrad\[scipy"):
        matrix.to_scipy()
