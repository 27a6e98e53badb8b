"""From what a user names to what solves: names, classes, objects and functions."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor

from mapgrad.errors import MissingDependencyError, PluginError, UnknownSolverError, UnsupportedProblemError
from mapgrad.solvers._contract import BatchSolver, InstanceSolver, SolverSpec, Traits
from mapgrad.solvers._listing import all_offers, list_solvers, offers_for
from mapgrad.solvers._loading import AUTO, is_strict
from mapgrad.solvers._lowering import Lowering, lower
from mapgrad.solvers._offers import Offer, check_problem, check_traits, offers_of
from mapgrad.solvers._registry import REGISTRY
from mapgrad.solvers._specs import SolverClass, is_solver_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mapgrad.problems import Problem

SolverLike = str | SolverClass | InstanceSolver | BatchSolver | Callable[[Tensor], Tensor]

_QUICK: Final = 1e-2
"""Seconds a row, up to which ``"auto"`` takes a solver of the problem's own class before it makes a program of it."""

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class Recipe:
    """How to make a solver, here or in another process.

    Pickled, it keeps of the spec what isn't a function: what decides on a solver is no longer needed once it is chosen.

    Attributes:
        name: The solver's full name, or the name of the class or function.
        label: The name with the plugin's distribution and version, for messages.
        factory: The class, or the object itself.
        spec: What the plugin says of the solver; None for what didn't come by name.
    """

    name: str
    label: str
    factory: SolverClass | InstanceSolver | BatchSolver
    spec: SolverSpec | None = None

    def lowering(self, problem: Problem) -> Lowering:
        """Return how rows of a problem go to the solver, and how its answers come back."""
        if not isinstance(self.factory, type) and getattr(self.factory, "problem", problem) == problem:
            return Lowering(problem, problem)
        return lower(problem, self.spec and self.spec.accepts)

    def build(self, problem: Problem, options: Mapping[str, Any]) -> InstanceSolver | BatchSolver:
        """Make the solver of a problem, lowered to what it takes.

        Raises:
            TypeError: the solver has no such option; an object or a function takes none.
        """
        if isinstance(self.factory, type):
            return self.factory(self.lowering(problem).native, **options)
        if options:
            raise TypeError(
                f"{self.label} takes no options, got {', '.join(sorted(options))}: options go to a name or a class"
            )
        return self.factory

    def __reduce__(self) -> tuple[Any, ...]:
        spec = self.spec and replace(self.spec, supports=None, cost=None)
        return Recipe, (self.name, self.label, self.factory, spec)


