"""From what a user names to what solves: names, classes, objects and functions."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mapgrad.errors import MissingDependencyError, PluginError, UnknownSolverError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram
from mapgrad.solvers._contract import BatchSolver, InstanceSolver
from mapgrad.solvers._entries import entries_of, require_problem, require_traits
from mapgrad.solvers._function import FunctionSolver
from mapgrad.solvers._listing import all_entries, entries_for, trusted_entries_for
from mapgrad.solvers._loading import AUTO, described, is_strict
from mapgrad.solvers._lowering import Lowering, lower
from mapgrad.solvers._options import COMMON, did_you_mean, near_to, options_of, unknown_options
from mapgrad.solvers._program_solver import ProgramSolver
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

_FAR_FASTER: Final = 10
"""How many times as fast a solver that isn't installed must be declared to be told of."""

_MATTERS: Final = 2e-5
"""Seconds a row, below which the solver isn't what a step's time goes to, so that a faster one needn't be told of."""

_told: Final[set[str]] = set()

_BASES: Final[tuple[Any, ...]] = (InstanceSolver, BatchSolver, ProgramSolver)

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class SolverFactory:
    """How to make a solver, here or in another process.

    Pickled, it keeps of the spec what isn't a function: `supports`, `cost` and `setup` are no longer needed once it is
    chosen.

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
        if self.spec is not None:
            return lower(problem, self.spec.accepts, self.spec.native)
        is_class = isinstance(self.factory, type)
        takes_programs = is_class and issubclass(cast("type", self.factory), ProgramSolver)
        return lower(problem, (IntegerProgram,) if takes_programs else None, () if is_class else None)

    def build(self, problem: Problem | None, options: Mapping[str, Any]) -> SolverObject:
        """Make the solver of a problem, lowered to what it takes.

        Args:
            problem: The feasible set; None is only for an object or a function that does without.
            options: Options of the solver.

        Raises:
            TypeError: the solver has no such option; an object or a function takes none; a class needs a problem.
            PluginError: the class raised what would end the program, such as SystemExit.
        """
        _require_options(self.label, [self.factory], options)
        if not isinstance(self.factory, type):
            return self.factory
        native = self.lowering(require_problem(problem)).native
        try:
            return self.factory(native, **options)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(f"{self.label} can't be made: its constructor raised {described(error)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        spec = self.spec and replace(self.spec, supports=None, cost=None, setup=None)
        return SolverFactory, (self.name, self.label, self.factory, spec)


def resolve(solver: SolverLike | SolverFactory, problem: Problem | None, rows: float = math.inf) -> SolverFactory:
    """Find the solver that a user asks for.

    Args:
        solver: A full name; a plugin's name, for the cheapest of its solvers that takes the problem; ``"auto"``, for
            the cheapest exact one of all plugins; a class derived from `InstanceSolver` or `BatchSolver`, or an object
            of such a class; or a function θ [N, *shape] → z, called with whole batches.
        problem: The feasible set; None is only for a function whose set isn't known.
        rows: For how many rows the solver is made, where the cheapest is looked for.

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
        return _cheapest_exact(problem, rows) if solver == AUTO else _by_name(solver, problem, rows)
    given = _given(solver, problem)
    is_function = given.factory is not solver  # it alone does without a problem
    if not is_function or problem is not None:
        problem = require_problem(problem)
    if not is_function and not isinstance(solver, type):
        own = getattr(solver, "problem", problem)
        if own not in (problem, lower(problem, None).native):
            raise UnsupportedProblemError(f"this {given.name} was made for {own!r}, but is asked to solve {problem!r}")
    return given


def successor_of(factory: SolverFactory, problem: Problem) -> tuple[SolverFactory, float] | None:
    """Return the solver for the rows that another one gives up, and its declared seconds a row; None without one.

    It is the cheapest exact engine of integer programs or, where none takes the problem, the cheapest exact solver:
    rows that are given up are hard, and a search made for one class of problems may go on for ever there. Solvers of
    whole batches, which keep no time limit, don't count; third parties' plugins do if they are loaded already.

    Args:
        factory: The solver that gives up.
        problem: The feasible set.
    """
    entries = [entry for entry in trusted_entries_for(problem) if entry.name != factory.name and not entry.missing()]
    priced = [(seconds, entry) for seconds, entry in _priced(entries, problem) if seconds < math.inf]
    needs_limits = factory.factory.traits.limits and isinstance(problem, IntegerProgram)
    for entry in sorted(_by_cost(priced), key=lambda entry: IntegerProgram not in entry.spec.accepts):
        try:
            other = _factory(entry)
        except (PluginError, MissingDependencyError):
            continue
        traits = other.factory.traits
        is_engine = issubclass(entry.solver_class(), InstanceSolver)
        if is_engine and traits.exact and not traits.gives_up and (traits.limits or not needs_limits):
            return other, entry.seconds(problem)
    return None


