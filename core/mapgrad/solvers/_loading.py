"""From entry points to plugins: which distribution claims which name, and the result of loading it.

Loading runs a plugin's code, and holds whatever that raises. It can't hold ``os._exit``, a crash or a module that never
comes back: then the last line on the logger ``mapgrad``, at level DEBUG, names the plugin.
MAPGRAD_BLOCK keeps it out, and MAPGRAD_ONLY all but those that it names.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from mapgrad.errors import PluginError
from mapgrad.solvers import _hookspecs
from mapgrad.solvers._specs import require_executor_specs, require_name, require_specs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from importlib import metadata

    from mapgrad.solvers._contract import SolverSpec
    from mapgrad.solvers._executor_specs import ExecutorSpec

GROUP: Final = "mapgrad"
AUTO: Final = "auto"

_OURS: Final = "mapgrad"
_SLOW: Final = 3.0  # seconds of loading, from which on a warning names the plugin

_logger = logging.getLogger("mapgrad")


@dataclass(frozen=True)
class EntryPointClaim:
    """A claim to a plugin name, by an entry point or by `register`.

    Attributes:
        load: Returns the plugin; imports its module.
        module: That module; empty if the program gave the plugin itself.
        distribution: The distribution with this entry point; empty if the program gave the plugin itself.
        version: Its version.
    """

    load: Callable[[], object]
    module: str = ""
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """The distribution with its version."""
        return f"{self.distribution} {self.version}".rstrip() or "registered by this program"

    @property
    def is_ours(self) -> bool:
        """Whether mapgrad's own distribution makes it."""
        return _normalized(self.distribution) == _OURS

    @property
    def is_being_imported(self) -> bool:
        """Whether this thread is running the code of the module, or of a package around it."""
        names = {*itertools.accumulate(self.module.split("."), "{}.{}".format)}
        frame = inspect.currentframe()
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in names:
                return True
            frame = frame.f_back
        return False


@dataclass(frozen=True)
class LoadResult:
    """What loading a plugin gave: the specs of its solvers and executors, or what is wrong with it; and the seconds."""

    status: Literal["ok", "broken", "blocked"]
    specs: tuple[SolverSpec, ...] = ()
    executors: tuple[ExecutorSpec, ...] = ()
    detail: str = ""
    cause: BaseException | None = None
    seconds: float = 0.0


@dataclass
class Plugin:
    """A plugin's name, the claims to it, and the result of loading it: None until it is looked up."""

    name: str
    claims: tuple[EntryPointClaim, ...]
    result: LoadResult | None = None

    @property
    def distribution(self) -> str:
        """The distributions that claim the name."""
        return ", ".join(claim.distribution for claim in self.claims)

    @property
    def version(self) -> str:
        """Their versions."""
        return ", ".join(claim.version for claim in self.claims)

    @property
    def is_registered(self) -> bool:
        """Whether the program itself brought it."""
        return not self.distribution

    @property
    def is_ours(self) -> bool:
        """Whether it comes with mapgrad."""
        return all(claim.is_ours for claim in self.claims)

    @property
    def origin(self) -> str:
        """The distributions, each with its version."""
        return _origins(self.claims)

    def error(self, result: LoadResult) -> PluginError:
        """Return the error to raise for a plugin that can't be used."""
        error = PluginError(f"plugin {self.name!r} ({self.origin}) is {result.status}: {result.detail}")
        error.__cause__ = result.cause
        return error


def _origins(claims: Sequence[EntryPointClaim]) -> str:
    return ", ".join(claim.origin for claim in claims)


def installed_plugins() -> dict[str, Plugin]:
    """Read the entry points of all that is installed, sorted by plugin name; import none of it."""
    claims: dict[str, list[EntryPointClaim]] = {}
    for name, claim in _claims():
        claims.setdefault(name, []).append(claim)
    return {name: Plugin(name, _valid_claims(name, claims[name])) for name in sorted(claims)}


def _claims() -> Iterator[tuple[str, EntryPointClaim]]:
    """Yield each plugin name with a claim to it.

    A distribution counts once, where an import would find it: in the first folder of sys.path that has it, so that an
    editable install seen twice doesn't clash with itself. Folders are listed in no order; where one holds two versions,
    as after an upgrade that was cut off, the later one counts.
    """
    from importlib import metadata  # takes longer to import than this package

    seen: set[str] = set()
    for folder in sys.path:
        here = metadata.distributions(path=[folder])
        found = [(_identity(each), entry_points) for each in here if (entry_points := _entry_points(each))]
        for (distribution, version), entry_points in sorted(found, key=itemgetter(0), reverse=True):
            if _normalized(distribution) in seen:
                continue
            seen.add(_normalized(distribution))
            for entry_point in entry_points:
                module = entry_point.value.partition(":")[0].strip()
                yield entry_point.name, EntryPointClaim(entry_point.load, module, distribution, version)


