"""Programs that share their coefficients with another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems import _arguments as arguments
from mapgrad.problems import _features as features
from mapgrad.problems._features import FEATURES
from mapgrad.problems._identity import short, unknown_argument

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mapgrad.problems._program_data import ProgramData

_ROW_SIDES: Final = ("row_lower", "row_upper")
_RIGHT_SIDES: Final = ("b_ub", "b_eq")
_BOUNDS: Final = ("lower", "upper", "integrality")
_PRICES: Final = ("decision", "fixed", "shape")
_NAMES: Final = (*_ROW_SIDES, *_RIGHT_SIDES, *_BOUNDS, *_PRICES, *FEATURES)


def changed(program: ProgramData, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that these arguments of `IntegerProgram.replace` change, checked.

    Raises:
        ProblemError: an argument is malformed, or doesn't fit the program.
        TypeError: there is no such argument, or it holds coefficients.
    """
    for name in changes:
        if name not in _NAMES:
            raise _unknown(name)
    attributes: dict[str, Any] = {}
    if changes.keys() & {*_ROW_SIDES, *_RIGHT_SIDES}:
        attributes |= zip(_ROW_SIDES, _sides(program, changes), strict=True)
    if changes.keys() & set(_BOUNDS):
        lower, upper, integrality = (changes.get(name, getattr(program, name)) for name in _BOUNDS)
        if "integrality" in changes:
            integrality = attributes["integrality"] = arguments.integrality(integrality, program.num_vars)
        attributes["lower"], attributes["upper"] = arguments.box(lower, upper, integrality)
    if changes.keys() & set(_PRICES):
        attributes |= _prices(program, changes)
    if "semicontinuous" in changes:
        attributes["semicontinuous"] = features.semicontinuous(changes["semicontinuous"], program.num_vars)
    if "sos" in changes:
        attributes["sos"] = features.sos(changes["sos"], program.num_vars)
    if "indicators" in changes or (program.indicators and changes.keys() & set(_BOUNDS)):
        box = (attributes.get(name, getattr(program, name)) for name in ("integrality", "lower", "upper"))
        attributes["indicators"] = features.indicators(changes.get("indicators", program.indicators), *box)
    return attributes


def priced(program: ProgramData, theta: ArrayLike) -> dict[str, Any]:
    """Return the attributes of a program of all variables, with the costs that a row θ, of `shape`, gives them.

    Raises:
        ProblemError: θ has another shape, NaN or +inf.
    """
    row = np.asarray(theta, np.float64)
    if row.shape != program.shape or np.isnan(row).any() or (row == np.inf).any():
        raise ProblemError(
            f"theta must be one row of shape {program.shape}, of numbers or −inf, got shape {row.shape}: {short(row)}"
        )
    utilities = np.empty(program.num_vars)
    is_other = np.ones(program.num_vars, np.bool_)
    is_other[program.decision] = False
    utilities[is_other], utilities[program.decision] = program.fixed, row.ravel()
    is_open = utilities > -np.inf
    box = {name: np.where(is_open, getattr(program, name), 0) for name in ("lower", "upper")}
    costs = np.where(is_open, -utilities, 0.0)
    return box | {"semicontinuous": program.semicontinuous & is_open, "objective": costs, "offset": 0.0}


def _sides(program: ProgramData, changes: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = len(program.row_upper)
    given = [name for name in _RIGHT_SIDES if name in changes]
    if not given:
        lower, upper = (changes.get(name, getattr(program, name)) for name in _ROW_SIDES)
        return arguments.sides(lower, upper, count)
    first = program.num_inequalities
    if first is None or changes.keys() & set(_ROW_SIDES):
        reason = "rows of this program have two sides" if first is None else "sides came in both forms"
        raise ProblemError(f"{given[0]} can't be replaced, as {reason}: give row_lower and row_upper")
    low, high = program.row_lower.copy(), program.row_upper.copy()
    for name in given:
        part = slice(first) if name == "b_ub" else slice(first, count)
        high[part] = arguments.each(name, changes[name], len(high[part]), "rows")
        if name == "b_eq":
            low[part] = high[part]
    return arguments.sides(low, high, count)


def _prices(program: ProgramData, changes: dict[str, Any]) -> dict[str, Any]:
    decision, fixed, shape = program.decision, program.fixed, program.shape
    if "decision" in changes:
        decision = arguments.decision(changes["decision"], program.num_vars)
        utilities = np.zeros(program.num_vars)
        utilities[program.others] = fixed
        fixed, shape = np.delete(utilities, decision), None
    fixed = arguments.fixed(changes.get("fixed", fixed), program.num_vars - len(decision))
    return {
        "decision": decision,
        "fixed": fixed,
        "_shape": arguments.shape(changes.get("shape", shape), len(decision)),
    }


def _unknown(name: str) -> TypeError:
    if name in ("A_ub", "A_eq", "matrix"):
        return TypeError(f"replace keeps the coefficients: make a new IntegerProgram for another {name}")
    return unknown_argument("replace", name, _NAMES)
