"""What a solver looks at of what it is asked beside the utilities."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mapgrad.solvers import Block, InstanceSolver, Request

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", Request, Block)


def overrides(solver: InstanceSolver[Any, Any], method: str) -> bool:
    """Return whether a solver has a method of its own in place of its base class's."""
    return getattr(type(solver), method) is not getattr(InstanceSolver, method)


def attributes_read(
    solver: InstanceSolver[Any, Any], state: Any, rows: NDArray[np.float64], *, by: str | None = None
) -> set[str]:
    """Return which attributes of a request or a block a solver reads while it solves rows.

    The rows come with an ample limit, with reuse, and from the second on with the answer before as their start.

    Args:
        solver: The plugin's object.
        state: A native model of it.
        rows: [N, n], as the solver gets them.
        by: ``"solve"`` or ``"solve_rows"``; by default, the one that the solver overrides.
    """
    read: set[str] = set()
    start: NDArray[np.float64] | None = None
    for row in rows[:2]:
        around = np.repeat(row[None], 3, axis=0)
        block = Block(around, start=start, seconds=600.0, reuse=True, exact=solver.traits.exact).part(1, 2)
        if (by or ("solve_rows" if overrides(solver, "solve_rows") else "solve")) == "solve_rows":
            solver.solve_rows(state, _watched(block, read))
        else:
            shape = solver.problem.shape
            request = Request(None if block.start is None else block.start.reshape(shape), 600.0, reuse=True)
            block.put(0, solver.solve(state, row.reshape(shape), _watched(request, read)), shape)
        start = np.repeat(block.z, 3, axis=0)
    return read


def _watched(asked: T, read: set[str]) -> T:
    """Return a shallow copy, with the same arrays, that notes which attributes are read."""
    kind = type(asked)

    def note(watched: object, name: str) -> Any:
        read.add(name)
        return object.__getattribute__(watched, name)

    def reduce(_watched: object) -> Any:
        return copy.copy, (asked,)  # for a solver that sends it to a process

    watching = type(kind.__name__, (kind,), {"__slots__": (), "__getattribute__": note, "__reduce__": reduce})
    watched = watching.__new__(watching)
    for name in kind.__slots__:
        object.__setattr__(watched, name, getattr(asked, name))
    return watched
