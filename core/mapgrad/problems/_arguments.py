"""What `IntegerProgram` makes of its arguments, and what it refuses."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._arrays import frozen_array, is_array, without_torch
from mapgrad.problems._checks import integer
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@runtime_checkable
class SupportsCsr(Protocol):
    """What the matrices and arrays of `scipy.sparse` have."""

    def tocsr(self) -> Any:
        """Return the matrix with attributes data, indices, indptr and shape."""


Matrix: TypeAlias = "ArrayLike | SparseRows | SupportsCsr"


def numbers(name: str, value: object) -> NDArray[Any]:
    """Return an argument as an array of real numbers.

    Raises:
        ProblemError: value is no rectangular array of real numbers, or holds NaN.
    """
    given = without_torch(name, value)
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:  # ragged
        raise ProblemError(f"{name} must be numbers in a rectangular array, got {reprlib.repr(value)}") from error
    except RuntimeError as error:  # torch's, of a list of tensors that require grad
        raise ProblemError(f"{name} must hold numbers: {error} (gradients reach θ only)") from error
    if array.dtype.kind not in "biuf":
        raise ProblemError(f"{name} must hold real numbers, got dtype {array.dtype} (use numpy.inf for no bound)")
    if np.isnan(array).any():
        place = np.argwhere(np.isnan(array))[0].tolist()
        raise ProblemError(f"{name} must hold numbers, got NaN{f' at {place}' if place else ''}")
    return array


def matrix(name: str, value: Matrix) -> SparseRows:
    """Return an argument as a matrix.

    Raises:
        ProblemError: value is no matrix of finite numbers, or has no column.
    """
    if isinstance(value, SparseRows):
        return value
    given: Any = value.tocsr() if isinstance(value, SupportsCsr) else numbers(name, value)
    if len(given.shape) != 2 or given.shape[1] == 0:
        raise ProblemError(f"{name} must have shape [rows, variables] with at least one variable, got {given.shape}")
    try:
        if not is_array(given):
            return SparseRows(numbers(name, given.data), given.indices, given.indptr, given.shape)
        row, column = np.nonzero(given)
        return SparseRows.from_entries(row, column, given[row, column], given.shape)
    except ProblemError as error:
        raise ProblemError(f"{name}: {error}") from None


def number_of_variables(**given: Any) -> int:
    """Return the number of variables: the last length of the first argument that is an array.

    Raises:
        ProblemError: no argument tells, or there is no variable.
    """
    for name, value in given.items():
        if value is None:
            continue
        lengths: tuple[int, ...] = value.shape if hasattr(value, "shape") else numbers(name, value).shape
        if lengths:
            if lengths[-1] == 0:
                raise ProblemError(f"{name} has shape {lengths}: a program needs at least one variable")
            return int(lengths[-1])
    raise ProblemError(f"how many variables there are can't be told: give one of {', '.join(given)} an entry for each")


def rows(kind: str, coefficients: Matrix | None, bounds: ArrayLike | None, size: int) -> tuple[SparseRows, Any]:
    """Return the rows A_ub x ≤ b_ub (kind "ub") or A_eq x = b_eq (kind "eq"): a matrix and read-only float64 [m].

    Raises:
        ProblemError: one of both is missing, sizes disagree, or a bound is infinite where it mustn't be.
    """
    matrix_name, bound_name = f"A_{kind}", f"b_{kind}"
    if (coefficients is None) != (bounds is None):
        given, missing = (bound_name, matrix_name) if coefficients is None else (matrix_name, bound_name)
        raise ProblemError(f"{given} came without {missing}: give both or neither")
    if coefficients is None:
        return SparseRows([], [], [0], (0, size)), frozen_array([], np.float64)
    left = matrix(matrix_name, coefficients)
    right = np.atleast_1d(numbers(bound_name, bounds)).astype(np.float64)
    if left.shape[1] != size:
        raise ProblemError(f"{matrix_name} has {left.shape[1]} columns, but there are {size} variables")
    if right.shape != left.shape[:1]:
        raise ProblemError(f"{bound_name} must hold one number for each of {left.shape[0]} rows, got {right.shape}")
    vacuous = (right == np.inf) & (kind == "ub")
    if np.isinf(right[~vacuous]).any():
        row = int((np.isinf(right) & ~vacuous).argmax())
        raise ProblemError(f"{bound_name} is {right[row]} in row {row}: no x meets that row")
    return left.select(~vacuous), frozen_array(right[~vacuous] + 0.0, np.float64)


def sides(lower: ArrayLike, upper: ArrayLike, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return row_lower and row_upper, read-only float64 [m], of numbers for each row or one for all.

    Raises:
        ProblemError: sizes disagree, or a row can't be met.
    """
    given = [each(name, value, count, "rows") for name, value in (("row_lower", lower), ("row_upper", upper))]
    low, high = (frozen_array(side + 0.0, np.float64) for side in given)
    unmet = (low > high) | (low == np.inf) | (high == -np.inf)
    if unmet.any():
        row = int(unmet.argmax())
        raise ProblemError(f"row_lower is {low[row]} and row_upper is {high[row]} in row {row}: no x meets that row")
    return low, high


