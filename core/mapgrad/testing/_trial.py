"""One law on trial: solvers opened for it, answers judged, findings worded."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import numpy as np
import torch

from mapgrad.batching import get_solver
from mapgrad.errors import ConformanceError, RowsError
from mapgrad.problems import IntegerProgram
from mapgrad.solvers import Solutions, Status, resolve
from mapgrad.testing._reference import truth_of

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverLike
    from mapgrad.testing._reference import Truth

_TOLERANCE: Final = 1e-9
_SLOW: Final = 1e-3
_VALUES_SHOWN: Final = 16


class Trial:
    """A context in which one law is checked against one solver on one problem.

    Solvers that it opened are closed at its end. A row that the solver under test can't answer breaks the law;
    what comes before any row is solved (an unknown name, a missing package, a problem that the solver doesn't take)
    is raised as it is.
    """

    def __init__(self, law: str, solver: SolverLike, problem: Problem, options: dict[str, Any]) -> None:
        self.law = law
        self.problem = problem
        self.workers = [options["workers"]] if "workers" in options else []
        self._subject = solver
        own: dict[str, Any] = {"workers": None, "merge": False, "on_error": "raise", "domain": "clip"}
        self._options = options | own
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if isinstance(error, RowsError):
            self._fail(f"the solver gave no answers: {error}", cause=error)

    @cached_property
    def solver(self) -> Solver:
        """The solver under test, inline."""
        return self.another()

    def another(self, **changes: Any) -> Solver:
        """Open the solver under test once more; unless told to, it solves equal rows apart."""
        return self._open.enter_context(get_solver(self._subject, self.problem, **(self._options | changes)))

    def without_problem(self) -> Solver:
        """Open the solver under test for problems that come with their rows."""
        return self._open.enter_context(get_solver(self._subject, None, **self._options))

    @cached_property
    def is_slow(self) -> bool:
        """Whether the solver declares that a row takes it longer than a millisecond."""
        recipe = resolve(self._subject, self.problem)
        if recipe.spec is None or recipe.spec.cost is None:
            return False
        return recipe.spec.cost(recipe.lowering(self.problem).native) > _SLOW

    @property
    def rows(self) -> int:
        """How many rows to draw at a time."""
        return 8 if self.is_slow else 24

    @property
    def program(self) -> IntegerProgram | None:
        """The integer program that the solver gets; None where it gets another problem, or takes this one only."""
        recipe = resolve(self._subject, self.problem)
        native = recipe.lowering(self.problem).native
        return native if isinstance(native, IntegerProgram) and isinstance(recipe.factory, type) else None

    @property
    def repeatable(self) -> bool:
        """Whether the solver promises equal answers for equal rows whose optimum is unique."""
        traits = self.solver.traits
        return traits.exact or (traits.deterministic and traits.history_free)

    @property
    def packages(self) -> set[str]:
        """Top-level packages of the solver's function, or of its class and base classes, without this one."""
        factory = resolve(self._subject, self.problem).factory
        classes = (factory if isinstance(factory, type) else type(factory)).__mro__
        modules = [base.__module__ for base in classes] + [getattr(self._subject, "__module__", None) or ""]
        return {module.partition(".")[0] for module in modules} - {"mapgrad"}

    @property
    def truth(self) -> Truth:
        """What enumeration knows of the problem."""
        return truth_of(self.problem)

    def require(self, fine: bool, message: str) -> None:
        """Raise ConformanceError with this message unless all is fine."""
        if not fine:
            self._fail(message)

    def require_rows(self, fine: Tensor, theta: Tensor, z: Tensor, message: str, *numbers: Tensor) -> None:
        """Raise ConformanceError unless all is fine.

        Args:
            fine: bool [*batch].
            theta: [*batch, *shape], shown for the first row that isn't fine.
            z: [*batch, *shape], its answers, shown too.
            message: What is wrong, with one ``{}`` for each of `numbers`.
            numbers: [*batch], filled in for that row.
        """
        bad = (~fine).flatten().nonzero().flatten()
        if len(bad):
            row = int(bad[0])
            found = message.format(*(f"{float(number.flatten()[row]):.12g}" for number in numbers))
            shown = ", ".join(f"{name} = {_show(self._rows(rows)[row])}" for name, rows in (("θ", theta), ("z", z)))
            self._fail(f"row {row} ({len(bad)} of {fine.numel()} rows are wrong): {found}; {shown}")

    def require_states(self, theta: Tensor, z: Tensor) -> None:
        """Raise ConformanceError unless each row of z is a state, of whole numbers."""
        self.require(z.shape == theta.shape, f"θ has shape {tuple(theta.shape)}, but z {tuple(z.shape)}")
        distinct, places = np.unique(self._rows(z).cpu().double(), axis=0, return_inverse=True)
        states = torch.as_tensor(distinct)
        fine = self.problem.contains(states) & (states == states.round()).flatten(1).all(1)
        self.require_rows(fine[places.ravel()], theta, z, "the answer is no state of the problem")

    def require_optimal(self, theta: Tensor, solutions: Solutions, tolerance: float = _TOLERANCE) -> None:
        """Raise ConformanceError unless each answer is what it claims to be, and an exact solver's optimal."""
        if self.solver.traits.exact:
            message = "an exact solver answers with status {}, not OPTIMAL (1)"
            self.require_rows(solutions.status == Status.OPTIMAL, theta, solutions.z, message, solutions.status)
        self.require_truthful(theta, solutions, tolerance)

    def require_truthful(self, theta: Tensor, solutions: Solutions, tolerance: float = _TOLERANCE) -> None:
        """Raise ConformanceError unless each answer is what it claims to be, by enumeration.

        Objectives are compared in units of the row's scale: the power of two that brings the largest utility into
        [½, 1).
        """
        z = solutions.z
        self.require_states(theta, z)
        rows = self.problem.domain.clip(self._rows(theta).to("cpu", torch.float64))
        batch = solutions.status.shape
        best = self.truth.values(rows).amax(1).reshape(batch)
        value = self.truth.value(rows, self._rows(z).to(rows)).reshape(batch)
        margin = tolerance * self.truth.scales(rows).reshape(batch)
        status, objective, bound = (t.cpu() for t in (solutions.status, solutions.objective, solutions.bound))
        claimed = status == Status.OPTIMAL
        message = "the answer, called optimal, is worth {}, but the best state is worth {}"
        self.require_rows(~claimed | (value >= best - margin), theta, z, message, value, best)
        # what θ doesn't price need not be at its best unless that is claimed
        fine = (objective <= value + margin) & ((objective >= value - margin) | self.truth.fixed.any() & ~claimed)
        message = "the objective is reported as {}, but the answer is worth {}"
        self.require_rows(fine, theta, z, message, objective, value)
        message = "the bound is reported as {}, but the best state is worth {}"
        self.require_rows(bound >= best - margin, theta, z, message, bound, best)

    def require_partial(
        self, theta: Tensor, solutions: Solutions | None, refused: tuple[int, ...], *, incumbents: bool
    ) -> None:
        """Raise ConformanceError unless rows that ran into a time limit are what they claim to be.

        Args:
            theta: [N, *shape].
            solutions: The answers; z is NaN where there is no state.
            refused: Numbers of the rows that the call refused.
            incumbents: Whether a row was to be refused only where it has no state.
        """
        if solutions is None:
            self._fail("an error came without the solutions of the other rows")
        status, z = solutions.status.cpu(), solutions.z
        limited = torch.isin(status, torch.tensor([Status.OPTIMAL, Status.FEASIBLE, Status.TIME_LIMIT]))
        self.require_rows(limited, theta, z, "a short time limit made the status {}", status)
        answered = z.isfinite().all(dim=tuple(range(1, z.ndim))).cpu()
        bound, objective = solutions.bound.cpu()[answered], solutions.objective.cpu()[answered]
        self.require_truthful(theta[answered], Solutions(z[answered], status[answered], objective, bound))
        certain = [Status.OPTIMAL] if self.solver.traits.exact else [Status.OPTIMAL, Status.FEASIBLE]
        fine = answered if incumbents else torch.isin(status, torch.tensor(certain))
        expected = tuple(int(row) for row in (~fine).nonzero())
        message = f"of rows with statuses {np.asarray(status)}, {expected} were to be refused, but {refused} were"
        self.require(refused == expected, message)

    def require_same(self, theta: Tensor, z: Tensor, expected: Tensor, message: str) -> None:
        """Raise ConformanceError unless z equals what was expected, bit by bit.

        A solver that promises neither the optimum nor equal answers for equal rows owes states only.

        Args:
            theta: [*batch, *shape], rows whose optimum is unique.
            z: [*batch, *shape], the answers.
            expected: [*batch, *shape], what they should be.
            message: Who disagrees.
        """
        self.require_states(theta, z)
        if self.repeatable:
            differing = (self._rows(z) != self._rows(expected)).flatten(1).sum(1)
            message = f"{message}: the answers differ in {{}} coordinates"
            self.require_rows(differing == 0, theta, z, message, differing)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.detach().reshape(-1, *self.problem.shape)

    def _fail(self, message: str, cause: BaseException | None = None) -> NoReturn:
        text = f"{name_of(self._subject)} on {self.problem!r} breaks the law {self.law!r}: {message}"
        raise ConformanceError(text, law=self.law) from cause


def name_of(solver: SolverLike) -> str:
    """Return a solver's name: as given, or that of its class or function."""
    return solver if isinstance(solver, str) else getattr(solver, "__qualname__", type(solver).__qualname__)


def _show(row: Tensor) -> str:
    values = np.asarray(row.cpu().double()).ravel()
    shown = ", ".join(f"{value:.12g}" for value in values[:_VALUES_SHOWN])
    return f"[{shown}{', …' if len(values) > _VALUES_SHOWN else ''}]"
