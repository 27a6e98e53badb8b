"""Programs that fail, made smaller as long as they fail and exact arithmetic knows their optimum."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.testing._exact_program import dense_rows
from mapgrad.testing._known_programs import program_of, solved_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from mapgrad.testing._known_programs import KnownProgram

_SECONDS: Final = 10.0
_LIMIT: Final = 200
"""Linear programs that branching may take."""


@dataclass(frozen=True)
class _Parts:
    """A program's arrays and utilities."""

    matrix: NDArray[np.float64]
    sides: NDArray[np.float64]
    equal: NDArray[np.bool_]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]
    theta: NDArray[np.float64]


def shrunk(known: KnownProgram, fails: Callable[[KnownProgram], bool]) -> KnownProgram:
    """Return a small program that fails too: rows and columns dropped, numbers rounded, greedily.

    Args:
        known: The program.
        fails: Whether a program fails in the same way.

    Returns:
        A program of which exact arithmetic knows what is true; `known` itself where nothing could be left out.
    """
    program = known.program
    equal = np.isfinite(program.row_lower)
    arrays = (dense_rows(program), program.row_upper, equal, program.lower, program.upper, program.integrality)
    parts, deadline = _Parts(*arrays, known.theta), time.monotonic() + _SECONDS
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(parts):
            if time.monotonic() > deadline:
                return known
            found = _known(candidate)
            if found is not None and fails(found):
                known, parts, smaller = found, candidate, True
                break
    return known


def _known(parts: _Parts) -> KnownProgram | None:
    bounds = {"lower": parts.lower, "upper": parts.upper, "integrality": parts.integrality}
    try:
        program = program_of(parts.matrix, parts.sides, parts.equal, **bounds)
    except ProblemError:
        return None
    return solved_exactly(program, parts.theta, _LIMIT)


def _smaller(parts: _Parts) -> Iterator[_Parts]:
    for row in range(len(parts.matrix)):
        rows = {name: np.delete(getattr(parts, name), row, axis=0) for name in ("matrix", "sides", "equal")}
        yield replace(parts, **rows)
    width = len(parts.theta)
    for column in range(width if width > 1 else 0):
        columns: dict[str, Any] = {
            name: np.delete(getattr(parts, name), column) for name in ("lower", "upper", "integrality", "theta")
        }
        yield replace(parts, matrix=np.delete(parts.matrix, column, axis=1), **columns)
    for name in ("theta", "matrix", "sides", "lower", "upper"):
        array = getattr(parts, name)
        for place in np.argwhere(np.isfinite(array) & (array != 0)):
            number = float(array[tuple(place)])
            for simple in _simpler(number):
                changed = array.copy()
                changed[tuple(place)] = simple
                yield replace(parts, **{name: changed})


def _simpler(number: float) -> Iterator[float]:
    """Yield numbers with fewer digits than this one."""
    digits = len(repr(abs(number)).replace(".", "").strip("0"))
    if digits > 1 or abs(number) != 1:
        yield 0.0
    for kept in range(1, min(digits, 4)):
        yield float(f"{number:.{kept - 1}e}")
