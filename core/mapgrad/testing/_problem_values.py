"""The laws on problems as values: told by their fields, and never changed."""

from __future__ import annotations

import copy
import enum
import inspect
import pickle
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mapgrad.errors import MapgradError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram, Problem
from mapgrad.problems._arrays import is_array
from mapgrad.testing._points import near_misses, show
from mapgrad.testing._problem_law import REPR_LIMIT, law, raises, states_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mapgrad.problems import SparseRows
    from mapgrad.testing._problem_law import Require


@law
def check_problem_identity(problem: Problem, require: Require) -> None:
    """P = Q, of one hash, digest and repr, for each Q made of P's fields: by the constructor, by pickle, by copying."""
    cls = type(problem)
    for way, make in _ways(problem).items():
        try:
            twin = make()
        except Exception as error:  # noqa: BLE001 (whatever it is, it breaks this law)
            return require(False, f"{way} can't make it again of its fields: {type(error).__name__}: {error}")
        fine = type(twin) is cls and twin == problem and problem == twin
        require(fine, f"made of the same fields by {way}, {twin!r} isn't equal")
        for what, of in {"hash": hash, "digest": _digest, "repr": repr}.items():
            require(of(twin) == of(problem), f"made of the same fields by {way}, {twin!r} has another {what}")
    require(problem != object(), "it is equal to an object that isn't a problem")
    text = repr(problem)
    fine = cls.__name__ in text and "\n" not in text and len(text) <= REPR_LIMIT
    return require(
        fine,
        f"repr must be one line with the class's name, of at most {REPR_LIMIT} characters, got {text[:REPR_LIMIT]}",
    )


@law
def check_problem_immutable(problem: Problem, require: Require) -> None:
    """No attribute can be set or deleted, and nothing that is a public attribute can be changed: arrays are read-only.

    What a property makes anew for each who asks may be changed.
    """
    cls = type(problem)
    for name in filter(_is_public, dir(cls)):
        if isinstance(inspect.getattr_static(cls, name), property | cached_property) or name == "box":
            try:
                is_shared = _shares(getattr(problem, name), getattr(problem, name))
            except MapgradError:
                continue
            require(not is_shared, f"what {name!r} holds can be changed: freeze it, or keep a tuple")
    for name, value in {**vars(problem), "anything": 0}.items():  # what was computed once and is kept included
        require(raises(AttributeError, setattr, problem, name, value), f"the attribute {name!r} can be set")
        require(raises(AttributeError, delattr, problem, name), f"the attribute {name!r} can be deleted")
        fine = not _is_public(name) or not _shares(value, value)
        require(fine, f"what {name!r} holds can be changed: freeze it, or keep a tuple")


@law
def check_problem_fields(problem: Problem, require: Require) -> None:
    """What P is and does is told by its fields: made of the same, Q is and does the same; of another one, Q ≠ P.

    Each field is changed a little, as far as the constructor takes it.
    """
    told = _behaviour(problem)
    for way in (_maker(problem)[0], "pickle"):
        twin = _behaviour(_ways(problem)[way]())
        for what, value in told.items():
            message = (
                f"made of the same fields by {way}, it has another {what}: {_show(twin[what])}, not {_show(value)}"
            )
            require(_are_equal(twin[what], value), message)
    for name, other in _siblings(problem):
        value, kept = getattr(problem, name), getattr(other, name)
        told_apart = f"from one with {name}={_show(kept)} in place of {_show(value)}"
        require(other != problem and problem != other, f"it can't be told {told_apart}: they are equal")
        require(other.digest != problem.digest, f"its digest doesn't tell it {told_apart}")
        if isinstance(value, bool | int | float | str | enum.Enum):
            require(repr(other) != repr(problem), f"its repr doesn't tell it {told_apart}")


def _ways(problem: Problem) -> dict[str, Callable[[], Problem]]:
    way, make, names = _maker(problem)
    return {
        way: lambda: make(**{name: getattr(problem, name) for name in names}),
        "pickle": lambda: pickle.loads(pickle.dumps(problem)),
        "copy.copy": lambda: copy.copy(problem),
        "copy.deepcopy": lambda: copy.deepcopy(problem),
    }


