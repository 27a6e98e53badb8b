"""Rows of two sides, and programs that share their coefficients."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array

from mapgrad.errors import ProblemError
from mapgrad.problems import IntegerProgram

MATRIX = [[1, 2, 0], [0, 1, -1], [3, 0, 1], [1, 1, 1]]
LOWER, UPPER = [-np.inf, -1, 2, 1], [4, np.inf, 2, 3]


def two_sided(**changes: Any) -> IntegerProgram:
    return IntegerProgram.from_rows(**{"matrix": MATRIX, "row_lower": LOWER, "row_upper": UPPER, "upper": 2} | changes)


def one_sided() -> IntegerProgram:
    return IntegerProgram(A_ub=MATRIX[:2], b_ub=[4, 1], A_eq=MATRIX[2:], b_eq=[2, 3], upper=2, decision=[2, 0])


def test_rows_are_kept_with_both_sides() -> None:
    program = two_sided()
    assert program.matrix.toarray().tolist() == MATRIX
    assert (program.row_lower.tolist(), program.row_upper.tolist()) == (LOWER, UPPER)
    assert program.A_ub.toarray().tolist() == [[1, 2, 0], [1, 1, 1], [0, -1, 1], [-1, -1, -1]]
    assert program.b_ub.tolist() == [4, 3, 1, -1]
    assert (program.A_eq.toarray().tolist(), program.b_eq.tolist()) == ([[3, 0, 1]], [2])
    for array in (program.row_lower, program.row_upper, program.b_ub, program.b_eq):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_linprogs_form_is_taken_by_linprog() -> None:
    program = two_sided(integrality=0)
    bounds = np.stack((program.lower, program.upper), axis=1)
    result = linprog(
        [1, -2, 1], program.A_ub.toarray(), program.b_ub, program.A_eq.toarray(), program.b_eq, bounds=bounds
    )
    assert result.status == 0
    assert program.contains(torch.tensor(result.x)).item()


@pytest.mark.parametrize("seed", range(20))
def test_states_are_all_points_between_the_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = 4, 3
    lower = rng.integers(-2, 1, n)
    upper = lower + rng.integers(0, 4, n)
    inside = rng.integers(lower, upper + 1)
    matrix = rng.integers(-3, 4, (m, n))
    row_lower = np.where(rng.random(m) < 0.3, -np.inf, matrix @ inside - rng.integers(0, 3, m))
    row_upper = np.where(rng.random(m) < 0.3, np.inf, matrix @ inside + rng.integers(0, 3, m))
    program = IntegerProgram.from_rows(csr_array(matrix), row_lower, row_upper, lower=lower, upper=upper)
    points = np.array(list(itertools.product(*(range(a, b + 1) for a, b in zip(lower, upper, strict=True)))))
    activity = points @ matrix.T
    truth = ((activity >= row_lower) & (activity <= row_upper)).all(axis=1)
    assert program.contains_rows(points).tolist() == truth.tolist()
    assert program.state_rows().tolist() == points[truth].tolist()
    less, equal = program.A_ub.toarray(), program.A_eq.toarray()
    in_other_form = (points @ less.T <= program.b_ub).all(axis=1) & (points @ equal.T == program.b_eq).all(axis=1)
    assert in_other_form.tolist() == truth.tolist()


def test_each_side_has_its_own_tolerance() -> None:
    program = IntegerProgram.from_rows([[1, 1]], [1], [1e9 + 0.5], upper=np.inf)
    z = torch.tensor([[0, 0], [1, 0], [1e9, 0], [1e9, 1]], dtype=torch.float64)
    assert program.contains(z).tolist() == [False, True, True, False]  # 1e9 + 1 misses half a unit
    program = IntegerProgram.from_rows([[1, 1]], [1.5], [1e9], upper=np.inf)
    assert program.contains(z).tolist() == [False, False, True, False]


def test_one_number_stands_for_all_rows_and_a_row_without_sides_is_dropped() -> None:
    assert two_sided(row_lower=0) == two_sided(row_lower=[0] * 4)
    assert two_sided(row_lower=0, row_upper=np.inf).row_upper.tolist() == [np.inf] * 4
    dropped = two_sided(row_upper=np.inf)
    assert dropped.matrix.toarray().tolist() == MATRIX[1:]
    assert IntegerProgram.from_rows(MATRIX, -np.inf, np.inf) == IntegerProgram(lower=np.zeros(3))


def test_both_forms_of_the_same_rows_are_one_program() -> None:
    program = IntegerProgram.from_rows(MATRIX, [-np.inf, -np.inf, 2, 3], [4, 1, 2, 3], upper=2, decision=[2, 0])
    assert program == one_sided()
    assert (hash(program), program.digest, repr(program)) == (hash(one_sided()), one_sided().digest, repr(one_sided()))


def test_copies_and_reprs_are_of_the_same_program() -> None:
    for program in (two_sided(), two_sided(decision=[1], fixed=[0.5, -1]), one_sided()):
        for twin in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program), program.replace()):
            assert (twin, hash(twin), twin.digest) == (program, hash(program), program.digest)
            assert repr(twin) == repr(program)
            with pytest.raises(ValueError, match="read-only"):
                twin.row_upper[0] = 0
            with pytest.raises(AttributeError, match="IntegerProgram is immutable"):
                twin.row_upper = twin.row_lower
        np_named = {"inf": np.inf, "IntegerProgram": IntegerProgram}
        assert eval(repr(program), np_named) == program
    assert repr(IntegerProgram.from_rows([[1, 2]], [0], [2])) == (
        "IntegerProgram.from_rows(matrix=[[1.0, 2.0]], row_lower=[0.0], row_upper=[2.0])"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_lower": [0, 0, 3, 0]}, "row_lower is 3.0 and row_upper is 2.0 in row 2: no x meets that row"),
        ({"row_lower": np.inf, "row_upper": np.inf}, "row_lower is inf and row_upper is inf in row 0: no x meets that"),
        ({"row_upper": [4, -np.inf, 2, 3]}, "row_lower is -1.0 and row_upper is -inf in row 1: no x meets that row"),
        ({"row_lower": [0, np.nan, 0, 0]}, "row_lower must hold numbers, got NaN at [1]"),
        ({"row_upper": [4, 4, 4]}, "row_upper must be one number or one for each of 4 rows, got shape (3,)"),
        ({"matrix": [1, 2]}, "matrix must have shape [rows, variables] with at least one variable, got (2,)"),
        ({"lower": [0, 0]}, "lower must be one number or one for each of 3 variables, got shape (2,)"),
    ],
)
def test_malformed_rows_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(message)):
        two_sided(**changes)


SIBLINGS: list[tuple[IntegerProgram, dict[str, Any], IntegerProgram]] = [
    (two_sided(), {"row_upper": [5, 9, 2, 3]}, two_sided(row_upper=[5, 9, 2, 3])),
    (two_sided(), {"row_lower": 0, "row_upper": 7}, two_sided(row_lower=0, row_upper=7)),
    (two_sided(), {"lower": -1.5, "upper": [1, 2, np.inf]}, two_sided(lower=-1.5, upper=[1, 2, np.inf])),
    (two_sided(), {"integrality": [1, 0, 0]}, two_sided(integrality=[1, 0, 0])),
    (two_sided(), {"decision": [2, 0]}, two_sided(decision=[2, 0])),
    (two_sided(decision=[0, 1], fixed=[3]), {"decision": [1]}, two_sided(decision=[1], fixed=[0, 3])),
    (two_sided(decision=[0], fixed=[3, 4]), {"decision": None}, two_sided()),
    (two_sided(decision=[0], fixed=[3, 4]), {"fixed": [1, 2]}, two_sided(decision=[0], fixed=[1, 2])),
    (two_sided(decision=[0], fixed=[3, 4]), {"fixed": None}, two_sided(decision=[0])),
    (two_sided(), {"shape": (3, 1)}, two_sided(shape=(3, 1))),
    (
        one_sided(),
        {"b_ub": [9, -1], "b_eq": 1},
        IntegerProgram(A_ub=MATRIX[:2], b_ub=[9, -1], A_eq=MATRIX[2:], b_eq=[1, 1], upper=2, decision=[2, 0]),
    ),
]


@pytest.mark.parametrize(("program", "changes", "expected"), SIBLINGS, ids=lambda value: str(value)[:60])
def test_a_sibling_is_what_a_new_program_would_be(
    program: IntegerProgram, changes: dict[str, Any], expected: IntegerProgram
) -> None:
    for used in (False, True):
        if used:  # whatever was computed of the program mustn't be taken for the sibling's
            _ = (program.digest, program.structure, program.box, program.largest, program.A_ub, program.others)
            program.contains_rows(np.zeros(program.shape))
        sibling = program.replace(**changes)
        assert sibling.matrix is program.matrix
        assert (sibling, sibling.digest, repr(sibling)) == (expected, expected.digest, repr(expected))
        for name in ("others", "shape", "largest", "kappa", "structure"):
            assert np.array_equal(getattr(sibling, name), getattr(expected, name)), name
        assert sibling.A_ub == expected.A_ub
        points = np.stack([np.full(expected.shape, value) for value in (0, 1, 2)])
        assert sibling.contains_rows(points).tolist() == expected.contains_rows(points).tolist()
    assert program.replace() == program


def test_a_sibling_keeps_what_a_file_said() -> None:
    program = two_sided()
    vars(program).update(objective=np.array([1.0, 2.0, 3.0]), offset=4.0)
    sibling = program.replace(upper=7)
    assert (sibling.objective.tolist(), sibling.offset) == ([1, 2, 3], 4)


def test_a_row_may_lose_its_last_side_and_get_it_back() -> None:
    program = one_sided()
    free = program.replace(b_ub=[np.inf, 1])
    assert free.matrix is program.matrix
    assert free.row_upper.tolist() == [np.inf, 1, 2, 3]
    assert (free.A_ub.toarray().tolist(), free.b_ub.tolist()) == ([MATRIX[1]], [1])
    assert pickle.loads(pickle.dumps(free)) == free
    assert free.replace(b_ub=[4, 1]) == program


@pytest.mark.parametrize(
    ("program", "changes", "error", "message"),
    [
        (one_sided(), {"b_up": 1}, TypeError, "replace has no argument 'b_up': it takes row_lower, row_upper, b_ub, b"),
        (one_sided(), {"b_up": 1}, TypeError, "did you mean 'b_ub'?"),
        (one_sided(), {"A_ub": MATRIX}, TypeError, "replace keeps the coefficients: make a new IntegerProgram for ano"),
        (
            two_sided(),
            {"b_ub": 1},
            ProblemError,
            "b_ub can't be replaced, as rows of this program have two sides: give",
        ),
        (one_sided(), {"b_ub": 1, "row_lower": 0}, ProblemError, "b_ub can't be replaced, as sides came in both forms"),
        (one_sided(), {"b_ub": [1, 2, 3]}, ProblemError, "b_ub must be one number or one for each of 2 rows, got sha"),
        (
            one_sided(),
            {"b_eq": np.inf},
            ProblemError,
            "row_lower is inf and row_upper is inf in row 2: no x meets that",
        ),
        (one_sided(), {"upper": -1}, ProblemError, "no integer lies within the bounds of variable 0, lower=0.0 and up"),
        (one_sided(), {"fixed": [1, 2]}, ProblemError, "fixed must hold one utility for each of 1 variables, got shap"),
    ],
)
def test_changes_that_do_not_fit_are_refused(
    program: IntegerProgram, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        program.replace(**changes)


def test_one_structure_is_what_one_native_model_serves() -> None:
    program = two_sided(decision=[0, 1], fixed=[3])
    hash(program.structure)
    for changes in ({"row_lower": -np.inf}, {"lower": -np.inf, "upper": 9}, {"fixed": [1]}, {"row_upper": 1e9}):
        assert program.replace(**changes).structure == program.structure
        assert program.replace(**changes) != program
    for changes in ({"integrality": [1, 1, 0]}, {"decision": [0, 2]}, {"decision": [1, 0]}, {"shape": (2, 1)}):
        assert program.replace(**changes).structure != program.structure
    others = two_sided(matrix=-np.array(MATRIX)), two_sided(matrix=MATRIX[::-1])
    assert len({each.structure for each in (two_sided(), *others)}) == 3
    assert two_sided(row_upper=[5, 9, 2, 3]).structure == two_sided().structure
