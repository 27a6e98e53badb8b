"""Rows of a batch by their problems: equal ones together, and programs that are solved in one block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._theta import is_representable, require_float
from mapgrad.errors import PluginError, ShapeError
from mapgrad.problems import IntegerProgram, Problem
from mapgrad.solvers import advice_on

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mapgrad.solvers import InstanceSolver

_NARROW = (torch.float16, torch.bfloat16, torch.float32)


def model_key(problem: Problem) -> Hashable:
    """Return a key that is equal for problems which one native model can serve, if its bounds and sides may change."""
    return problem.structure if _has_rows_alone(problem) else problem


def does_serve(solver: InstanceSolver[Any, Any], program: Problem, label: str) -> bool:
    """Return what a solver's `serves` says of a program.

    Raises:
        PluginError: it raises, or says neither yes nor no.
    """
    assert isinstance(program, IntegerProgram)
    try:
        answer: Any = solver.serves(program)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"serves() of {label} raised {type(error).__name__}: {error}") from error
    if not isinstance(answer, bool | np.bool_):
        raise PluginError(f"serves() of {label} must return True or False, but returned {answer!r}")
    return answer is True or answer == np.True_


@lru_cache(maxsize=1024)
def family_of(problem: Problem) -> Hashable:
    """Return a key that is equal for programs whose rows may share a block: the problem itself for all others.

    Such programs differ in bounds and sides alone, and in nothing that θ, noise or forbidden entries depend on.
    """
    if not _has_rows_alone(problem):
        return problem
    return (
        problem.structure,
        problem.fixed.tobytes(),
        problem.kappa,
        np.sign(problem.box[0]).tobytes(),
        problem.unbounded_integers.tobytes(),
        tuple(is_representable(problem, dtype) for dtype in _NARROW),
    )


def _has_rows_alone(problem: Problem) -> TypeGuard[IntegerProgram]:
    """Tell whether a problem is a program without features, for which bounds may become coefficients."""
    return isinstance(problem, IntegerProgram) and not problem.features


def group_rows(theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]) -> list[list[tuple[Problem, list[int]]]]:
    """Return the distinct problems, each with the numbers of its rows, those of a family together.

    Raises:
        TypeError: something in `problems` isn't a problem.
        ShapeError: there aren't as many problems as rows, or a row hasn't its problem's shape.
    """
    if not isinstance(problems, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        hint = ": where it is that of all rows, give it to get_solver in place of problems="
        raise TypeError(
            f"problems must be a list of problems, one for each row, got {problems!r}"
            f"{hint if isinstance(problems, Problem) else ''}"
        )
    if not isinstance(theta, Tensor | Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise TypeError(f"θ must be a tensor or a list of tensors, got {type(theta).__name__}")
    if isinstance(theta, Tensor) and theta.ndim == 0:
        raise ShapeError("with problems=, θ must be [B, *shape] or a list of B tensors, got a single number")
    if len(theta) != len(problems):
        raise ShapeError(f"expected one problem for each row, got {len(problems)} problems for {len(theta)} rows")
    groups: dict[Problem, list[int]] = {}
    for number, (row, problem) in enumerate(zip(theta, problems, strict=True)):
        if not isinstance(problem, Problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(
                f"problems[{number}] must be a problem, such as mapgrad.KSubset(10, 3), "
                f"got {problem!r}{advice_on(problem)}"
            )
        if tuple(require_float(row).shape) != problem.shape:
            raise ShapeError(f"row {number} of θ has shape {tuple(row.shape)}, but its problem is {problem!r}")
        groups.setdefault(problem, []).append(number)
    families: dict[Hashable, list[tuple[Problem, list[int]]]] = {}
    for problem, rows in groups.items():
        families.setdefault(family_of(problem), []).append((problem, rows))
    return list(families.values())
