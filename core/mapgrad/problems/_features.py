"""What a program may say beyond rows and bounds: semi-continuous variables, special ordered sets, indicator rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems import _arguments as arguments
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._checks import integer
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FEATURES: Final = ("semicontinuous", "sos", "indicators")

Sos: TypeAlias = tuple[int, tuple[int, ...], tuple[float, ...]]
"""At most `type` of the variables, neighbours in the order of the weights, aren't 0: type, columns, weights."""
Indicator: TypeAlias = tuple[int, int, SparseRows, float, float]
"""Where variable = value, lower ≤ row x ≤ upper: variable, value, row [1, num_vars], lower, upper."""


def semicontinuous(value: ArrayLike | None, size: int) -> NDArray[np.bool_]:
    """Return which variables may be 0 in place of what lies within their bounds, read-only.

    Raises:
        ProblemError: value has the wrong size, or holds anything but 0 and 1.
    """
    array = arguments.each("semicontinuous", False if value is None else value, size)
    odd = ~np.isin(array, (0, 1))
    if odd.any():
        number = int(odd.argmax())
        raise ProblemError(f"semicontinuous must hold 0 or 1 for each variable, got {array[number]} for {number}")
    return frozen_array(array, np.bool_)


def sos(value: Iterable[Any], size: int) -> tuple[Sos, ...]:
    """Return special ordered sets, their columns in the order of the weights.

    Raises:
        ProblemError: value isn't a list of triples (type, columns, weights), a column isn't there or there twice, or
            the weights leave the order open.
    """
    return tuple(_set(f"sos {number}", given, size) for number, given in enumerate(_listed("sos", value)))


def _set(name: str, given: Any, size: int) -> Sos:
    kind, columns, weights = _parts(name, given, "(type, columns, weights)", 3)
    kind = integer(f"the type of {name}", kind, 1, 2)
    places, order = arguments.numbers(f"{name}: weights", weights), arguments.numbers(f"{name}: columns", columns)
    if order.ndim != 1 or places.shape != order.shape or not len(order):
        raise ProblemError(
            f"{name} must have a list of columns and as many weights, got shapes {order.shape} and {places.shape}"
        )
    listed = [integer(f"a column of {name}", column, 0, size - 1) for column in order.tolist()]
    if len(set(listed)) < len(listed):
        raise ProblemError(f"{name} must have distinct columns, got {listed}")
    if not np.isfinite(places).all() or (kind == 2 and len(set(places.tolist())) < len(listed)):
        raise ProblemError(f"{name} must have finite weights, distinct ones for type 2, got {places.tolist()}")
    ascending = np.argsort(places, kind="stable")
    return kind, tuple(order[ascending].tolist()), tuple((places[ascending] + 0.0).tolist())


def indicators(
    value: Iterable[Any], integrality: NDArray[np.bool_], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> tuple[Indicator, ...]:
    """Return indicator rows, without those that have no finite side.

    Raises:
        ProblemError: value isn't a list of (variable, value, row, lower, upper), a variable isn't a 0/1 one, or a row
            is malformed.
    """
    is_binary = integrality & (lower >= 0) & (upper <= 1)
    rows = (
        _indicator(f"indicator {number}", given, is_binary) for number, given in enumerate(_listed("indicators", value))
    )
    return tuple(row for row in rows if np.isfinite(row[3:]).any())


def _indicator(name: str, given: Any, is_binary: NDArray[np.bool_]) -> Indicator:
    variable, value, row, lower, upper = _parts(name, given, "(variable, value, row, lower, upper)", 5)
    variable = integer(f"the variable of {name}", variable, 0, len(is_binary) - 1)
    if not is_binary[variable]:
        raise ProblemError(f"{name} asks for variable {variable}, which must be integer with bounds 0 and 1")
    value = integer(f"the value of {name}", value, 0, 1)
    is_list = not isinstance(row, SparseRows | arguments.SupportsCsr)
    left = arguments.matrix(f"{name}: row", np.atleast_2d(arguments.numbers(f"{name}: row", row)) if is_list else row)
    if left.shape != (1, len(is_binary)):
        raise ProblemError(f"{name} must have one row of {len(is_binary)} coefficients, got shape {left.shape}")
    try:
        low, high = arguments.sides(lower, upper, 1)
    except ProblemError as error:
        raise ProblemError(f"{name}: {error}") from None
    return variable, value, left, float(low[0]), float(high[0])


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ProblemError(f"{name} must be a list of tuples, got {value!r}")
    return list(cast("Iterable[Any]", value))


def _parts(name: str, given: Any, wanted: str, count: int) -> tuple[Any, ...]:
    if not isinstance(given, Sequence) or len(cast("Sequence[Any]", given)) != count:
        raise ProblemError(f"{name} must be {wanted}, got {given!r}")
    return tuple(cast("Sequence[Any]", given))


def stacked(rows: Sequence[Indicator], size: int) -> SparseRows:
    """Return the rows of indicators as one matrix [len(rows), size]."""
    lengths = [len(row.data) for _, _, row, _, _ in rows]
    return SparseRows(
        np.concatenate([np.empty(0), *(row.data for _, _, row, _, _ in rows)]),
        np.concatenate([np.empty(0, np.int64), *(row.indices for _, _, row, _, _ in rows)]),
        np.append(0, np.cumsum(lengths, dtype=np.int64)),
        (len(rows), size),
    )


def keep_sets(sets: Sequence[Sos], x: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Tell which rows of x [N, num_vars] have neighbours only, and not too many, that aren't 0: bool [N]."""
    answers = np.ones(len(x), dtype=np.bool_)
    for kind, columns, _ in sets:
        is_used = np.abs(x[:, columns]) > tolerance
        first, last = is_used.argmax(axis=1), is_used.shape[1] - 1 - is_used[:, ::-1].argmax(axis=1)
        answers &= ~is_used.any(axis=1) | (last - first < kind)
    return answers
