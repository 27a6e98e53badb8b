"""From what a user names to what solves: names, classes, objects and functions."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mapgrad.errors import MissingDependencyError, PluginError, UnknownSolverError, UnsupportedProblemError
from mapgrad.solvers._contract import BatchSolver, InstanceSolver
from mapgrad.solvers._entries import entries_of, require_problem, require_traits
from mapgrad.solvers._function import FunctionSolver
from mapgrad.solvers._listing import all_entries, entries_for
from mapgrad.solvers._loading import AUTO, is_strict
from mapgrad.solvers._lowering import Lowering, lower
from mapgrad.solvers._registry import REGISTRY
from mapgrad.solvers._specs import is_solver_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solvers._contract import SolverSpec
    from mapgrad.solvers._entries import SolverEntry
    from mapgrad.solvers._specs import SolverClass

    SolverObject: TypeAlias = InstanceSolver[Any, Any] | BatchSolver[Any]

SolverLike: TypeAlias = "str | SolverClass | SolverObject | Callable[[Tensor], Tensor]"

_QUICK: Final = 1e-2
"""Seconds a row, up to which ``"auto"`` takes a solver of the problem's own class before it makes a program of it."""

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class SolverFactory:
    """How to make a solver, here or in another process.

    Pickled, it keeps of the spec what isn't a function: `supports` and `cost` are no longer needed once it is chosen.

    Attributes:
        name: The solver's full name, or the name of the class or function.
        label: The name with the plugin's distribution and version, for messages.
        factory: The class, or the object itself.
        spec: What the plugin says of the solver; None for what wasn't asked for by its name.
    """

    name: str
    label: str
    factory: SolverClass | SolverObject
    spec: SolverSpec | None = None

    def lowering(self, problem: Problem) -> Lowering:
        """Return how rows of a problem go to the solver, and how its answers come back."""
        if not isinstance(self.factory, type) and getattr(self.factory, "problem", None) in (problem, None):
            return Lowering(problem, problem)
        return lower(problem, self.spec and self.spec.accepts)

    def build(self, problem: Problem | None, options: Mapping[str, Any]) -> SolverObject:
        """Make the solver of a problem, lowered to what it takes.

        Args:
            problem: The feasible set; None is only for an object or a function that does without.
            options: Options of the solver.

        Raises:
            TypeError: the solver has no such option; an object or a function takes none; a class needs a problem.
        """
        if isinstance(self.factory, type):
            return self.factory(self.lowering(require_problem(problem)).native, **options)
        if options:
            raise TypeError(
                f"{self.label} takes no options, got {', '.join(sorted(options))}: options go to a name or a class"
            )
        return self.factory

    def __reduce__(self) -> tuple[Any, ...]:
        spec = self.spec and replace(self.spec, supports=None, cost=None)
        return SolverFactory, (self.name, self.label, self.factory, spec)


def resolve(solver: SolverLike | SolverFactory, problem: Problem | None) -> SolverFactory:
    """Find the solver that a user asks for.

    Args:
        solver: A full name; a plugin's name, for the cheapest of its solvers that takes the problem; ``"auto"``, for
            the cheapest exact one of all plugins; a class derived from `InstanceSolver` or `BatchSolver`, or an object
            of such a class; or a function θ [N, *shape] → z, called with whole batches.
        problem: The feasible set; None is only for a function whose set isn't known.

    Raises:
        UnknownSolverError: there is no such name.
        PluginError: the plugin is broken or blocked, or its solver can't be loaded.
        MissingDependencyError: the solver needs a package that isn't installed.
        UnsupportedProblemError: the solver doesn't take this problem.
        TypeError: `solver` isn't one of these, or `problem` isn't a `Problem`.
    """
    if isinstance(solver, SolverFactory):
        return solver
    if isinstance(solver, str):
        problem = require_problem(problem)
        return _cheapest_exact(problem) if solver == AUTO else _by_name(solver, problem)
    if is_solver_class(solver):
        require_problem(problem)
        name = solver.__qualname__
        require_traits(solver, name)
        return SolverFactory(name, name, solver)
    if isinstance(solver, InstanceSolver | BatchSolver):
        return _given_object(cast("SolverObject", solver), require_problem(problem))
    if callable(solver) and not isinstance(solver, type):
        if problem is not None:
            require_problem(problem)
        name = getattr(solver, "__qualname__", type(solver).__qualname__)
        return SolverFactory(name, name, FunctionSolver(problem, solver))
    raise TypeError(
        f"a solver is a name, {AUTO!r}, a class derived from InstanceSolver or BatchSolver, an object of such a class, "
        f"or a function from θ to z; got {solver!r}"
    )