def require_solver(solver: SolverLike, options: Mapping[str, Any]) -> None:
    """Refuse what can't be a solver of any problem, for who asks before there is one.

    Args:
        solver: As for `resolve`.
        options: Options of the solver. Where a plugin's name stands for several solvers, one of them must take each;
            those for ``"auto"`` aren't looked at, as the solver of any plugin may take them.

    Raises:
        UnknownSolverError: there is no such name.
        PluginError: the plugin is broken or blocked, or, where there are options, its solver can't be loaded.
        MissingDependencyError: the solver needs a package that isn't installed.
        TypeError: `solver` can't be one, or has no such option.
    """
    if not isinstance(solver, str):
        given = _given(solver, None)
        _require_options(given.label, [given.factory], options)
    elif solver != AUTO:
        entries = _installed(_entries_named(solver))
        if options:
            label = entries[0].label if len(entries) == 1 else repr(solver)
            _require_options(label, [entry.solver_class() for entry in entries], options)


def _require_options(label: str, solvers: list[SolverClass | SolverObject], options: Mapping[str, Any]) -> None:
    """Refuse options that none of some solvers takes, as far as their constructors name what they take."""
    if not options:
        return
    known: dict[str, None] = {}
    for solver in solvers:
        if not isinstance(solver, type):
            raise TypeError(
                f"{label} takes no options, got {', '.join(sorted(options))}: options go to a name or a class"
            )
        named, takes_others = options_of(solver)
        if takes_others and not any(solver.__init__ is base.__init__ for base in _BASES):
            return  # its constructor decides: it may hand them to an engine
        known |= dict.fromkeys(named)
    unknown = options.keys() - known.keys()
    if unknown:
        raise unknown_options(label, unknown, known, COMMON)


def _given(solver: SolverLike, problem: Problem | None) -> SolverFactory:
    """Return the solver that a user gives in place of a name; the problem is a function's, who may do without."""
    if is_solver_class(solver):
        return _unnamed(solver, solver)
    if isinstance(solver, InstanceSolver | BatchSolver):
        made = cast("SolverObject", solver)
        return _unnamed(made, type(made))
    if callable(solver) and not isinstance(solver, type):
        name = getattr(solver, "__qualname__", type(solver).__qualname__)
        return SolverFactory(name, name, FunctionSolver(problem, solver))
    raise TypeError(
        f"a solver is a name, {AUTO!r}, a class derived from InstanceSolver or BatchSolver, an object of such a class, "
        f"or a function from θ to z; got {solver!r}"
    )


def _unnamed(solver: SolverClass | SolverObject, kind: type) -> SolverFactory:
    require_traits(solver, kind.__qualname__)
    return SolverFactory(kind.__qualname__, kind.__qualname__, solver)


def _entries_named(name: str) -> list[SolverEntry]:
    plugin_name, dot, own_name = name.partition(".")
    plugin = REGISTRY.plugin(plugin_name)
    if plugin is None:
        raise _unknown(name)
    entries = entries_of(plugin)
    if not dot:
        return entries
    named = [entry for entry in entries if entry.spec.name == own_name]
    if not named:
        raise _unknown(name)
    return named


def _installed(entries: list[SolverEntry]) -> list[SolverEntry]:
    installed = [entry for entry in entries if not entry.missing()]
    if entries and not installed:
        raise MissingDependencyError(_needs(entries))
    return installed


def _by_name(name: str, problem: Problem, rows: float) -> SolverFactory:
    entries = _entries_named(name)
    fitting = [entry for entry in entries if entry.refusal(problem) is None]
    if not fitting:
        raise _unsupported(name, entries, problem)
    return _factory(_by_cost(_priced(_installed(fitting), problem, rows))[0])


