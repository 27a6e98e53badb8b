"""Whether what a plugin returned is well formed: its mistakes are named before anybody meets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, TypeVar

from mapgrad.problems import Problem
from mapgrad.problems._features import FEATURES
from mapgrad.solvers._contract import BatchSolver, InstanceSolver, SolverSpec
from mapgrad.solvers._executor_specs import ExecutorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

_Spec = TypeVar("_Spec", SolverSpec, ExecutorSpec)
_Fields: TypeAlias = "dict[str, tuple[str, Callable[[Any], bool]]]"

SolverClass = type[InstanceSolver[Any, Any]] | type[BatchSolver[Any]]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_FACTORY: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_solver_class(value: object) -> TypeGuard[SolverClass]:
    """Tell whether a value is a class derived from InstanceSolver or BatchSolver."""
    return isinstance(value, type) and issubclass(value, InstanceSolver | BatchSolver)


def require_name(name: Any) -> None:
    """Refuse what can't be the name of a plugin, or of a solver within its plugin.

    Raises:
        TypeError: `name` isn't a str.
        ValueError: `name` is empty, or has characters that a name can't have.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, got {name!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't be a name: write letters, digits, '_' and '-', a letter or '_' first")


def require_specs(specs: Any) -> tuple[SolverSpec, ...]:
    """Return what a plugin's `mapgrad_solvers` returned, if it is well formed.

    Raises:
        TypeError: `specs` isn't a list or tuple of `SolverSpec`, or a field of one has a wrong type.
        ValueError: a solver's name can't be a name, or two solvers have the same one.
    """
    return _require(specs, SolverSpec, "solver", _FIELDS)


def require_executor_specs(specs: Any) -> tuple[ExecutorSpec, ...]:
    """Return what a plugin's `mapgrad_executors` returned, if it is well formed.

    Raises:
        TypeError: `specs` isn't a list or tuple of `ExecutorSpec`, or a field of one has a wrong type.
        ValueError: an executor's name can't be a name, or two executors have the same one.
    """
    return _require(specs, ExecutorSpec, "executor", _EXECUTOR_FIELDS)


def _require(specs: Any, kind: type[_Spec], noun: str, fields: _Fields) -> tuple[_Spec, ...]:
    if not isinstance(specs, list | tuple) or not all(isinstance(spec, kind) for spec in _values(specs)):
        raise TypeError(f"mapgrad_{noun}s() must return a list of {kind.__name__}, got {specs!r}")
    found: dict[str, _Spec] = {}
    for spec in _values(specs):
        require_name(spec.name)
        for field, (expected, is_fine) in fields.items():
            value = getattr(spec, field)
            if not is_fine(value):
                raise TypeError(f"{field} of {noun} {spec.name!r} must be {expected}, got {value!r}")
        if spec.name in found:
            raise ValueError(f"mapgrad_{noun}s() returned two {noun}s named {spec.name!r}")
        found[spec.name] = spec
    return tuple(found.values())


def _values(values: Any) -> tuple[Any, ...]:
    return tuple(values)


def _is_factory(value: Any) -> bool:
    return bool(_FACTORY.fullmatch(value)) if isinstance(value, str) else is_solver_class(value)


def _is_problem_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Problem)


def _is_optional_function(value: Any) -> bool:
    return value is None or callable(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, _values(value)))


_FIELDS: Final[_Fields] = {
    "factory": ('"module:Class" or a class derived from InstanceSolver or BatchSolver', _is_factory),
    "accepts": (
        "a tuple of problem classes, at least one",
        lambda value: isinstance(value, tuple) and value != () and all(map(_is_problem_class, _values(value))),
    ),
    "supports": ("None or a function of a problem", _is_optional_function),
    "requires": ("a tuple of module names", _are_texts),
    "install": ("a str", _is_text),
    "script": ("a str", _is_text),
    "cost": ("None or a function of a problem", _is_optional_function),
    "setup": ("None or a function of a problem", _is_optional_function),
    "native": (
        f"a tuple of some of {', '.join(map(repr, FEATURES))}",
        lambda value: isinstance(value, tuple) and set(_values(value)) <= set(FEATURES),
    ),
    "settings": (
        "a tuple of dictionaries of options",
        lambda value: isinstance(value, tuple) and all(isinstance(each, Mapping) for each in _values(value)),
    ),
}

_EXECUTOR_FIELDS: Final[_Fields] = {
    "factory": (
        '"module:name" or a function of a text',
        lambda value: bool(_FACTORY.fullmatch(value)) if isinstance(value, str) else callable(value),
    ),
    "takes": ("a tuple of names of classes", _are_texts),
    "requires": ("a tuple of module names", _are_texts),
    "install": ("a str", _is_text),
    "usage": ("a str", _is_text),
}