def _maker(problem: Problem) -> tuple[str, Callable[..., Problem], tuple[str, ...]]:
    """Return what makes a problem of its fields, in words and as a function of them by name, and their names."""
    cls = type(problem)
    if cls is not IntegerProgram:
        return "the constructor", cls, cls.fields
    names = [name for name in cls.fields if name not in ("A_ub", "b_ub", "A_eq", "b_eq")]
    return "from_rows and replace", _program, ("matrix", "row_lower", "row_upper", *names)


def _program(matrix: SparseRows, row_lower: Any, row_upper: Any, **others: Any) -> IntegerProgram:
    """Return a program of rows that may have two sides, one or none."""
    return IntegerProgram.from_rows(matrix, 0, 0, **others).replace(row_lower=row_lower, row_upper=row_upper)


def _digest(problem: Problem) -> str:
    return problem.digest


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _behaviour(problem: Problem) -> dict[str, Any]:
    """Return what a problem says of itself."""
    told: dict[str, Any] = {
        name: getattr(problem, name) for name in ("shape", "domain", "kappa", "constant_sums", "box", "largest")
    }
    try:
        told["program"] = problem.to_ilp().digest
    except UnsupportedProblemError:
        told["program"] = None
    try:
        states = told["states"] = states_of(problem)
    except MapgradError:
        states = np.zeros((1, *problem.shape))
    if len(states):
        told["answer of contains"] = problem.contains_rows(near_misses(problem, states))
    return told


def _siblings(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Yield problems that keep another value of one field, with that field's name."""
    _, make, names = _maker(problem)
    fields = {name: getattr(problem, name) for name in names}
    for name, value in fields.items():
        for changed in _others(value):
            try:
                other = make(**{**fields, name: changed})
            except Exception:  # noqa: BLE001 (it needn't take any other value)
                continue
            if not _are_equal(getattr(other, name), value):
                yield name, other


def _others(value: Any) -> Iterator[Any]:
    """Yield values of a field's kind that differ a little from it."""
    if is_array(value) and value.size:
        yield np.flip(value)
        for place in (0, value.size - 1):
            for other in _others(value.flat[place].item()):
                changed = value.copy()
                changed.flat[place] = other
                yield changed
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value * 2)
    elif isinstance(value, str):
        yield value + "_"
    elif isinstance(value, enum.Enum):
        yield from (member for member in type(value) if member is not value)
    elif isinstance(value, Problem):
        yield from (other for _, other in _siblings(value))
    elif isinstance(value, frozenset) and value:
        members = cast("frozenset[Any]", value)
        yield members - {min(members, key=repr)}
    elif isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)
        yield parts[::-1]
        yield parts[:-1]
        for first in parts[:1]:
            yield from ((other, *parts[1:]) for other in _others(first))


def _are_equal(first: Any, second: Any) -> bool:
    if is_array(first) and is_array(second):
        return np.array_equal(first, second) or first.tobytes() == second.tobytes()  # NaN too
    if isinstance(first, tuple) and isinstance(second, tuple):
        pair = cast("tuple[Any, ...]", first), cast("tuple[Any, ...]", second)
        return len(pair[0]) == len(pair[1]) and all(map(_are_equal, *pair))
    return bool(first == second) or (first != first and second != second)  # NaN too


def _show(value: Any) -> str:
    return show(value[None]) if is_array(value) else repr(value)


def _shares(first: Any, second: Any) -> bool:
    """Tell whether two values, asked for one after the other, have something in common that can be written to."""
    if is_array(first) and is_array(second):
        return first.flags.writeable and np.may_share_memory(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return any(map(_shares, cast("tuple[Any, ...]", first), cast("tuple[Any, ...]", second)))
    return first is second and isinstance(first, list | dict | set | bytearray | torch.Tensor)