def _cheapest_exact(problem: Problem, rows: float) -> SolverFactory:
    inexact: list[str] = []
    for entry in _installed_for(problem, rows):
        try:
            factory = _factory(entry)
        except (PluginError, MissingDependencyError) as error:
            if is_strict():
                raise
            _logger.warning("%r passes over a solver: %s", AUTO, error)
            continue
        if factory.factory.traits.exact:
            _logger.info("%r: %r goes to %s", AUTO, problem, entry.label)
            _tell_of_faster(problem, entry)
            return factory
        inexact.append(entry.name)
    missing = [entry for entry in entries_for(problem) if entry.missing()]
    if missing:
        raise MissingDependencyError(f"no exact solver of {problem!r} is installed; these may do: {_needs(missing)}")
    heuristics = f"; heuristics, which must be named: {', '.join(inexact)}" if inexact else ""
    raise UnsupportedProblemError(f"no exact solver takes {problem!r}{_reasons(problem)}{heuristics}{_unusable()}")


def _tell_of_faster(problem: Problem, chosen: SolverEntry) -> None:
    """Warn, once for each of them, of a solver that isn't installed and is declared to be far faster."""
    seconds = chosen.seconds(problem)
    if not _MATTERS <= seconds < math.inf:
        return
    missing = [entry for entry in all_entries() if entry.name not in _told and entry.missing()]
    faster = [
        (cost, entry)
        for entry in missing
        if (cost := entry.seconds(problem)) * _FAR_FASTER <= seconds and entry.refusal(problem) is None
    ]
    if not faster:
        return
    cost, entry = min(faster, key=lambda pair: (pair[0], pair[1].name))
    _told.add(entry.name)
    _logger.warning(
        "%r takes %s, declared to take %.2g µs a row; %s, declared to take %.2g µs, %s",
        AUTO,
        chosen.name,
        seconds * 1e6,
        entry.name,
        cost * 1e6,
        entry.missing(),
    )


def _reasons(problem: Problem) -> str:
    """Say why installed solvers refuse a problem that they or an integer program for it might fit: each reason once."""
    names: dict[str, list[str]] = {}
    for entry in all_entries():
        if entry.takes_class(problem) and not entry.missing() and (reason := entry.refusal(problem)):
            names.setdefault(reason, []).append(entry.name)
    return "".join(f"; {', '.join(sorted(each))}: {reason}" for reason, each in names.items())


def _unusable() -> str:
    """Say which plugins are broken or switched off, each with the reason: their solvers might do."""
    names: dict[str, list[str]] = {}
    for plugin in REGISTRY.plugins():
        if plugin.result is not None and plugin.result.status != "ok":
            names.setdefault(plugin.result.detail, []).append(plugin.name)
    return "".join(f"; plugins that can't be used: {', '.join(each)}: {reason}" for reason, each in names.items())


def _installed_for(problem: Problem, rows: float) -> Iterator[SolverEntry]:
    """Yield the installed solvers that take a problem: quick ones of its own class first, then the rest, by cost."""
    installed = [entry for entry in all_entries() if not entry.missing()]
    own_class = _priced([entry for entry in installed if isinstance(problem, entry.spec.accepts)], problem, rows)
    quick = [(seconds, entry) for seconds, entry in own_class if seconds <= _QUICK]
    yield from (entry for entry in _by_cost(quick) if entry.refusal(problem) is None)
    slow = [(seconds, entry) for seconds, entry in own_class if seconds > _QUICK]
    others = _priced([entry for entry in installed if not isinstance(problem, entry.spec.accepts)], problem, rows)
    yield from (entry for entry in _by_cost(slow + others) if entry.refusal(problem) is None)


def _priced(entries: list[SolverEntry], problem: Problem, rows: float = math.inf) -> list[tuple[float, SolverEntry]]:
    return [(entry.seconds(problem, rows), entry) for entry in entries]


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
    able = sorted(entry.name for entry in trusted_entries_for(problem) if not entry.missing())
    return UnsupportedProblemError(
        f"{name!r} can't solve {problem!r}: {reasons}. Installed solvers that can: {', '.join(able) or 'none'}"
    )


def _unknown(name: str) -> UnknownSolverError:
    """Compare a name with those that are known without loading a plugin: a typo must not run anybody's code."""
    plugins = REGISTRY.known()
    known = {AUTO, *(plugin.name for plugin in plugins)}
    known.update(entry.name for plugin in plugins for entry in entries_of(plugin))
    near = near_to(name, known) or near_to(name.partition(".")[0], known)
    if near:
        hint = did_you_mean(near)
    else:
        hint = f"known are {', '.join(sorted(known))}; mapgrad.list_solvers() lists the solvers of all plugins"
    return UnknownSolverError(f"no solver is named {name!r}; {hint}")
