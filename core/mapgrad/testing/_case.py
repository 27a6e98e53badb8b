"""One law and one solver on one problem: solvers opened for it, answers judged, findings worded."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self, cast

import numpy as np
import torch

from mapgrad.batching import get_solver
from mapgrad.errors import ConformanceError, MapgradError, RowsError
from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers import InstanceSolver, resolve
from mapgrad.testing._outcome import Outcome
from mapgrad.testing._problems import other_problems
from mapgrad.testing._reference import enumeration_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem
    from mapgrad.solvers import BatchSolver, Lowering, SolverFactory, SolverLike
    from mapgrad.testing._reference import Enumeration

_TOLERANCE: Final = 1e-9
_SLOW: Final = 1e-3
_VALUES_SHOWN: Final = 16
_OPTIONS_OF_THE_CORE: Final = frozenset(inspect.signature(get_solver).parameters)


class Law(Protocol):
    """A law of the kit, as a function: it returns the outcome, or raises ConformanceError with the numbers."""

    __name__: str

    def __call__(self, solver: SolverLike, problem: Problem, **options: Any) -> Outcome:
        """Check one solver on one problem."""
        ...


class _NotApplicableError(MapgradError):
    """There is nothing to check."""


def law(body: Callable[[Case], None]) -> Law:
    """Make a law of the function ``check_<law>`` that checks a case."""
    name = body.__name__.removeprefix("check_")

    def check(solver: SolverLike, problem: Problem, **options: Any) -> Outcome:
        with Case(name, solver, problem, options) as case:
            try:
                body(case)
            except _NotApplicableError as error:
                return Outcome(name, applies=False, reasons=(str(error),))
            return Outcome(name, reasons=tuple(dict.fromkeys(case.left_out)))

    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(check, attribute, getattr(body, attribute))
    return cast("Law", check)


class Case:
    """A context in which one law is checked against one solver on one problem.

    Solvers that it opened are closed at its end. A row that the solver under test can't answer breaks the law;
    what comes before any row is solved (an unknown name, a missing package, a problem that the solver doesn't take)
    is raised as it is.

    Attributes:
        law: Name of the law.
        problem: The problem.
        workers: What the caller wants the law of threads to try, or nothing.
        slow_problem: A problem whose rows take seconds, if the caller has one.
        left_out: What the law didn't look at, each with the reason.
    """

    def __init__(self, law: str, solver: SolverLike, problem: Problem, options: dict[str, Any]) -> None:
        self.law = law
        self.problem = problem
        self.workers = [options["workers"]] if "workers" in options else []
        self.slow_problem: Problem | None = options.get("slow_problem")
        self.left_out: list[str] = []
        self._claims_optimum = False
        self._subject = solver
        self._given = options
        own: dict[str, Any] = {"workers": None, "merge": False, "on_error": "raise", "domain": "clip"}
        self._options = {name: value for name, value in options.items() if name != "slow_problem"} | own
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if isinstance(error, RowsError):
            self.fail(f"the solver gave no answers: {error}", cause=error)

    def on(self, problem: Problem) -> Case:
        """Return a case of the same law and solver on another problem."""
        return Case(self.law, self._subject, problem, self._given)

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

    def over(self, plugin: InstanceSolver[Any, Any], **settings: Any) -> Solver:
        """Open a solver of rows over an object made for the problem that the solver under test gets."""
        return self._open.enter_context(get_solver(plugin, plugin.problem, merge=False, **settings))

    @cached_property
    def plugin(self) -> InstanceSolver[Any, Any] | BatchSolver[Any]:
        """The plugin's object, for laws that call it directly."""
        options = {name: value for name, value in self._options.items() if name not in _OPTIONS_OF_THE_CORE}
        return self._factory.build(self.problem, options)

    @property
    def instance_solver(self) -> InstanceSolver[Any, Any]:
        """The plugin's object; where that takes whole batches, the law doesn't apply."""
        if not isinstance(self.plugin, InstanceSolver):
            self.not_applicable("the solver takes whole batches, without limits, starts or a stop")
        return self.plugin

    def new_state(self) -> Any:
        """Build a native model of the plugin's object, freed at the end of the case."""
        plugin = self.instance_solver
        state = plugin.init()
        self._open.callback(plugin.close, state)
        return state

    @cached_property
    def lowering(self) -> Lowering:
        """How rows go to the plugin's object, and how its answers come back."""
        return self._factory.lowering(self.problem)

    def native_rows(self, theta: Tensor) -> NDArray[np.float64]:
        """Return rows [N, *shape] as the plugin's object gets them, [N, n]: of its own problem, and scaled."""
        rows = self.lowering.rows(np.asarray(theta, dtype=np.float64)).reshape(len(theta), -1)
        if not self.plugin.traits.scale_free:
            _, exponents = np.frexp(np.abs(rows).max(axis=1, keepdims=True))
            rows = np.ldexp(rows, -exponents)
        return rows + 0.0  # neither views nor negative zeros

    @property
    def is_object(self) -> bool:
        """Whether the solver is an object or a function, which has one problem."""
        return not isinstance(self._factory.factory, type)

    @property
    def other_problems(self) -> list[Problem]:
        """Two problems that the solver may meet beside this one: copies of it, unless the solver has a name."""
        return other_problems(self._subject, self.problem)

    @cached_property
    def is_slow(self) -> bool:
        """Whether the solver declares that a row takes it longer than a millisecond."""
        recipe = self._factory
        if recipe.spec is None or recipe.spec.cost is None:
            return False
        return recipe.spec.cost(self.lowering.native) > _SLOW

    @property
    def rows(self) -> int:
        """How many rows to draw at a time."""
        return 8 if self.is_slow else 24

    @property
    def program(self) -> IntegerProgram:
        """The integer program that the solver gets; where there is none, or only this one, the law doesn't apply."""
        native = self.lowering.native
        if not isinstance(native, IntegerProgram):
            self.not_applicable("the solver isn't given integer programs")
        if self.is_object:
            self.not_applicable("an object or a function has one problem and can't be given another program")
        return native

    @property
    def repeatable(self) -> bool:
        """Whether the solver promises equal answers for equal rows whose optimum is unique."""
        traits = self.solver.traits
        return traits.exact or (traits.deterministic and traits.history_free)

    @property
    def packages(self) -> set[str]:
        """Top-level packages of the solver's function, or of its class and base classes, without this one."""
        factory = self._factory.factory
        classes = (factory if isinstance(factory, type) else type(factory)).__mro__
        modules = [base.__module__ for base in classes] + [getattr(self._subject, "__module__", None) or ""]
        return {module.partition(".")[0] for module in modules} - {"mapgrad"}

    @property
    def enumeration(self) -> Enumeration:
        """What enumeration knows of the problem."""
        return enumeration_of(self.problem)

    def not_applicable(self, reason: str) -> NoReturn:
        """End the law's check: there is nothing to check."""
        raise _NotApplicableError(reason)

    @contextmanager
    def no_exceptions(self, subject: str, place: str = "") -> Generator[None]:
        """Raise ConformanceError where the plugin raises, also what would end the program."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a solver under test may raise anything)
            self.fail(f"{subject} raised {type(error).__name__}{place}: {error}", cause=error)

    def require(self, fine: bool, message: str) -> None:
        """Raise ConformanceError with this message unless all is fine."""
        if not fine:
            self.fail(message)

    def require_rows(self, fine: Tensor, theta: Tensor, z: Tensor, message: str, *told: Tensor | list[str]) -> None:
        """Raise ConformanceError unless all is fine.

        Args:
            fine: bool [*batch].
            theta: [*batch, *shape], shown for the first row that isn't fine.
            z: [*batch, *shape], its answers, shown too.
            message: What is wrong, with one ``{}`` for each of `told`.
            told: Numbers [*batch], or texts of the flattened batch, filled in for that row.
        """
        bad = (~fine).flatten().nonzero().flatten()
        if len(bad):
            row = int(bad[0])
            found = message.format(
                *(each[row] if isinstance(each, list) else f"{float(each.flatten()[row]):.12g}" for each in told)
            )
            shown = ", ".join(f"{name} = {_show(self._rows(rows)[row])}" for name, rows in (("θ", theta), ("z", z)))
            self.fail(f"row {row} ({len(bad)} of {fine.numel()} rows are wrong): {found}; {shown}")

    def require_states(self, theta: Tensor, z: Tensor) -> None:
        """Raise ConformanceError unless each row of z is a state, of whole numbers."""
        self.require(z.shape == theta.shape, f"θ has shape {tuple(theta.shape)}, but z {tuple(z.shape)}")
        distinct, places = np.unique(self._rows(z).cpu().double(), axis=0, return_inverse=True)
        states = torch.as_tensor(distinct)
        fine = self.problem.contains(states) & (states == states.round()).flatten(1).all(1)
        self.require_rows(fine[places.ravel()], theta, z, "the answer isn't a state of the problem")

    def require_optimal(self, theta: Tensor, solutions: Solutions, tolerance: float = _TOLERANCE) -> None:
        """Raise ConformanceError unless each answer is what it claims to be, and an exact solver's optimal."""
        if self.solver.traits.exact:
            message = "an exact solver answers with status {}, not OPTIMAL"
            self.require_rows(solutions.status == Status.OPTIMAL, theta, solutions.z, message, endings(solutions))
        self.require_truthful(theta, solutions, tolerance)

    def require_claim(self) -> None:
        """End the check where no answer was called optimal, so that no optimum was owed."""
        if not self._claims_optimum:
            self.not_applicable("the solver is a heuristic and calls none of its answers optimal")

    def require_truthful(self, theta: Tensor, solutions: Solutions, tolerance: float = _TOLERANCE) -> None:
        """Raise ConformanceError unless each answer is what it claims to be, by enumeration.

        Objectives are compared in units of the row's scale: the power of two that brings the largest utility into
        [½, 1).
        """
        z = solutions.z
        self.require_states(theta, z)
        rows = self.problem.domain.clip(self._rows(theta).to("cpu", torch.float64))
        batch = solutions.status.shape
        best = self.enumeration.values(rows).amax(1).reshape(batch)
        value = self.enumeration.value(rows, self._rows(z).to(rows)).reshape(batch)
        margin = tolerance * self.enumeration.scales(rows).reshape(batch)
        status, objective, bound = (t.cpu() for t in (solutions.status, solutions.objective, solutions.bound))
        claimed = status == Status.OPTIMAL
        self._claims_optimum |= bool(claimed.any())
        message = "the answer, called optimal, is worth {}, but the best state is worth {}"
        self.require_rows(~claimed | (value >= best - margin), theta, z, message, value, best)
        # what θ doesn't price need not be at its best unless that is claimed
        fine = (objective <= value + margin) & ((objective >= value - margin) | self.enumeration.fixed.any() & ~claimed)
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
            self.fail("an error came without the solutions of the other rows")
        status, z = solutions.status.cpu(), solutions.z
        limited = torch.isin(status, torch.tensor([Status.OPTIMAL, Status.FEASIBLE, Status.TIME_LIMIT]))
        self.require_rows(limited, theta, z, "a short time limit made the status {}", endings(solutions))
        answered = z.isfinite().all(dim=tuple(range(1, z.ndim))).cpu()
        bound, objective = solutions.bound.cpu()[answered], solutions.objective.cpu()[answered]
        self.require_truthful(theta[answered], Solutions(z[answered], status[answered], objective, bound))
        certain = [Status.OPTIMAL] if self.solver.traits.exact else [Status.OPTIMAL, Status.FEASIBLE]
        fine = answered if incumbents else torch.isin(status, torch.tensor(certain))
        expected = tuple(int(row) for row in (~fine).nonzero())
        names = ", ".join(endings(solutions))
        message = f"of rows with statuses {names}, {expected} were to be refused, but {refused} were"
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
        if not self.repeatable:
            self.left_out.append("equal answers, which a heuristic that isn't deterministic doesn't promise")
        else:
            differing = (self._rows(z) != self._rows(expected)).flatten(1).sum(1)
            message = f"{message}: the answers differ in {{}} coordinates"
            self.require_rows(differing == 0, theta, z, message, differing)

    @cached_property
    def _factory(self) -> SolverFactory:
        return resolve(self._subject, self.problem)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.detach().reshape(-1, *self.problem.shape)

    def fail(self, message: str, cause: BaseException | None = None) -> NoReturn:
        """Raise ConformanceError with this message."""
        text = f"{name_of(self._subject)} on {self.problem!r} breaks the law {self.law!r}: {message}"
        raise ConformanceError(text, law=self.law) from cause


def endings(solutions: Solutions) -> list[str]:
    """Return the name of each row's status, with what the row raised, over the flattened batch."""
    names = [Status(int(status)).name for status in solutions.status.flatten()]
    for row, cause in solutions.causes.items():
        names[row] += f" ({type(cause).__name__}: {cause})"
    return names


def name_of(solver: SolverLike) -> str:
    """Return a solver's name: as given, or that of its class or function."""
    return solver if isinstance(solver, str) else getattr(solver, "__qualname__", type(solver).__qualname__)


def _show(row: Tensor) -> str:
    values = np.asarray(row.cpu().double()).ravel()
    shown = ", ".join(f"{value:.12g}" for value in values[:_VALUES_SHOWN])
    return f"[{shown}{', …' if len(values) > _VALUES_SHOWN else ''}]"
