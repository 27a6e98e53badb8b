"""A solver as a layer sees it: batches of any float dtype on any device in, the same out."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, Self, get_args, overload

from mapgrad.batching._bound import Bound, ErrorPolicy, Known
from mapgrad.batching._per_row import PerRow
from mapgrad.batching._rows import DomainPolicy
from mapgrad.batching._workers import Workers, require_workers
from mapgrad.solvers import Recipe, Solutions, SolverLike, SolverSpec, Traits, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.problems import Problem

_COUNTS: Final = ("rows", "solves", "equal", "known", "clipped", "failed", "seconds")
_NO_PROMISE: Final = Traits(exact=False, history_free=False, deterministic=False)


class Solver:
    """A problem and a solver, ready for batches. Made by `get_solver`, whose arguments these are.

    Attributes:
        problem: The feasible set; None where each call brings its problems.
    """

    def __init__(self, solver: SolverLike | Recipe, problem: Problem | None, settings: dict[str, Any]) -> None:
        require_workers(settings["workers"])
        _require_choice("on_error", settings["on_error"], get_args(ErrorPolicy))
        _require_choice("domain", settings["domain"], get_args(DomainPolicy))
        _require_time_limit(settings["time_limit"])
        self.problem = problem
        self._solver = solver
        self._settings = settings
        self._per_row = PerRow(lambda each: Solver(solver, each, settings))
        self._bound = None if problem is None else Bound(resolve(solver, problem), problem, settings)
        if self._bound is not None:
            self._finalizer = weakref.finalize(self, self._bound.close)

    @property
    def name(self) -> str:
        """The solver's full name."""
        if self._bound is not None:
            return self._bound.recipe.name
        return (
            self._solver if isinstance(self._solver, str) else getattr(self._solver, "__qualname__", repr(self._solver))
        )

    @property
    def spec(self) -> SolverSpec | None:
        """What the plugin says of the solver; None for a class, an object or a function, and without a problem."""
        return None if self._bound is None else self._bound.recipe.spec

    @property
    def traits(self) -> Traits:
        """What the solver promises about itself; the weakest promises without a problem."""
        return _NO_PROMISE if self._bound is None else self._bound.plugin.traits

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the solver was made.

        `rows` given; `solves` that a solver did; `equal` rows answered by an equal one of the same batch; `known` rows
        answered by what was solved before; `clipped` rows moved into the domain; `failed` rows; `seconds` of wall-clock
        time.
        """
        counts = [self._per_row.stats] + ([] if self._bound is None else [self._bound.stats])
        return {name: sum(count.get(name, 0.0) for count in counts) for name in _COUNTS}

    @overload
    def __call__(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor: ...
    @overload
    def __call__(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> list[Tensor]: ...
    def __call__(
        self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None
    ) -> Tensor | list[Tensor]:
        """Return argmax ⟨θ, z⟩ over the problem's set for each row; no gradient flows.

        Args:
            theta: [*batch, *shape], any float dtype and device; not written to. With `problems`, [B, *shape], or a
                list of B tensors of their shapes.
            problems: One problem a row, in place of the solver's own.

        Returns:
            z of θ's shape, dtype and device; a list where θ is one.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit the problem.
            NonFiniteError: θ has NaN or infinite entries.
            DomainError: θ leaves the problem's domain, under ``domain="raise"``.
            RowsError: a row has no acceptable answer; the error carries `rows` and the others' `solutions`.
        """
        if problems is None:
            return self.solve_known(theta, None)[0]
        return self._per_row.solve(theta, problems).z

    @overload
    def solve(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> Solutions: ...
    @overload
    def solve(self, theta: Sequence[Tensor], problems: Sequence[Problem]) -> Solutions: ...
    def solve(self, theta: Tensor | Sequence[Tensor], problems: Sequence[Problem] | None = None) -> Solutions:
        """Solve each row and report how it went.

        Args:
            theta: As for a call.
            problems: As for a call.

        Returns:
            z, status, objective and bound for each row, with the time taken and the counts of this call; z is a list
            where θ is one.

        Raises:
            MapgradError: As for a call.
        """
        if problems is not None:
            return self._per_row.solve(theta, problems)
        return self._require_bound().solve(theta)

    def solve_known(self, theta: object, known: Known | None) -> tuple[Tensor, Tensor]:
        """Return z and the statuses [*batch], reusing the answers to rows that were solved before."""
        return self._require_bound().answer(theta, known)

    def for_problem(self, problem: Problem) -> Solver:
        """Return the same solver of another problem; the last ones used are kept."""
        return self if problem == self.problem else self._per_row.solver(problem)

    def close(self) -> None:
        """Stop the threads and free the native models; a later call makes new ones."""
        self._per_row.close()
        if self._bound is not None:
            self._bound.close()

    def _require_bound(self) -> Bound:
        if self._bound is None:
            raise TypeError(f"{self!r} was made without a problem: pass problems=[…], one for each row")
        return self._bound

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        solver = self._solver if self._bound is None else self._bound.recipe
        return Solver, (solver, self.problem, self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Solver:
        return Solver(self._solver, self.problem, self._settings)

    def __repr__(self) -> str:
        return f"<Solver {self.name} of {self.problem!r}>"


def get_solver(
    solver: SolverLike,
    problem: Problem | None,
    *,
    workers: Workers = None,
    on_error: ErrorPolicy = "raise",
    time_limit: float | None = None,
    domain: DomainPolicy = "clip",
    reuse: bool = False,
    merge: bool = True,
    **options: Any,
) -> Solver:
    """Return a solver for a problem.

    Args:
        solver: A name (``"plugin.solver"``, or ``"plugin"`` for its cheapest one that takes the problem), ``"auto"``
            for the cheapest exact solver installed, a solver class or object, or a function θ [N, *shape] → z.
        problem: The feasible set; None if each call brings one problem a row.
        workers: None or 1 solves in the calling thread; n in n threads, each with its own native model;
            ``"processes:n"`` in n processes; any `concurrent.futures.Executor` in its workers. A solver that takes
            whole batches always runs in the calling thread.
        on_error: ``"raise"`` when a row isn't solved to optimality by an exact solver, or ``"incumbent"`` to accept a
            feasible state where there is one.
        time_limit: Seconds that one row may take, for solvers whose engine has a limit; None for no limit.
        domain: ``"clip"`` θ to the problem's domain and count it, or ``"raise"``.
        reuse: Whether what earlier rows left behind (a basis, the forward pass's answer) may speed up later ones. The
            objectives stay the same; among equal optima another one may be found.
        merge: Whether equal rows of a batch are solved once (only for deterministic solvers that take single rows).
        options: The solver's own options.

    Raises:
        UnknownSolverError: No plugin offers this name.
        MissingDependencyError: The solver's package isn't installed.
        PluginError: The solver's plugin is broken or blocked.
        UnsupportedProblemError: The solver can't take this problem.
        TypeError: An option is unknown to the solver, or an argument has the wrong type.
    """
    if isinstance(solver, Solver):
        raise TypeError(f"{solver!r} is made already: call it, or pass its name, {solver.name!r}, for another problem")
    settings: dict[str, Any] = {
        "workers": workers,
        "on_error": on_error,
        "time_limit": time_limit,
        "domain": domain,
        "reuse": reuse,
        "merge": merge,
        "options": options,
    }
    return Solver(solver, problem, settings)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _require_time_limit(value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"time_limit must be None or a positive number of seconds, got {value!r}")
