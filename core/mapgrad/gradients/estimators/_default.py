"""Which estimator a layer has where its user names none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mapgrad.gradients.estimators._pooled import Pooled
from mapgrad.gradients.estimators._two_sided import TwoSided

if TYPE_CHECKING:
    from mapgrad.gradients.estimators._estimator import Estimator
    from mapgrad.problems import Problem

_LARGE: Final = 512
"""Entries of a row above which asking a pool takes longer, half a millisecond or more, than many a solver."""


def default_for(problem: Problem | None) -> Estimator:
    """Return `Pooled` for a problem of up to 512 entries, else `TwoSided`.

    Networks learn with the fewest solves by the first (``mapgrad bench training``); a function's problem isn't known,
    and a pool of large states is slow beside a quick solver.
    """
    if problem is None or math.prod(problem.shape) > _LARGE:
        return TwoSided()
    return Pooled(problem)
