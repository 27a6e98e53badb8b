"""Batches whose rows have problems of their own."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mapgrad.errors import RowsError, ShapeError
from mapgrad.problems import Problem
from mapgrad.solvers import Solutions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching._solver import Solver

_SOLVERS_KEPT: Final = 64


def group_rows(theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]) -> list[tuple[Problem, list[int]]]:
    """Return the distinct problems, each with the numbers of its rows.

    Raises:
        TypeError: something in `problems` is none.
        ShapeError: there aren't as many problems as rows, or a row hasn't its problem's shape.
    """
    if isinstance(theta, Tensor) and theta.ndim == 0:
        raise ShapeError("with problems=, θ must be [B, *shape] or a list of B tensors, got a single number")
    if len(theta) != len(problems):
        raise ShapeError(f"expected one problem for each row, got {len(problems)} problems for {len(theta)} rows")
    groups: dict[Problem, list[int]] = {}
    for number, (row, problem) in enumerate(zip(theta, problems, strict=True)):
        if not isinstance(problem, Problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"problems[{number}] must be a problem, such as mapgrad.KSubset(10, 3), got {problem!r}")
        if tuple(row.shape) != problem.shape:
            raise ShapeError(f"row {number} of θ has shape {tuple(row.shape)}, but its problem is {problem!r}")
        groups.setdefault(problem, []).append(number)
    return list(groups.items())


class PerRow:
    """The solvers of the problems seen last, one each, with their native models.

    Args:
        make: Makes the solver of a problem.
    """

    def __init__(self, make: Callable[[Problem], Solver]) -> None:
        self._make = make
        self._solvers: OrderedDict[Problem, Solver] = OrderedDict()
        self._retired: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def stats(self) -> dict[str, float]:
        """Counts of all solvers, those that are kept no longer included."""
        with self._lock:
            counts = Counter(self._retired)
            for solver in self._solvers.values():
                counts.update(solver.stats)
        return dict(counts)

    def solver(self, problem: Problem) -> Solver:
        """Return the solver of a problem."""
        with self._lock:
            if problem in self._solvers:
                self._solvers.move_to_end(problem)
                return self._solvers[problem]
        made = self._make(problem)
        with self._lock:
            solver = self._solvers.setdefault(problem, made)
            if len(self._solvers) > _SOLVERS_KEPT:
                _, oldest = self._solvers.popitem(last=False)
                # a thread may be using it still: its native models go with its last reference
                self._retired.update(oldest.stats)
        return solver

    def solve(self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem]) -> Solutions:
        """Solve each row's own problem.

        Returns:
            Solutions with batch dimension [B]; z is a list where θ is one.

        Raises:
            RowsError: a row has no acceptable answer; the rows of other problems have been solved all the same.
        """
        started = time.perf_counter()
        groups = group_rows(theta, problems)
        z: list[Tensor] = [torch.full_like(row, torch.nan) for row in theta]
        device = theta.device if isinstance(theta, Tensor) else z[0].device if z else torch.device("cpu")
        status = torch.zeros(len(z), dtype=torch.int64, device=device)
        objective, bound = torch.full((2, len(z)), torch.nan, dtype=torch.float64, device=device)
        counts: Counter[str] = Counter()
        failures: list[tuple[list[int], RowsError]] = []
        for problem, rows in groups:
            try:
                found = self.solver(problem).solve(torch.stack([theta[row] for row in rows]))
            except RowsError as error:
                failures.append(([rows[row] for row in error.rows], error))
                if error.solutions is None:
                    continue
                found = error.solutions
            for row, answer in zip(rows, found.z, strict=True):
                z[row] = answer
            status[rows], objective[rows], bound[rows] = found.status, found.objective, found.bound
            counts.update(found.stats)
        states = (
            torch.stack(z) if isinstance(theta, Tensor) and z else theta.clone() if isinstance(theta, Tensor) else z
        )
        solutions = Solutions(states, status, objective, bound, time.perf_counter() - started, dict(counts))
        if failures:
            failed = sorted(row for rows, _ in failures for row in rows)
            error = failures[0][1]
            raise type(error)(
                f"rows {failed} of the whole batch failed: {error}", rows=failed, solutions=solutions
            ) from error
        return solutions

    def close(self) -> None:
        """Free all native models."""
        with self._lock:
            solvers = list(self._solvers.values())
        for solver in solvers:
            solver.close()
