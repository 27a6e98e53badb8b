"""The optimal states of a data set on disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad import disk_cache
from mapgrad.batching import compute_dtype
from mapgrad.solutions import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.solutions import Solutions

_KIND: Final = "datasets"

_VERSION: Final = 1
"""Of the file's contents, and of what problems mean."""

_SLOW: Final = 0.1
"""Seconds from which on answers are kept, where loading them takes some milliseconds."""


def key_of(solver: Solver, theta: Tensor) -> str | None:
    """Return the name under which the answers to rows are kept.

    Args:
        solver: Who is asked.
        theta: [N, *shape], utilities.

    Returns:
        None where nothing is kept: for heuristics, and for solvers and problems that may change without another name,
        as classes do that a user is working on.
    """
    problem = solver.problem
    if problem is None or solver.spec is None or not solver.traits.exact:
        return None
    if not type(problem).__module__.startswith("mapgrad."):
        return None
    label = solver.at_work().factory.label
    said = repr((_VERSION, label, problem.digest, str(theta.dtype), tuple(theta.shape)))
    digest = hashlib.sha256(said.encode())
    digest.update(theta.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(key: str, theta: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the states [N, *shape] and objectives [N] that were kept under a key, of θ's dtype and float64."""

    def read(file: Mapping[str, NDArray[Any]]) -> tuple[Tensor, Tensor]:
        states, objective = torch.as_tensor(file["states"]), torch.as_tensor(file["objective"])
        if states.dtype != compute_dtype(theta.dtype) or objective.dtype != torch.float64:
            raise ValueError(f"its arrays are {states.dtype} and {objective.dtype}")
        if states.shape != theta.shape or objective.shape != theta.shape[:1]:
            raise ValueError(f"its arrays have shapes {tuple(states.shape)} and {tuple(objective.shape)}")
        if not (states.isfinite().all() and objective.isfinite().all()):
            raise ValueError("its arrays have NaN or infinite entries")
        return states.to(theta), objective.to(theta.device)

    return disk_cache.load(_KIND, key, read)


def save(key: str, solutions: Solutions) -> None:
    """Keep answers under a key, if all are proved optimal and took long."""
    states: Tensor = solutions.z
    if solutions.seconds > _SLOW and bool((solutions.status == Status.OPTIMAL).all()):
        arrays = (states.to(compute_dtype(states.dtype)), solutions.objective)
        named = zip(("states", "objective"), arrays, strict=True)
        disk_cache.save(_KIND, key, {name: np.asarray(array.cpu()) for name, array in named})
