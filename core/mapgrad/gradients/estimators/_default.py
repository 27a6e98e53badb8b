"""Which estimator a layer has where its user names none, and which it can't have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mapgrad.batching import name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.gradients.estimators._pooled import Pooled
from mapgrad.gradients.estimators._two_sided import TwoSided

if TYPE_CHECKING:
    from mapgrad.gradients.estimators._estimator import Estimator
    from mapgrad.problems import Problem

_LARGE: Final = 512
"""Entries of a row above which asking a pool takes longer, half a millisecond or more, than many a solver."""


def default_for(problem: Problem | None) -> Estimator:
    """Return `Pooled` for a problem of up to 512 entries, else `TwoSided`.

    Networks learn best by the first (``mapgrad bench training``); a function's problem isn't known, and a pool of large
    states is slow beside a quick solver.
    """
    if problem is None or math.prod(problem.shape) > _LARGE:
        return TwoSided()
    return Pooled(problem)


def require_same_problem(estimator: Estimator, problem: Problem | None) -> None:
    """Refuse an estimator for one problem in a layer that solves another.

    Raises:
        UnsupportedProblemError: it is so.
    """
    own: Problem | None = getattr(estimator, "problem", None)
    if own is not None and problem is not None and own != problem:
        raise UnsupportedProblemError(
            f"this {type(estimator).__name__} is for {name_problem(own)}, but the layer solves "
            f"{name_problem(problem)}: take {type(estimator).__name__}(solver.problem)"
        )
