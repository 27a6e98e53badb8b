"""Whether what a plugin returned is well formed: its mistakes are named before anybody meets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from mapgrad.problems import Problem
from mapgrad.problems._features import FEATURES
from mapgrad.solvers._contract import BatchSolver, InstanceSolver, SolverSpec

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Return what a plugin's hook returned, if it is well formed.

    Raises:
        TypeError: `specs` isn't a list or tuple of `SolverSpec`, or a field of one has a wrong type.
        ValueError: a solver's name can't be a name, or two solvers have the same one.
    """
    if not isinstance(specs, list | tuple) or not all(isinstance(spec, SolverSpec) for spec in _values(specs)):
        raise TypeError(f"mapgrad_solvers() must return a list of SolverSpec, got {specs!r}")
    found: dict[str, SolverSpec] = {}
    for spec in _values(specs):
        require_name(spec.name)
        for field, (expected, is_fine) in _FIELDS.items():
            value = getattr(spec, field)
            if not is_fine(value):
                raise TypeError(f"{field} of solver {spec.name!r} must be {expected}, got {value!r}")
        if spec.name in found:
            raise ValueError(f"mapgrad_solvers() returned two solvers named {spec.name!r}")
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


_FIELDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "factory": ('"module:Class" or a class derived from InstanceSolver or BatchSolver', _is_factory),
    "accepts": (
        "a tuple of problem classes, at least one",
        lambda value: isinstance(value, tuple) and value != () and all(map(_is_problem_class, _values(value))),
    ),
    "supports": ("None or a function of a problem", _is_optional_function),
    "requires": (
        "a tuple of module names",
        lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in _values(value)),
    ),
    "install": ("a str", lambda value: isinstance(value, str)),
    "script": ("a str", lambda value: isinstance(value, str)),
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