def _given_object(solver: SolverObject, problem: Problem) -> SolverFactory:
    name = type(solver).__qualname__
    require_traits(solver, name)
    if getattr(solver, "problem", problem) not in (problem, lower(problem, None).native):
        raise UnsupportedProblemError(f"this {name} was made for {solver.problem!r}, but is asked to solve {problem!r}")
    return SolverFactory(name, name, solver)


def _by_name(name: str, problem: Problem) -> SolverFactory:
    plugin_name, dot, own_name = name.partition(".")
    plugin = REGISTRY.plugin(plugin_name)
    if plugin is None:
        raise _unknown(name)
    entries = entries_of(plugin)
    if dot:
        entries = [entry for entry in entries if entry.spec.name == own_name]
        if not entries:
            raise _unknown(name)
    fitting = [entry for entry in entries if entry.refusal(problem) is None]
    if not fitting:
        raise _unsupported(name, entries, problem)
    installed = [entry for entry in fitting if not entry.missing()]
    if not installed:
        raise MissingDependencyError(_needs(fitting))
    return _factory(_by_cost(_priced(installed, problem))[0])


def _cheapest_exact(problem: Problem) -> SolverFactory:
    inexact: list[str] = []
    for entry in _installed_for(problem):
        try:
            factory = _factory(entry)
        except (PluginError, MissingDependencyError) as error:
            if is_strict():
                raise
            _logger.warning("%r passes over a solver: %s", AUTO, error)
            continue
        if factory.factory.traits.exact:
            _logger.info("%r: %r goes to %s", AUTO, problem, entry.label)
            return factory
        inexact.append(entry.name)
    missing = [entry for entry in entries_for(problem) if entry.missing()]
    if missing:
        raise MissingDependencyError(f"no exact solver of {problem!r} is installed; these may do: {_needs(missing)}")
    heuristics = f"; heuristics, which must be named: {', '.join(inexact)}" if inexact else ""
    raise UnsupportedProblemError(f"no exact solver takes {problem!r}{heuristics}")


def _installed_for(problem: Problem) -> Iterator[SolverEntry]:
    """Yield the installed solvers that take a problem: quick ones of its own class first, then the rest, by cost."""
    installed = [entry for entry in all_entries() if not entry.missing()]
    own_class = _priced([entry for entry in installed if isinstance(problem, entry.spec.accepts)], problem)
    quick = [(seconds, entry) for seconds, entry in own_class if seconds <= _QUICK]
    yield from (entry for entry in _by_cost(quick) if entry.refusal(problem) is None)
    slow = [(seconds, entry) for seconds, entry in own_class if seconds > _QUICK]
    others = _priced([entry for entry in installed if not isinstance(problem, entry.spec.accepts)], problem)
    yield from (entry for entry in _by_cost(slow + others) if entry.refusal(problem) is None)


def _priced(entries: list[SolverEntry], problem: Problem) -> list[tuple[float, SolverEntry]]:
    return [(entry.seconds(problem), entry) for entry in entries]


def _by_cost(priced: list[tuple[float, SolverEntry]]) -> list[SolverEntry]:
    """Sort by cost; among equal ones ours come first, then the names decide."""
    ranked = sorted(priced, key=lambda pair: (pair[0], not pair[1].plugin.is_ours, pair[1].name))
    return [entry for _, entry in ranked]


def _factory(entry: SolverEntry) -> SolverFactory:
    return SolverFactory(entry.name, entry.label, entry.solver_class(), entry.spec)


def _needs(entries: list[SolverEntry]) -> str:
    return "; ".join(f"{entry.label} {entry.missing()}" for entry in entries)


def _unsupported(name: str, entries: list[SolverEntry], problem: Problem) -> UnsupportedProblemError:
    reasons = (
        "; ".join(f"{entry.label}: {entry.refusal(problem)}" for entry in entries) or "its plugin offers no solver"
    )
    able = sorted(entry.name for entry in entries_for(problem) if not entry.missing())
    return UnsupportedProblemError(
        f"{name!r} can't solve {problem!r}: {reasons}. Installed solvers that can: {', '.join(able) or 'none'}"
    )


def _unknown(name: str) -> UnknownSolverError:
    """Compare a name with those that are known without loading a plugin: a typo must not run anybody's code."""
    plugins = REGISTRY.known()
    known = {AUTO, *(plugin.name for plugin in plugins)}
    known.update(entry.name for plugin in plugins for entry in entries_of(plugin))
    near = _near(name, known) or _near(name.partition(".")[0], known)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        hint = f"known are {', '.join(sorted(known))}; mapgrad.list_solvers() lists the solvers of all plugins"
    return UnknownSolverError(f"no solver is named {name!r}; {hint}")


def _near(name: str, known: set[str]) -> list[str]:
    lower = {each.lower(): each for each in sorted(known)}
    return [lower[each] for each in difflib.get_close_matches(name.lower(), lower)]