def each(name: str, value: ArrayLike, size: int, what: str = "variables") -> NDArray[Any]:
    """Return an argument as an array [size], of so many numbers or of one for all.

    Raises:
        ProblemError: value has the wrong size, or holds anything but numbers.
    """
    array = numbers(name, value)
    if array.shape not in ((), (size,)):
        raise ProblemError(f"{name} must be one number or one for each of {size} {what}, got shape {array.shape}")
    return np.broadcast_to(array, (size,))


def integrality(value: ArrayLike, size: int) -> NDArray[np.bool_]:
    """Return which variables are integer, read-only.

    Raises:
        ProblemError: value has the wrong size, or holds anything but 0 and 1.
    """
    array = each("integrality", value, size)
    odd = ~np.isin(array, (0, 1))
    if odd.any():
        number = int(odd.argmax())
        raise ProblemError(
            f"integrality must be 0 (continuous) or 1 (integer), got {array[number]} for variable {number}: "
            "semi-continuous and semi-integer variables have a 1 in semicontinuous"
        )
    return frozen_array(array, np.bool_)


def box(
    lower: ArrayLike, upper: ArrayLike, integer: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds, read-only float64 [num_vars], those of integer variables rounded inwards.

    Raises:
        ProblemError: sizes disagree, or a variable is left no value.
    """
    given = [each(name, value, len(integer)) for name, value in (("lower", lower), ("upper", upper))]
    low, high = (np.array(bound, dtype=np.float64) for bound in given)
    low[integer], high[integer] = np.ceil(low[integer]), np.floor(high[integer])
    empty = (low > high) | (low == np.inf) | (high == -np.inf)
    if empty.any():
        number = int(empty.argmax())
        kind, least, most = "integer" if integer[number] else "number", *(bound[number] for bound in given)
        raise ProblemError(f"no {kind} lies within the bounds of variable {number}, lower={least} and upper={most}")
    return frozen_array(low + 0.0, np.float64), frozen_array(high + 0.0, np.float64)


def decision(value: ArrayLike | None, size: int) -> NDArray[np.int64]:
    """Return the columns that θ prices, read-only.

    Raises:
        ProblemError: value isn't a list of distinct columns, or is empty.
    """
    if value is None:
        return frozen_array(np.arange(size), np.int64)
    array = numbers("decision", value)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ProblemError(
            f"decision must be a list of at least one column, got shape {array.shape} and dtype {array.dtype}"
        )
    outside = (array < 0) | (array >= size)
    if outside.any():
        raise ProblemError(f"decision must hold columns in 0..{size - 1}, got {array[outside][0]}")
    columns, count = np.unique(array, return_counts=True)
    if (count > 1).any():
        raise ProblemError(f"decision must hold distinct columns, got {columns[count > 1][0]} more than once")
    return frozen_array(array, np.int64)


def fixed(value: ArrayLike | None, size: int) -> NDArray[np.float64]:
    """Return the utilities of the variables that θ doesn't price, read-only.

    Raises:
        ProblemError: value has the wrong size, or holds an infinite number.
    """
    array = np.zeros(size) if value is None else numbers("fixed", value)
    if array.shape != (size,):
        raise ProblemError(f"fixed must hold one utility for each of {size} variables, got shape {array.shape}")
    if np.isinf(array).any():
        raise ProblemError(f"fixed must hold finite utilities, got {array[np.isinf(array)][0]}")
    return frozen_array(array + 0.0, np.float64)


def shape(value: int | Sequence[int] | None, size: int) -> tuple[int, ...]:
    """Return θ's shape.

    Raises:
        ProblemError: value is no shape of as many entries as θ has.
    """
    lengths = (size,) if value is None else tuple(value) if isinstance(value, Sequence) else (value,)
    lengths = tuple(integer("each length of shape", length, 1) for length in lengths)
    if not lengths or math.prod(lengths) != size:
        raise ProblemError(
            f"shape is {lengths}, but θ prices {size} variables: the product of its lengths must be that"
        )
    return lengths
