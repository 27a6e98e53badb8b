"""Problems as values: made of their constructor's arguments, equal by these, and never changed."""

from __future__ import annotations

import inspect
import math
from abc import ABCMeta
from difflib import get_close_matches
from enum import Enum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np

from mapgrad.problems._arrays import array_bytes, frozen_array, is_array
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

T = TypeVar("T")

_SHORT: Final = 12  # numbers of an array that are shown in full
_MADE: Final = "_made"  # among the attributes of a value whose constructor has ended
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _arguments_of(cls: type) -> tuple[str, ...]:
    """Return the names of a constructor's arguments.

    Raises:
        TypeError: it has some without a name, or there is ``__new__`` in its place.
    """
    if cls.__new__ is not object.__new__:
        raise TypeError(f"{cls.__name__} must take its arguments in __init__, but defines __new__: write __init__")
    return tuple(parameter.name for parameter in _parameters_of(cls))


def _parameters_of(cls: type) -> tuple[inspect.Parameter, ...]:
    return () if cls.__init__ is object.__init__ else _parameters(cls.__qualname__, cls.__init__)


@lru_cache
def _parameters(name: str, constructor: Callable[..., None]) -> tuple[inspect.Parameter, ...]:
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind not in _NAMED:
            raise TypeError(
                f"{name}.__init__ must name each of its arguments, by which {name} objects are compared and pickled, "
                f"but takes {parameter}: write def __init__(self, first, second) and keep them as self.first and "
                "self.second"
            )
    return tuple(parameters)


class ValueType(ABCMeta):
    """The class of classes of values: requires that a constructor names its arguments, and freezes what it made."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **options: Any) -> None:
        super().__init__(name, bases, namespace, **options)
        _arguments_of(cls)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which `__call__` would hide."""
        return inspect.Signature(_parameters_of(cls))

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Make a value, check that it keeps its arguments, and freeze it."""
        names = _arguments_of(cls)
        for name in sorted(kwargs.keys() - set(names)):
            raise unknown_argument(cls.__name__, name, names)
        value: T = type.__call__(cls, *args, **kwargs)
        for name in names:
            try:
                kept = getattr(value, name)
            except AttributeError:
                raise TypeError(
                    f"{cls.__name__}.__init__ takes {name!r} and must keep it as an attribute of that name, by which "
                    f"{cls.__name__} objects are compared and pickled: write self.{name} = {name}"
                ) from None
            if not _is_value(kept):
                raise TypeError(
                    f"{cls.__name__} keeps {name!r} as {_described(kept)}, which isn't compared by content or may "
                    "change: keep numbers, strings, enumeration members, other problems, NumPy arrays, or tuples and "
                    "frozensets of these"
                )
        vars(value)[_MADE] = True
        return value


def _described(kept: Any) -> str:
    """Return a value's type, and that of the first member that keeps it from being a value."""
    if isinstance(kept, tuple | frozenset):
        for member in cast("Iterable[Any]", kept):
            if not _is_value(member):
                return f"{type(cast('Any', kept)).__name__} that holds {_described(member)}"
    return type(cast("Any", kept)).__name__


def unknown_argument(what: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error about an argument that something doesn't take, with those that it takes."""
    lower = {each.lower(): each for each in known}
    near = [lower[each] for each in get_close_matches(name.lower(), lower)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    own = f"it takes {', '.join(lower.values())}" if lower else "it takes none"
    return TypeError(f"{what} has no argument {name!r}: {own}{hint}")


class _Fields:
    """Reads a class's fields off its constructor."""

    def __get__(self, instance: object, owner: type) -> tuple[str, ...]:
        return _arguments_of(owner)


class Value(metaclass=ValueType):
    """An immutable object that is compared, hashed, pickled and shown by its constructor's arguments.

    ``__init__`` keeps each argument, checked and in one spelling, in an attribute of its name. An array that is set
    there becomes a private read-only copy, and a NumPy number a Python number.

    Attributes:
        fields: Names of the constructor's arguments.
    """

    fields = _Fields()

    def __setattr__(self, name: str, value: object) -> None:
        if _MADE in vars(self):
            raise AttributeError(f"{type(self).__name__} is immutable: make a new one instead of setting {name!r}")
        super().__setattr__(name, _frozen(value))

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} can't be deleted")

    @cached_property
    def digest(self) -> str:
        """A stable name of the content: equal for equal problems, in every process and on every machine."""
        package = type(self).__module__.partition(".")[0]  # not the module, which is free to move
        return digest_of(f"{package}.{type(self).__qualname__}", self, type(self).fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        return type(self) is type(other) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {name: getattr(self, name) for name in type(self).fields})

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={short(getattr(self, name))}" for name in type(self).fields)
        return f"{type(self).__name__}({arguments})"


def made(cls: type[T], attributes: dict[str, Any]) -> T:
    """Return a value of a class without its constructor, which would have set these attributes."""
    value = object.__new__(cls)
    vars(value).update({name: _frozen(attribute) for name, attribute in attributes.items()})
    vars(value)[_MADE] = True
    return value


def digest_of(title: str, value: Value, names: Iterable[str]) -> str:
    """Return a stable name of some attributes of a value: equal where title, names and contents are."""
    import hashlib

    hasher = hashlib.sha256(title.encode())
    for name in names:
        hasher.update(f"|{name}=".encode())
        hasher.update(_canonical_bytes(getattr(value, name)))
    return hasher.hexdigest()


def short(value: Any) -> str:
    """Return an argument's repr, or a description of an array that would be long."""
    if isinstance(value, SparseRows):
        return short(value.toarray()) if math.prod(value.shape) <= _SHORT else repr(value)
    if is_array(value):
        return repr(value.tolist()) if value.size <= _SHORT else f"<{'×'.join(map(str, value.shape))} array>"
    if isinstance(value, tuple):
        parts = [short(part) for part in cast("tuple[Any, ...]", value)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if isinstance(value, frozenset):  # whose own order isn't a function of its content
        members = sorted(map(repr, cast("frozenset[object]", value)))
        return f"frozenset({{{', '.join(members)}}})" if members else "frozenset()"
    return repr(value)


def _rebuild(cls: type[T], arguments: dict[str, Any]) -> T:
    return cls(**arguments)


def _frozen(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if is_array(value):
        is_frozen = not value.flags.writeable and value.base is None
        return value if is_frozen else frozen_array(value, value.dtype)
    if type(value) is tuple:
        return tuple(map(_frozen, cast("tuple[Any, ...]", value)))
    return cast("np.generic[Any]", value).item() if isinstance(value, np.generic) else value


def _is_value(value: Any) -> bool:
    if type(value) in _PLAIN:
        return True
    if is_array(value):
        return not value.flags.writeable and not value.dtype.hasobject
    if isinstance(value, tuple | frozenset):
        return all(map(_is_value, cast("Collection[Any]", value)))
    return isinstance(value, (Enum, SparseRows, Value))


def _canonical_bytes(value: Any) -> bytes:
    if is_array(value):
        return array_bytes(value)
    if isinstance(value, SparseRows | Value):
        return value.digest.encode()
    if isinstance(value, tuple | frozenset):
        parts = [_canonical_bytes(part) for part in cast("Collection[Any]", value)]
        ordered = parts if isinstance(value, tuple) else [b"set", *sorted(parts)]
        return b"".join(b"%d:%s" % (len(part), part) for part in ordered)
    return (f"{type(value).__qualname__}.{value.name}" if isinstance(value, Enum) else repr(value)).encode()