class _FunctionSolver(BatchSolver):
    """A function θ [N, *shape] → z of the same shape, as a solver.

    By contract it returns the argmax; it may hold data of the batch's rows, so equal rows may have different answers.
    """

    traits = Traits(deterministic=False)

    def __init__(self, problem: Problem, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(problem)
        self._function = function

    def solve(self, theta: Tensor) -> Tensor:
        return self._function(theta)


def resolve(solver: SolverLike | Recipe, problem: Problem) -> Recipe:
    """Find the solver that a user asks for.

    Args:
        solver: A full name; a plugin's name, for the cheapest of its solvers that takes the problem; ``"auto"``, for
            the cheapest exact one of all plugins; a class derived from `InstanceSolver` or `BatchSolver`, or an object
            of such a class; or a function θ [N, *shape] → z, called with whole batches.
        problem: The feasible set.

    Raises:
        UnknownSolverError: there is no such name.
        PluginError: the plugin is broken or blocked, or its solver can't be loaded.
        MissingDependencyError: the solver needs a package that isn't installed.
        UnsupportedProblemError: the solver doesn't take this problem.
        TypeError: `solver` or `problem` has a wrong type.
    """
    check_problem(problem)
    if isinstance(solver, Recipe):
        return solver
    if isinstance(solver, str):
        return _cheapest_exact(problem) if solver == AUTO else _by_name(solver, problem)
    if is_solver_class(solver):
        name = solver.__qualname__
        check_traits(solver, name)
        return Recipe(name, name, solver)
    if isinstance(solver, InstanceSolver | BatchSolver):
        return _given_object(solver, problem)
    if callable(solver) and not isinstance(solver, type):
        name = getattr(solver, "__qualname__", type(solver).__qualname__)
        return Recipe(name, name, _FunctionSolver(problem, solver))
    raise TypeError(
        f"a solver is a name, {AUTO!r}, a class derived from InstanceSolver or BatchSolver, an object of such a class, "
        f"or a function from θ to z; got {solver!r}"
    )


def _given_object(solver: InstanceSolver | BatchSolver, problem: Problem) -> Recipe:
    name = type(solver).__qualname__
    check_traits(solver, name)
    if getattr(solver, "problem", problem) not in (problem, lower(problem, None).native):
        raise UnsupportedProblemError(f"this {name} was made for {solver.problem!r}, but is asked to solve {problem!r}")
    return Recipe(name, name, solver)


def _by_name(name: str, problem: Problem) -> Recipe:
    plugin_name, dot, own_name = name.partition(".")
    plugin = REGISTRY.plugin(plugin_name)
    if plugin is None:
        raise _unknown(name)
    offers = offers_of(plugin)
    if dot:
        offers = [offer for offer in offers if offer.spec.name == own_name]
        if not offers:
            raise _unknown(name)
    fitting = [offer for offer in offers if offer.refusal(problem) is None]
    if not fitting:
        raise _unsupported(name, offers, problem)
    installed = [offer for offer in fitting if not offer.missing()]
    if not installed:
        raise MissingDependencyError(_needs(fitting))
    return _recipe(_by_cost(installed, problem)[0])


def _cheapest_exact(problem: Problem) -> Recipe:
    inexact: list[str] = []
    for offer in _installed_for(problem):
        try:
            recipe = _recipe(offer)
        except (PluginError, MissingDependencyError) as error:
            if is_strict():
                raise
            _logger.warning("%r passes over a solver: %s", AUTO, error)
            continue
        if recipe.factory.traits.exact:
            _logger.info("%r: %r goes to %s", AUTO, problem, offer.label)
            return recipe
        inexact.append(offer.name)
    missing = [offer for offer in offers_for(problem) if offer.missing()]
    if missing:
        raise MissingDependencyError(f"no exact solver of {problem!r} is installed; these may do: {_needs(missing)}")
    heuristics = f"; heuristics, which must be named: {', '.join(inexact)}" if inexact else ""
    raise UnsupportedProblemError(f"no exact solver takes {problem!r}{heuristics}")


def _installed_for(problem: Problem) -> Iterator[Offer]:
    """Yield the installed offers that take a problem: quick ones of its own class first, then the rest, by cost."""
    installed = [offer for offer in all_offers() if not offer.missing()]
    own_class = [offer for offer in installed if isinstance(problem, offer.spec.accepts)]
    quick = [offer for offer in own_class if offer.seconds(problem) <= _QUICK]
    yield from (offer for offer in _by_cost(quick, problem) if offer.refusal(problem) is None)
    rest = [offer for offer in installed if offer not in quick]
    yield from (offer for offer in _by_cost(rest, problem) if offer.refusal(problem) is None)


def _by_cost(offers: Sequence[Offer], problem: Problem) -> list[Offer]:
    return sorted(offers, key=lambda offer: (offer.seconds(problem), offer.name))


def _recipe(offer: Offer) -> Recipe:
    return Recipe(offer.name, offer.label, offer.solver_class(), offer.spec)


def _needs(offers: Sequence[Offer]) -> str:
    return "; ".join(f"{offer.label} {offer.missing()}" for offer in offers)


def _unsupported(name: str, offers: Sequence[Offer], problem: Problem) -> UnsupportedProblemError:
    reasons = "; ".join(f"{offer.label}: {offer.refusal(problem)}" for offer in offers) or "its plugin offers no solver"
    able = sorted(offer.name for offer in offers_for(problem) if not offer.missing())
    return UnsupportedProblemError(
        f"{name!r} can't solve {problem!r}: {reasons}. Installed solvers that can: {', '.join(able) or 'none'}"
    )


def _unknown(name: str) -> UnknownSolverError:
    known = {AUTO}.union(*({info.name, info.plugin} for info in list_solvers()))
    lower = {each.lower(): each for each in sorted(known)}
    near = [lower[each] for each in difflib.get_close_matches(name.lower(), lower)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(sorted(known))}"
    return UnknownSolverError(f"no solver is named {name!r}; {hint}")
