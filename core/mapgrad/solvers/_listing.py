"""What users are told about solvers."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mapgrad.errors import MapgradError
from mapgrad.solvers._entries import SolverEntry, entries_of, require_problem
from mapgrad.solvers._loading import warn_of_unknown
from mapgrad.solvers._registry import REGISTRY

if TYPE_CHECKING:
    from mapgrad.problems import Problem
    from mapgrad.solvers._contract import Traits
    from mapgrad.solvers._loading import Plugin

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class SolverInfo:
    """What is known of a solver, or of a plugin whose solvers aren't known.

    Attributes:
        name: The full name: ``plugin.solver``, or ``plugin`` where both names are the same or the plugin's solvers
            aren't known.
        plugin: The plugin's name.
        distribution: Where the plugin comes from; several, separated by commas, where they use one name; empty for a
            plugin that the program registered.
        version: The distribution's version, or the distributions' versions.
        status: ``"ok"``; ``"missing"``: a package that the solver needs isn't installed; ``"broken"``: the plugin can't
            be loaded; ``"blocked"``: MAPGRAD_BLOCK names the plugin, or MAPGRAD_ONLY names others.
        accepts: Problem classes that the solver takes.
        detail: Why it can't be used and what to do; empty if it can.
        cost: Seconds a row that the solver declares for the problem that was asked for, by which ``"auto"`` chooses;
            infinite where it declares none for it, NaN where no problem was given.
        seconds: How long the plugin took to load; from three seconds on, a warning on the logger ``mapgrad`` names it.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    status: Literal["ok", "missing", "broken", "blocked"]
    accepts: tuple[type[Problem], ...] = ()
    detail: str = ""
    cost: float = field(default=math.nan, compare=False)
    seconds: float = field(default=0.0, repr=False, compare=False)
    _entry: SolverEntry | None = field(default=None, repr=False, compare=False)

    @property
    def traits(self) -> Traits | None:
        """What the solver's class promises; imports it. None where that can't be done.

        An object may promise more or less, by its options and its base: ask `get_solver(…).traits`.
        """
        if self._entry is None or self.status != "ok":
            return None
        try:
            return self._entry.solver_class().traits
        except MapgradError as error:
            _logger.warning("%s", error)
            return None


def list_solvers(problem: Problem | None = None) -> list[SolverInfo]:
    """List the solvers of all plugins, which this loads: whatever one of them raises breaks that one alone.

    What ends the process or never comes back, ``os._exit`` for one, can't be held: the logger ``mapgrad`` names each
    plugin at level DEBUG before it is loaded. MAPGRAD_BLOCK keeps out the plugins that it names, MAPGRAD_ONLY all
    installed ones but those that it names, with commas between the names: none of their code runs. A list of all
    solvers warns, on that logger, of names that no plugin has.

    Args:
        problem: List only solvers that take this problem; None lists all, and plugins that can't be used too.

    Returns:
        One entry a solver, and one for each plugin whose solvers aren't known, sorted by name.

    Raises:
        TypeError: `problem` isn't a `Problem`.
        PluginError: a plugin is broken and MAPGRAD_STRICT is set.
    """
    if problem is None:
        plugins = REGISTRY.plugins()
        infos = [info for plugin in plugins for info in _describe(plugin)]
        warn_of_unknown({plugin.name for plugin in plugins})
    else:
        infos = [_describe_entry(entry, entry.seconds(problem)) for entry in entries_for(problem)]
    return sorted(infos, key=lambda info: info.name)


def all_entries() -> list[SolverEntry]:
    """Load all plugins and return their solvers, whether or not the packages that these need are installed."""
    return [entry for plugin in REGISTRY.plugins() for entry in entries_of(plugin)]


def entries_for(problem: Problem) -> list[SolverEntry]:
    """Return the solvers that take a problem, whether or not the packages that they need are installed."""
    require_problem(problem)
    return [entry for entry in all_entries() if entry.refusal(problem) is None]


def trusted_entries_for(problem: Problem) -> list[SolverEntry]:
    """Return what `entries_for` does, but load no third party's plugin for it: those count that are loaded already."""
    require_problem(problem)
    entries = [entry for plugin in REGISTRY.trusted() for entry in entries_of(plugin)]
    return [entry for entry in entries if entry.refusal(problem) is None]


def _describe(plugin: Plugin) -> list[SolverInfo]:
    result = plugin.result
    if result is None or result.status == "ok":
        return [_describe_entry(entry) for entry in entries_of(plugin)]
    return [
        SolverInfo(
            name=plugin.name,
            plugin=plugin.name,
            distribution=plugin.distribution,
            version=plugin.version,
            status=result.status,
            detail=result.detail,
            seconds=result.seconds,
        )
    ]


def _describe_entry(entry: SolverEntry, cost: float = math.nan) -> SolverInfo:
    plugin, missing = entry.plugin, entry.missing()
    return SolverInfo(
        name=entry.name,
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        status="missing" if missing else "ok",
        accepts=entry.spec.accepts,
        detail=missing,
        cost=cost,
        seconds=0.0 if plugin.result is None else plugin.result.seconds,
        _entry=entry,
    )
