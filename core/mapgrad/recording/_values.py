"""Problems and options as JSON and arrays, and back: nothing of a file is run, and only known classes are made."""

from __future__ import annotations

import math
import sys
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from mapgrad import problems
from mapgrad.errors import MapgradError
from mapgrad.problems import IntegerProgram, Problem, SparseRows
from mapgrad.problems._identity import Value

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

_PUBLIC: Final = problems.__name__
_ROWS: Final = ("matrix", "row_lower", "row_upper")
_REST: Final = ("lower", "upper", "integrality", "decision", "fixed", "shape", "semicontinuous", "sos", "indicators")


def encoded(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a value as JSON has it; its arrays are added to those given.

    Raises:
        TypeError: there is no place for such a value.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        return {"array": _kept(cast("NDArray[Any]", value), arrays)}
    if isinstance(value, tuple | list | frozenset):
        parts = [encoded(part, arrays) for part in cast("Collection[Any]", value)]
        kind = next(kind for kind in (tuple, list, frozenset) if isinstance(cast("object", value), kind))
        return {kind.__name__: sorted(parts, key=repr) if kind is frozenset else parts}
    if isinstance(value, dict):
        return {"dict": {str(name): encoded(part, arrays) for name, part in cast("dict[Any, Any]", value).items()}}
    if isinstance(value, SparseRows):
        parts = [_kept(array, arrays) for array in (value.data, value.indices, value.indptr)]
        return {"sparse": parts, "shape": list(value.shape)}
    if isinstance(value, Enum):
        return {"enum": path_of(type(value)), "name": value.name}
    if type(value) is IntegerProgram:
        return {"rows": {name: encoded(getattr(value, name), arrays) for name in (*_ROWS, *_REST)}}
    if isinstance(value, Value):
        arguments = {name: encoded(getattr(value, name), arrays) for name in type(value).fields}
        return {"class": path_of(type(value)), "arguments": arguments}
    raise TypeError(f"{type(value).__name__} objects have no place in a record")


def _kept(array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> str:
    name = f"a{len(arrays)}"
    arrays[name] = array
    return name


def path_of(kind: type) -> str:
    """Return where a class is found, as ``module:name``."""
    module = _PUBLIC if getattr(problems, kind.__qualname__, None) is kind else kind.__module__
    return f"{module}:{kind.__qualname__}"


def decoded(value: Any, arrays: Mapping[str, NDArray[Any]], modules: Collection[str]) -> Any:
    """Return the value of what `encoded` returned.

    Args:
        value: That.
        arrays: Its arrays.
        modules: Those of the user's in which classes may be looked for, beside mapgrad and its plugins.

    Raises:
        MapgradError: a class isn't in one of these.
        KeyError, TypeError, ValueError: it is damaged.
    """
    if not isinstance(value, dict):
        return value
    match cast("dict[str, Any]", value):
        case {"float": text}:
            return float(text)
        case {"array": name}:
            return arrays[name]
        case {"tuple": parts}:
            return tuple(decoded(part, arrays, modules) for part in parts)
        case {"list": parts}:
            return [decoded(part, arrays, modules) for part in parts]
        case {"frozenset": parts}:
            return frozenset(decoded(part, arrays, modules) for part in parts)
        case {"dict": parts}:
            return {name: decoded(part, arrays, modules) for name, part in parts.items()}
        case {"sparse": [data, indices, indptr], "shape": [height, width]}:
            return SparseRows(arrays[data], arrays[indices], arrays[indptr], (height, width))
        case {"enum": path, "name": name}:
            return _require(find(path, modules), Enum)[name]
        case {"rows": parts}:
            named = {name: decoded(part, arrays, modules) for name, part in parts.items()}
            return IntegerProgram.from_rows(**named)
        case {"class": path, "arguments": parts}:
            named = {name: decoded(part, arrays, modules) for name, part in parts.items()}
            return _require(find(path, modules), Value)(**named)
        case _:
            raise ValueError(f"{value!r} stands for no value")


def decoded_problem(value: Any, arrays: Mapping[str, NDArray[Any]], modules: Collection[str]) -> Problem | None:
    """Return a problem; None where none was known.

    Raises:
        MapgradError, KeyError, TypeError, ValueError: As for `decoded`; or it isn't a problem.
    """
    problem = decoded(value, arrays, modules)
    if problem is not None and not isinstance(problem, Problem):
        raise TypeError(f"{problem!r} isn't a problem")
    return problem


def _require(found: Any, base: type) -> Any:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{found!r} isn't a class derived from {base.__name__}")
    return found


def find(path: str, modules: Collection[str], *, is_data: bool = True) -> Any:
    """Return what ``module:name`` names.

    Args:
        path: It.
        modules: Those of the user's in which it may be; what a script defined is looked for in all of them.
        is_data: Whether it may lie in mapgrad and its plugins, too.

    Raises:
        MapgradError: it lies in another one, or isn't there.
    """
    module, _, name = path.partition(":")
    is_trusted = module in modules or (is_data and module.partition(".")[0] in _trusted())
    for each in [module] if is_trusted else modules:
        found: Any = imported(each)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    where, module = ("a script", "script") if module == "__main__" else (module, module)
    raise MapgradError(
        f"{name} of {where} is needed, and no module is imported unasked but mapgrad's: name the one that has it, as "
        f"modules=[{module!r}] or, on the command line, --import {module}"
    )


def imported(module: str) -> Any:
    """Return a module of the user's.

    Raises:
        MapgradError: it can't be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MapgradError(f"the module {module} can't be imported from {sys.path[0] or '.'}: {error}") from error


@cache
def _trusted() -> frozenset[str]:
    """Return the packages of mapgrad and of its plugins, which are imported for their solvers anyway."""
    return frozenset({"mapgrad", *(entry.module.partition(".")[0] for entry in entry_points(group="mapgrad"))})
