"""A recorded row, solved once more."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.batching import Solver, get_solver
from mapgrad.errors import MapgradError, RowsError, UnknownSolverError
from mapgrad.recording import RecordedRow, find, imported, read_row
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers import register, require_solver, unregister
from mapgrad.workers import text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Generator
    from os import PathLike

    from numpy.typing import NDArray

    from mapgrad.solvers import SolverLike

_CLOSE: Final = 1e-9
"""Objectives are equal to that part of them, or of the largest |θ|."""


@dataclass(frozen=True)
class Replay:
    """What became of a recorded row when it was solved once more.

    Attributes:
        row: The row as it was recorded, with what became of it then.
        solver: The name of the solver that solved it now.
        status: How it ended now.
        cause: What was raised now; empty if nothing was.
        objective: As `RecordedRow.objective`.
        z: The state now, [*shape]; None if there is none.
        seconds: Wall-clock time.
    """

    row: RecordedRow
    solver: str
    status: Status
    cause: str
    objective: float | None
    z: NDArray[Any] | None
    seconds: float

    @property
    def is_same(self) -> bool:
        """Whether the same came: status and, where that says that there is an answer, objective."""
        if self.status != self.row.status:
            return False
        return self.status not in (Status.OPTIMAL, Status.FEASIBLE) or self.has_same_objective

    @property
    def has_same_objective(self) -> bool:
        """Whether objectives are equal but for rounding, or missing on both sides."""
        then, now = self.row.objective, self.objective
        if then is None or now is None:
            return then is now
        finite = self.row.theta[np.isfinite(self.row.theta)]
        return math.isclose(then, now, rel_tol=_CLOSE, abs_tol=_CLOSE * float(np.abs(finite).max(initial=0.0)))

    @property
    def has_same_state(self) -> bool:
        """Whether the states are equal but for rounding, or missing on both sides; among equal optima they needn't."""
        then, now = self.row.z, self.z
        return then is now if then is None or now is None else bool(np.allclose(then, now, rtol=_CLOSE, atol=_CLOSE))


def replay(
    path: str | PathLike[str], solver: SolverLike | None = None, *, modules: Collection[str] = (), **settings: Any
) -> Replay:
    """Solve a row once more that `record` wrote, alone and under the same limits, and compare what comes.

    A row of which a process died is given to a process again.

    Args:
        path: One of the row's files: .json or .npz.
        solver: As for `get_solver`; None for the one that had it, with the same options.
        modules: Names of modules of yours in which its problem's class, or its solver, is looked for: a file alone has
            no module imported but those of mapgrad and its plugins. Where no installed plugin has the solver's name,
            the first of them with a `mapgrad_solvers` is registered as its plugin, for this call.
        settings: Of `get_solver`, in place of the recorded ones: ``time_limit=60.0``, say; or options of the solver.

    Returns:
        Both results.

    Raises:
        FileNotFoundError: There is no such file.
        MapgradError: It isn't such a row, or needs a module that isn't named; or as for `get_solver`.

    Example:
        >>> import mapgrad
        >>> mapgrad.replay("faults/highs-infeasible-0123456789abcdef.json", "scipy.milp").is_same  # doctest: +SKIP
        True
    """
    row = read_row(path, modules)
    died = "ChildProcessError" in row.cause or "processes" in str(row.workers)
    how: dict[str, Any] = {"time_limit": row.time_limit, "deadline": row.deadline, "on_error": "raise"}
    how |= {"workers": "processes:1"} if died else {}
    how |= {} if solver is not None else row.options
    given = _solver_of(row, modules) if solver is None else solver
    with _registered(given, modules), _made(given, row, how | settings) as made:
        theta = torch.from_numpy(row.theta)[None]  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        try:
            found = made.solve(theta)
        except RowsError as error:
            if error.solutions is None:
                raise
            found = error.solutions
        return Replay(row, made.name, *_answer(found), found.seconds)


@contextmanager
def _registered(solver: SolverLike, modules: Collection[str]) -> Generator[None]:
    """Register the plugin among some modules, where a solver is named that no plugin has."""
    own = [imported(module) for module in modules]
    name = ""
    try:
        if isinstance(solver, str):
            require_solver(solver, {})
    except UnknownSolverError as error:
        plugin = next((module for module in own if hasattr(module, "mapgrad_solvers")), None)
        if plugin is None:
            raise UnknownSolverError(
                f"{error}; name the module that is its plugin, as modules=[…] or, on the command line, --import MODULE"
            ) from None
        name = str(solver).partition(".")[0]
        register(plugin, name)
    try:
        yield
    finally:
        if name:
            unregister(name)


def _made(solver: SolverLike, row: RecordedRow, settings: dict[str, Any]) -> Solver:
    if row.problem is not None:
        return get_solver(solver, row.problem, **settings)
    if isinstance(solver, str | type):
        raise MapgradError(f"what {row.label} solved isn't known, so that only a function can be asked, got {solver!r}")
    function: Any = solver
    return Solver.of_function(function).under(deadline=settings["deadline"])


def _solver_of(row: RecordedRow, modules: Collection[str]) -> SolverLike:
    """Return what solved a row: its name, or the class, object or function that has a path."""
    if ":" not in row.solver:
        return row.solver
    try:
        return find(row.solver, modules, is_data=False)
    except MapgradError as error:
        raise MapgradError(
            f"{row.label} is no plugin's solver; name another one to replay with, or: {error}"
        ) from error


def _answer(found: Solutions) -> tuple[Status, str, float | None, NDArray[Any] | None]:
    z: NDArray[Any] = found.z[0].numpy()
    is_there = bool(np.isfinite(z).all())
    cause = found.causes.get(0)
    text = "" if cause is None else text_of(cause)
    return Status(int(found.status[0])), text, float(found.objective[0]) if is_there else None, z if is_there else None