def _entry_points(distribution: metadata.Distribution) -> list[metadata.EntryPoint]:
    try:
        return list(dict.fromkeys(distribution.entry_points.select(group=GROUP)))
    except Exception as error:  # noqa: BLE001 (an unreadable file of one distribution must not hide the others)
        _logger.warning("the entry points of %s can't be read: %s", " ".join(_identity(distribution)), error)
        return []


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return a distribution's name and version, taken from its folder's name where it has no metadata."""
    try:
        name, version = distribution.name, distribution.version
    except Exception:  # noqa: BLE001 (what a missing file raises depends on Python's version)
        name, version = "", ""
    folder = PurePath(getattr(distribution, "_path", "unnamed")).stem.partition("-")
    return name or folder[0], version or folder[2]


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _valid_claims(name: str, claims: list[EntryPointClaim]) -> tuple[EntryPointClaim, ...]:
    """Return the claims that count, sorted: ours alone, if it is among them."""
    claims = sorted(claims, key=lambda claim: (_normalized(claim.distribution), claim.version))
    ours = [claim for claim in claims if claim.is_ours]
    others = [claim for claim in claims if not claim.is_ours]
    if ours and others:
        _logger.warning("plugin name %r belongs to %s: that of %s is ignored", name, _origins(ours), _origins(others))
    return tuple(ours or others)


def load_plugin(plugin: Plugin) -> LoadResult | None:
    """Load a plugin, and say so where it took long.

    Returns:
        None where the result can't be known yet: the plugin's module looks for solvers while it is being imported.
    """
    _logger.debug("loading plugin %r (%s)", plugin.name, plugin.origin)
    started = time.perf_counter()
    result = _load(plugin)
    seconds = time.perf_counter() - started
    if seconds >= _SLOW:
        advice = "" if plugin.is_registered else f"; MAPGRAD_BLOCK={plugin.name} keeps it out"
        _logger.warning("plugin %r (%s) took %.1f s to load%s", plugin.name, plugin.origin, seconds, advice)
    return result and replace(result, seconds=seconds)


def _load(plugin: Plugin) -> LoadResult | None:
    claim, *rivals = plugin.claims
    try:
        _require_plugin_name(plugin.name)
        if plugin.name in _names_in("MAPGRAD_BLOCK"):
            return LoadResult("blocked", detail="MAPGRAD_BLOCK names it")
        if not plugin.is_registered and plugin.name not in (_names_in("MAPGRAD_ONLY") or [plugin.name]):
            return LoadResult("blocked", detail="MAPGRAD_ONLY doesn't name it")
        if rivals:
            return LoadResult("broken", detail=f"{plugin.origin} claim the same name; uninstall all but one of them")
        return _ask(claim.load(), plugin.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever a plugin raises, SystemExit too, breaks this plugin alone)
        if claim.is_being_imported:
            return None
        return LoadResult("broken", detail=described(error), cause=error)


def described(error: BaseException) -> str:
    """Return what a plugin raised on one line; its text is a plugin's code too."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException as worse:  # noqa: BLE001 (see `_load`)
        text = f"its text can't be read, as that raised {type(worse).__name__}"
    return f"{type(error).__name__}: {text}"


def _require_plugin_name(name: Any) -> None:
    require_name(name)
    if name == AUTO:
        raise ValueError(f"{AUTO!r} asks for the cheapest exact solver and can't be a plugin's name")


def _ask(plugin: object, name: str) -> LoadResult:
    """Ask a plugin for its specs.

    Each plugin has a manager of its own, dropped at once: nothing that fails half-way leaves a trace in another's.
    """
    manager = pluggy.PluginManager(_hookspecs.PROJECT)
    manager.add_hookspecs(_hookspecs)
    manager.register(plugin, name)
    manager.check_pending()
    solvers = manager.hook.mapgrad_solvers.get_hookimpls()
    executors = manager.hook.mapgrad_executors.get_hookimpls()
    if not solvers and not executors:
        raise TypeError(f"{plugin!r} has no mapgrad_solvers() or mapgrad_executors() marked with @mapgrad.hookimpl")
    return LoadResult(
        "ok",
        specs=require_specs([spec for hook in solvers for spec in require_specs(hook.function())]),
        executors=require_executor_specs(
            [spec for hook in executors for spec in require_executor_specs(hook.function())]
        ),
    )


def _names_in(variable: str) -> list[str]:
    """Return the plugins' names in a variable of the environment, which are separated by commas."""
    return [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]


def warn_of_unknown(plugins: Collection[str]) -> None:
    """Log the names that MAPGRAD_BLOCK and MAPGRAD_ONLY have and none of the plugins, which switch nothing."""
    for variable in ("MAPGRAD_BLOCK", "MAPGRAD_ONLY"):
        for name in dict.fromkeys(_names_in(variable)):
            if name not in plugins:
                _logger.warning(
                    "%s names %r, and no plugin has that name: name plugins, as highs, not solvers, as highs.tsp",
                    variable,
                    name,
                )


def is_strict() -> bool:
    """Whether MAPGRAD_STRICT wants an error where a broken plugin would only be logged."""
    return os.environ.get("MAPGRAD_STRICT", "") not in ("", "0")
