"""Variables of somebody's model, however they are nested."""

import numpy as np
import pytest

from mapgrad import ProblemError, columns_of


def column_of(variable):
    if not isinstance(variable, str):
        raise TypeError(f"no variable: {variable!r}")
    if variable not in "abcdef":
        raise ProblemError(f"of another model: {variable!r}")
    return "abcdef".index(variable)


@pytest.mark.parametrize(
    ("variables", "columns", "shape"),
    [
        (["c", "a"], [2, 0], (2,)),
        ((("a", "b", "c"), ("f", "e", "d")), [0, 1, 2, 5, 4, 3], (2, 3)),
        (np.array([["a", "b"], ["c", "d"]], dtype=object).T, [0, 2, 1, 3], (2, 2)),
        ({(1, 0): "b", (0, 1): "a"}, [1, 0], (2,)),
        ({"second": ["c", "d"], "first": ["a", "b"]}, [2, 3, 0, 1], (2, 2)),
        ((each for each in "fed"), [5, 4, 3], (3,)),
        ([[["a"]]], [0], (1, 1, 1)),
    ],
)
def test_nesting_gives_the_shape_and_order_the_columns(variables, columns, shape):
    found, nesting = columns_of(variables, column_of)
    assert (found.tolist(), found.dtype, nesting) == (columns, np.int64, shape)


@pytest.mark.parametrize(
    ("variables", "error", "message"),
    [
        ("a", ProblemError, "variables must be a list, an array or a dictionary of variables, got 'a'"),
        ([], ProblemError, "variables must hold at least one variable, got none"),
        ([[], []], ProblemError, "variables must hold at least one variable, got none"),
        (["a", "b", "a"], ProblemError, "variable 0 of the model is there 2 times: a"),
        ([["a", "b"], ["c"]], ProblemError, r"got parts of shapes \(1,\) and \(2,\) side by side"),
        (["a", ["b"]], ProblemError, r"got parts of shapes \(\) and \(1,\) side by side"),
        (["z"], ProblemError, "of another model: 'z'"),
        ([1.0], TypeError, r"no variable: 1\.0"),
    ],
)
def test_refusals(variables, error, message):
    with pytest.raises(error, match=message):
        columns_of(variables, column_of)
