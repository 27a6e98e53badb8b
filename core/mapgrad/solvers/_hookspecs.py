"""The hooks, and the marker by which plugins answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.solvers._contract import SolverSpec
    from mapgrad.solvers._executor_specs import ExecutorSpec

PROJECT: Final = "mapgrad"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's `mapgrad_solvers` and `mapgrad_executors`."""


@hookspec
def mapgrad_solvers() -> Sequence[SolverSpec]:
    """Return the plugin's solvers: a list or tuple of `SolverSpec`.

    It is called when the plugin is first looked up, perhaps by several threads at once, and must not import a solver's
    package: a spec names its class as ``"module:Class"``, which is imported once the solver is used.
    """
    raise NotImplementedError


@hookspec
def mapgrad_executors() -> Sequence[ExecutorSpec]:
    """Return the plugin's kinds of executors: a list or tuple of `ExecutorSpec`; called as `mapgrad_solvers` is."""
    raise NotImplementedError
