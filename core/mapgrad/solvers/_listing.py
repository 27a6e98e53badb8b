"""What users are told about solvers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mapgrad.errors import MapgradError
from mapgrad.solvers._offers import Offer, check_problem, offers_of
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
        distribution: Where the plugin comes from; several, separated by commas, where they claim one name; empty for a
            plugin that the program registered.
        version: The distribution's version, or the distributions' versions.
        status: ``"ok"``; ``"missing"``: a package that the solver needs isn't installed; ``"broken"``: the plugin can't
            be loaded; ``"blocked"``: MAPGRAD_BLOCK names the plugin.
        accepts: Problem classes that the solver takes.
        detail: Why it can't be used and what to do; empty if it can.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    status: Literal["ok", "missing", "broken", "blocked"]
    accepts: tuple[type[Problem], ...] = ()
    detail: str = ""
    _offer: Offer | None = field(default=None, repr=False, compare=False)

    @property
    def traits(self) -> Traits | None:
        """What the solver promises about itself; imports its class. None where that can't be done."""
        if self._offer is None or self.status != "ok":
            return None
        try:
            return self._offer.solver_class().traits
        except MapgradError as error:
            _logger.warning("%s", error)
            return None


def list_solvers(problem: Problem | None = None) -> list[SolverInfo]:
    """List the solvers of all plugins.

    Args:
        problem: List only solvers that take this problem; None lists all, and plugins that can't be used too.

    Returns:
        One entry a solver, and one for each plugin whose solvers aren't known, sorted by name.

    Raises:
        TypeError: `problem` is no problem.
        PluginError: a plugin is broken and MAPGRAD_STRICT is set.
    """
    if problem is None:
        infos = [info for plugin in REGISTRY.plugins() for info in _describe(plugin)]
    else:
        infos = [_describe_offer(offer) for offer in offers_for(problem)]
    return sorted(infos, key=lambda info: info.name)


def all_offers() -> list[Offer]:
    """Load all plugins and return their offers, installed or not."""
    return [offer for plugin in REGISTRY.plugins() for offer in offers_of(plugin)]


def offers_for(problem: Problem) -> list[Offer]:
    """Return the offers that take a problem, installed or not."""
    check_problem(problem)
    return [offer for offer in all_offers() if offer.refusal(problem) is None]


def _describe(plugin: Plugin) -> list[SolverInfo]:
    fate = plugin.fate
    if fate is None or fate.status == "ok":
        return [_describe_offer(offer) for offer in offers_of(plugin)]
    return [SolverInfo(plugin.name, plugin.name, plugin.distribution, plugin.version, fate.status, (), fate.detail)]


def _describe_offer(offer: Offer) -> SolverInfo:
    plugin, missing = offer.plugin, offer.missing()
    return SolverInfo(
        name=offer.name,
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        status="missing" if missing else "ok",
        accepts=offer.spec.accepts,
        detail=missing,
        _offer=offer,
    )
