"""Rows that a solver fails, for other solvers, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mapgrad.batching._clock import Clock
from mapgrad.batching._hand_over import write_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions


class _Work(Protocol):
    """A solver at work."""

    def try_to_solve(self, rows: Tensor, *, priced: bool, clock: Clock | None) -> tuple[Solutions, list[int]]: ...
    def of_siblings(self, problems: Sequence[Problem]) -> _Work: ...


class _Works(Protocol):
    """The solvers at work on the problems of one solver."""

    def serving(self, problem: Problem, own: None, rows: float) -> _Work: ...
    def close(self) -> None: ...


class Fallbacks:
    """The solvers that get the rows which the ones before failed.

    Args:
        names: Theirs.
        chain: For each its works.
    """

    def __init__(self, names: Sequence[str], chain: Sequence[_Works]) -> None:
        self.names = names
        self._chain = chain

    def answer(
        self,
        solutions: Solutions,
        failed: list[int],
        rows: Tensor,
        problems: Sequence[Problem | None],
        deadline: float | None,
    ) -> list[int]:
        """Have rows solved that failed, and return the numbers of those that all solvers fail.

        Args:
            solutions: The batch's answers, z [N, *shape]; gets those that are found, each with its own status.
            failed: The rows' numbers.
            rows: [N, *shape], all rows as they were solved.
            problems: What is solved: one for all rows, or N.
            deadline: Seconds that each of the solvers has, or None.
        """
        solutions.z, solutions.status = solutions.z.clone(), solutions.status.clone()  # the solver may keep its own
        for works in self._chain:
            clock, left = None if deadline is None else Clock(deadline), list[int]()
            groups: dict[Problem, list[int]] = {}
            for row in failed:
                problem = problems[row % len(problems)]
                assert problem is not None  # where it isn't known, there are no fallbacks
                groups.setdefault(problem, []).append(row)
            for problem, part in groups.items():
                work = works.serving(problem, None, len(part)).of_siblings([problem])
                found, bad = work.try_to_solve(rows[part], priced=True, clock=clock)
                good = sorted(set(range(len(part))).difference(bad))
                write_answers(solutions, [part[place] for place in good], found, good)
                left += [part[place] for place in bad]
            failed = sorted(left)
            if not failed:
                break
        return failed

    def close(self) -> None:
        """Free the native models."""
        for works in self._chain:
            works.close()
