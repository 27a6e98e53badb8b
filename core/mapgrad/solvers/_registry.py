"""Which plugins there are: the installed ones, and those that the program brings."""

from __future__ import annotations

import logging
import threading
from typing import Final

from mapgrad.errors import PluginError, UnknownSolverError
from mapgrad.solvers._loading import EntryPointClaim, Plugin, installed_plugins, is_strict, load_plugin

_logger = logging.getLogger("mapgrad")


class Registry:
    """The plugins of this process: the installed ones, read on the first look-up, and those the program registers.

    The lock guards the tables and is never held while a plugin's code runs. Threads that look up the same plugin import
    it as they would import any module, and what the first of them finds counts. Under a lock, the look-up of one thread
    could wait for an import by another, whose module waits for a look-up.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._table: dict[str, Plugin] | None = None

    def known(self) -> list[Plugin]:
        """Return all plugins, sorted by name, and load none."""
        with self._lock:
            return [plugin for _, plugin in sorted(self._plugins().items())]

    def plugins(self) -> list[Plugin]:
        """Load all plugins; sorted by name.

        Raises:
            PluginError: a plugin is broken and MAPGRAD_STRICT is set.
        """
        plugins = self.known()
        for plugin in plugins:
            self._load(plugin)
            if plugin.result is not None and plugin.result.status == "broken" and is_strict():
                raise plugin.error(plugin.result)
        return plugins

    def trusted(self) -> list[Plugin]:
        """Load our own plugins, and return all that are loaded; sorted by name."""
        plugins = self.known()
        for plugin in plugins:
            if plugin.is_ours:
                self._load(plugin)
        return [plugin for plugin in plugins if plugin.result is not None]

    def plugin(self, name: str) -> Plugin | None:
        """Load one plugin; None if there is none of this name.

        Raises:
            PluginError: it can't be used.
        """
        with self._lock:
            plugin = self._plugins().get(name)
        if plugin is None:
            return None
        self._load(plugin)
        if plugin.result is None:
            raise PluginError(f"plugin {name!r} ({plugin.origin}) is being imported: look it up when that is done")
        if plugin.result.status != "ok":
            raise plugin.error(plugin.result)
        return plugin

    def register(self, plugin: object, name: str) -> None:
        """See `mapgrad.register`."""
        newcomer = Plugin(name, (EntryPointClaim(load=lambda: plugin),))
        newcomer.result = load_plugin(newcomer)
        if newcomer.result is not None and newcomer.result.status == "broken":
            raise newcomer.error(newcomer.result)
        with self._lock:
            holder = self._plugins().setdefault(name, newcomer)
        if holder is not newcomer:
            raise PluginError(f"plugin name {name!r} is taken ({holder.origin}): register under another name")

    def unregister(self, name: str) -> None:
        """See `mapgrad.unregister`."""
        with self._lock:
            plugin = self._plugins().get(name)
            if plugin is None:
                raise UnknownSolverError(f"no plugin is registered as {name!r}")
            if not plugin.is_registered:
                raise PluginError(
                    f"plugin {name!r} ({plugin.origin}) is installed, not registered by this program: set "
                    f"MAPGRAD_BLOCK={name} to switch it off"
                )
            del self._plugins()[name]

    def _plugins(self) -> dict[str, Plugin]:
        with self._lock:
            if self._table is None:
                self._table = installed_plugins()
            return self._table

    def _load(self, plugin: Plugin) -> None:
        if plugin.result is not None:
            return
        result = load_plugin(plugin)
        with self._lock:
            is_first = plugin.result is None
            if is_first:
                plugin.result = result
        if is_first and result is not None and result.status == "broken" and not is_strict():
            _logger.warning("%s", plugin.error(result))


REGISTRY: Final = Registry()


def register(plugin: object, name: str) -> None:
    """Register a plugin that has no entry point.

    Args:
        plugin: A module, a class or any object with a `mapgrad_solvers` or `mapgrad_executors` that is marked with
            `mapgrad.hookimpl`.
        name: The plugin's name, free until now: entry points keep theirs.

    Raises:
        PluginError: the name is taken or can't be a name, or the plugin is broken; the cause is chained.
    """
    REGISTRY.register(plugin, name)


def unregister(name: str) -> None:
    """Forget a plugin that was registered with `register`; solvers already made go on working.

    Raises:
        UnknownSolverError: no plugin has this name.
        PluginError: the plugin was found by its entry point; MAPGRAD_BLOCK switches such plugins off.
    """
    REGISTRY.unregister(name)
