"""The options that a solver's constructor names, and the error about others."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

COMMON: Final = ("workers", "on_error", "time_limit", "deadline", "domain", "reuse", "merge")
"""What `get_solver` takes for every solver."""


def options_of(solver: type) -> tuple[list[str], bool]:
    """Return the options that a solver class's constructor names, and whether it takes others too."""
    try:
        parameters = [*inspect.signature(solver).parameters.values()][1:]
    except ValueError:  # compiled code may not say
        return [], True
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return named, any(each.kind is each.VAR_KEYWORD for each in parameters)


def unknown_options(
    label: str, unknown: Iterable[str], known: Collection[str], common: Collection[str] = ()
) -> TypeError:
    """Return the error about options that a solver doesn't take.

    Args:
        label: The solver, as messages name it.
        unknown: The options.
        known: Those that it takes.
        common: Those that all solvers take where this one was asked for.
    """
    names = sorted(unknown)
    near = sorted({each for name in names for each in near_to(name, [*known, *common])})
    hint = f"; {did_you_mean(near)}" if near else ""
    if {"warm_start", "start", "warmstart"} & {*names} and "reuse" in common:
        hint += "; reuse=True lets a solver begin where earlier rows ended"
    if "minimize" in names:
        hint += "; minimize belongs to MAPLayer: negate θ here"
    own = f"its options are {', '.join(known)}" if known else "it has no options of its own"
    shared = f" (every solver has {', '.join(common)})" if common else ""
    return TypeError(f"{label} has no option {', '.join(map(repr, names))}: {own}{shared}{hint}")


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question whether one of these names was meant."""
    return f"did you mean {' or '.join(map(repr, names))}?"


def near_to(name: str, known: Iterable[str]) -> list[str]:
    """Return known names that look like another, the likeliest first; upper and lower case are the same."""
    lower = {each.lower(): each for each in sorted(known)}
    return [lower[each] for each in difflib.get_close_matches(name.lower(), lower)]
