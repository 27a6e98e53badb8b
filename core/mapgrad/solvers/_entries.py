"""A plugin's solver before it is loaded: what it takes, needs and costs, and where its class is."""

from __future__ import annotations

import importlib
import logging
import math
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from numbers import Real
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mapgrad.errors import MissingDependencyError, PluginError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram, Problem
from mapgrad.solvers._contract import Traits
from mapgrad.solvers._loading import described
from mapgrad.solvers._lowering import lower
from mapgrad.solvers._native_models import advice_on
from mapgrad.solvers._specs import SolverClass, is_solver_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solvers._contract import SolverSpec
    from mapgrad.solvers._executor_specs import ExecutorSpec
    from mapgrad.solvers._loading import Plugin

_logger = logging.getLogger("mapgrad")


S = TypeVar("S", bound="SolverSpec | ExecutorSpec")


@dataclass(frozen=True)
class Entry(Generic[S]):
    """One thing that a plugin has, by a name of its own."""

    plugin: Plugin
    spec: S

    @property
    def name(self) -> str:
        """The full name."""
        own, plugin = self.spec.name, self.plugin.name
        return plugin if own == plugin else f"{plugin}.{own}"

    @property
    def label(self) -> str:
        """The full name with the plugin's distribution and version."""
        return f"{self.name} ({self.plugin.origin})"

    def missing(self) -> str:
        """Say what it needs that isn't installed, and how to get it; empty if nothing is missing."""
        packages = [name for name in self.spec.requires if not _is_importable(name)]
        return _needs(", ".join(packages), self.spec.install) if packages else ""


@dataclass(frozen=True)
class SolverEntry(Entry["SolverSpec"]):
    """One solver of a plugin."""

    def takes_class(self, problem: Problem) -> bool:
        """Tell whether the solver takes problems of this class, or integer programs for them."""
        return isinstance(problem, self.spec.accepts) or IntegerProgram in self.spec.accepts

    def native(self, problem: Problem) -> Problem:
        """Return what the solver would get: the problem itself, or a program that stands for it.

        Raises:
            UnsupportedProblemError: the solver takes neither.
        """
        accepts = self.spec.accepts
        if not self.takes_class(problem):
            raise UnsupportedProblemError(f"it takes {', '.join(each.__name__ for each in accepts)}")
        try:
            return lower(problem, accepts, self.spec.native).native
        except MemoryError as error:
            raise UnsupportedProblemError(f"an integer program for {problem!r} needs too much memory") from error

    def refusal(self, problem: Problem) -> str | None:
        """Return why the solver can't take a problem, or None if it can."""
        try:
            native = self.native(problem)
        except UnsupportedProblemError as error:
            return str(error)
        if self.spec.supports is None:
            return None
        try:
            reason: Any = self.spec.supports(native)
            if reason is not None and not (isinstance(reason, str) and reason):
                reason = f"its supports() must return None or a reason, but returned {reason!r}"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (one plugin's mistake must not hide the others' solvers)
            reason = f"its supports() raised {described(error)}"
        return reason

    def seconds(self, problem: Problem, rows: float = math.inf) -> float:
        """Return the declared cost of a row; infinity, which sorts last, without one or where there isn't a right one.

        A wrong cost is logged: an error, or anything but a finite number of seconds that is at least 0.

        Args:
            problem: The feasible set.
            rows: Among how many rows the time to make the solver is shared; infinity leaves it out.
        """
        if self.spec.cost is None:
            return math.inf
        try:
            native = self.native(problem)
        except UnsupportedProblemError:
            return math.inf
        seconds = cost_of(self.spec.cost, native, self.label)
        if self.spec.setup is not None and rows < math.inf:
            seconds += cost_of(self.spec.setup, native, self.label, "setup") / rows
        return seconds

    def solver_class(self) -> SolverClass:
        """Import the solver's class.

        Raises:
            MissingDependencyError: the class's module needs a package that isn't installed.
            PluginError: the class can't be imported for another reason, or isn't a solver class.
        """
        factory: Any = self.spec.factory
        if isinstance(factory, str):
            factory = self._run(f"importing {factory!r}", partial(imported, factory))
        if not is_solver_class(factory):
            raise PluginError(
                f"{self.label} isn't a solver: {factory!r} isn't derived from InstanceSolver or BatchSolver"
            )
        self._run("reading its traits", lambda: factory.traits)
        require_traits(factory, self.label)
        return factory

    def _run(self, action: str, code: Callable[[], Any]) -> Any:
        """Run code of the plugin, whatever it raises, SystemExit too.

        Raises:
            MissingDependencyError: it needs a package that isn't installed.
            PluginError: it raised something else.
        """
        try:
            return code()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            own = self.spec.factory.partition(":")[0] if isinstance(self.spec.factory, str) else ""
            if missing is not None and missing.partition(".")[0] != own.partition(".")[0]:
                raise MissingDependencyError(f"{self.label} {_needs(missing, self.spec.install)}") from error
            raise PluginError(f"{self.label} can't be loaded: {action} raised {described(error)}") from error


def cost_of(cost: Callable[[Any], float], problem: Problem, label: str, name: str = "cost") -> float:
    """Return what a plugin's cost says of a problem; infinity, with a warning, where that is no right one."""
    try:
        declared: Any = cost(problem)
        if isinstance(declared, Real) and 0 <= (seconds := float(declared)) < math.inf:
            return seconds
        mistake = f"must return seconds, finite and at least 0, but returned {declared!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (one plugin's mistake must not stop the choice among the others)
        mistake = f"raised {described(error)}"
    _logger.warning("%s comes last: its %s() %s", label, name, mistake)
    return math.inf


def imported(factory: str) -> Any:
    """Import what ``"module:name"`` names."""
    module, _, attribute = factory.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


def entries_of(plugin: Plugin) -> list[SolverEntry]:
    """Return the solvers of a plugin; none as long as it isn't loaded."""
    return [SolverEntry(plugin, spec) for spec in plugin.result.specs] if plugin.result is not None else []


def require_problem(problem: Any) -> Problem:
    """Return what a user gave as a problem.

    Raises:
        TypeError: `problem` isn't a `Problem`.
    """
    if not isinstance(problem, Problem):
        several: list[Any] = [*problem] if type(problem) in (list, tuple) else []
        if any(isinstance(each, Problem) for each in several):
            raise TypeError(
                f"problem must be one problem, such as mapgrad.KSubset(10, 3), got {len(several)} in a list: "
                f"solvers and layers take several, one a row, as problems= when called"
            )
        raise TypeError(
            f"problem must be a problem, such as mapgrad.KSubset(10, 3), got {problem!r}{advice_on(problem)}"
        )
    return problem


def require_traits(solver: Any, label: str) -> None:
    """Refuse a solver class or object that doesn't say what it promises.

    Raises:
        PluginError: its traits aren't a `Traits`.
    """
    if not isinstance(solver.traits, Traits):
        raise PluginError(f"{label} has traits {solver.traits!r}; they must be a mapgrad.Traits")


def _needs(packages: str, install: str) -> str:
    return f"needs {packages}, which isn't installed: {install or 'install it'}"


_on_disk: Final[set[str]] = set()
"""Modules that were found there: looking for one takes 0.1 ms, and `"auto"` asks for those of all solvers."""


def _is_importable(module: str) -> bool:
    if module in _on_disk and module not in sys.modules:
        return True
    try:
        is_found = find_spec(module) is not None
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (a module without a spec; a parent package, which is run, that is missing or raises)
        return False
    if is_found and module not in sys.modules:
        _on_disk.add(module)
    return is_found
