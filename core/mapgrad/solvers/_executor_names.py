"""From a name or an object that users give as workers to what a plugin makes of it."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mapgrad.errors import MissingDependencyError, PluginError
from mapgrad.solvers._entries import Entry, imported
from mapgrad.solvers._executor_specs import ExecutorSpec
from mapgrad.solvers._loading import described
from mapgrad.solvers._registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solvers._loading import Plugin


@dataclass(frozen=True)
class ExecutorEntry(Entry[ExecutorSpec]):
    """One kind of executor of a plugin."""

    def start(self, argument: object) -> Executor:
        """Make the executor.

        Raises:
            ValueError: The argument isn't one that the plugin takes.
            PluginError: The executor can't be made, or isn't one.
        """
        try:
            factory: Any = imported(self.spec.factory) if isinstance(self.spec.factory, str) else self.spec.factory
            executor = factory(argument)
        except (ValueError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(f"{self.label} can't be started: that raised {described(error)}") from error
        if not isinstance(executor, Executor):
            raise PluginError(f"{self.label} must make a concurrent.futures.Executor, but made {executor!r}")
        return executor


def executor_named(text: str) -> Callable[[], Executor]:
    """Return what starts the executor that a user names; nothing is started yet.

    Args:
        text: The full name of a plugin's kind, and after a colon what it is to know.

    Raises:
        ValueError: There is no such name.
        MissingDependencyError: It needs a package that isn't installed.
        PluginError: The plugin is broken or blocked.
    """
    name, _, argument = text.partition(":")
    plugin = REGISTRY.plugin(name.partition(".")[0])
    entries = [] if plugin is None else executors_of(plugin)
    entry = next((entry for entry in entries if entry.name == name), None)
    if entry is None:
        raise ValueError(refusal_of_workers(text))
    missing = entry.missing()
    if missing:
        raise MissingDependencyError(f"{entry.label} {missing}")
    return partial(entry.start, argument)


def executor_behind(handle: object) -> Callable[[], Executor] | None:
    """Return what starts the executor that another library's object stands for; None if it stands for none.

    Args:
        handle: An object of a class that a plugin takes: one of ours, or one that is loaded.
    """
    kinds = {f"{each.__module__}.{each.__qualname__}" for each in type(handle).__mro__}
    entry = next((entry for entry in _all() if not kinds.isdisjoint(entry.spec.takes)), None)
    return None if entry is None else partial(entry.start, handle)


def refusal_of_workers(given: object) -> str:
    """Say what users may give as workers, where they gave something else."""
    texts = [f"{entry.spec.usage or entry.name} ({entry.missing() or 'installed'})" for entry in _all()]
    return (
        'workers must be None, a number of threads of at least 1, "processes:n", a concurrent.futures.Executor or what '
        f"a plugin makes one of, got {given!r}; there are {', '.join(texts) or 'none'}"
    )


def executors_of(plugin: Plugin) -> list[ExecutorEntry]:
    """Return the executors of a plugin; none as long as it isn't loaded."""
    return [ExecutorEntry(plugin, spec) for spec in plugin.result.executors] if plugin.result is not None else []


def _all() -> list[ExecutorEntry]:
    """List the executors of our plugins, and of those that are loaded: a typo must not run a third party's code."""
    return sorted((entry for plugin in REGISTRY.trusted() for entry in executors_of(plugin)), key=attrgetter("name"))
