"""From the variables of somebody's model to what `IntegerProgram` calls `decision` and `shape`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapgrad.errors import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


def columns_of(variables: Any, column_of: Callable[[object], int]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Return the columns of nested variables, and the shape of the nesting: for plugins that take others' models.

    Args:
        variables: Lists, tuples, iterators, arrays of objects, pandas series, or dictionaries, whose values count in
            their order; in the end, variables.
        column_of: Returns a variable's column; raises TypeError for what is no variable, ProblemError for one of
            another model.

    Returns:
        Columns, int64 [d] in flattened order, and the shape, whose product is d.

    Raises:
        ProblemError: there is none, one is there twice, the nesting is uneven, or `column_of` raises it.
        TypeError: something is no variable.
    """
    found: list[tuple[int, object]] = []
    shape = _flatten(variables, column_of, found)
    columns = [column for column, _ in found]
    if shape == ():
        raise ProblemError(f"variables must be a list, an array or a dictionary of variables, got {variables!r}")
    if not columns:
        raise ProblemError("variables must hold at least one variable, got none: θ prices them")
    column, count = Counter(columns).most_common(1)[0]
    if count > 1:
        twice = dict(found)[column]
        raise ProblemError(
            f"variables must be distinct, but variable {column} of the model is there {count} times: {twice}"
        )
    return np.array(columns, dtype=np.int64), shape


def _flatten(value: Any, column_of: Callable[[object], int], found: list[tuple[int, object]]) -> tuple[int, ...]:
    children = _children(value)
    if children is None:
        found.append((column_of(value), value))
        return ()
    shapes = {_flatten(child, column_of, found) for child in children}
    if len(shapes) > 1:
        shown = " and ".join(str(shape) for shape in sorted(shapes))
        raise ProblemError(f"variables must be nested evenly, got parts of shapes {shown} side by side")
    return (len(children), *(shapes.pop() if shapes else ()))


def _children(value: Any) -> list[Any] | None:
    if isinstance(value, Mapping):
        value = cast("Mapping[Any, Any]", value).values()
    elif hasattr(value, "tolist"):  # numpy and pandas
        value = value.tolist()
    return list(cast("Iterable[Any]", value)) if isinstance(value, list | tuple | ValuesView | Iterator) else None
