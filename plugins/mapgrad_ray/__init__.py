"""Plugin ``ray``: solvers' rows in Ray actors, which hold the native models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mapgrad

if TYPE_CHECKING:
    from mapgrad_ray._executor import RayExecutor


def executor(actors: int, **options: Any) -> RayExecutor:
    """Return an executor of Ray actors, for ``workers=``, which stays open until its ``shutdown()``.

    They are actors of the Ray that this program has initialised; else of the cluster that ``RAY_ADDRESS`` names or that
    runs on this machine; else of one that is started here. Workers need this package, and the packages that solvers
    need, but no torch.

    Args:
        actors: How many there are at most; those that Ray has started share the rows.
        options: Of each actor, as Ray's ``.options(…)`` takes them: ``num_cpus``, ``resources``, …. By default an actor
            takes one CPU, and none of a Ray that is started here.
    """
    from mapgrad_ray._executor import RayExecutor

    return RayExecutor(actors, **options)


@mapgrad.hookimpl
def mapgrad_executors() -> list[mapgrad.ExecutorSpec]:
    """Return this plugin's one kind of executor."""
    return [
        mapgrad.ExecutorSpec(
            name="ray",
            factory="mapgrad_ray._executor:from_text",
            requires=("ray",),
            install="pip install 'mapgrad[ray]'",
            usage='"ray:8"',
        )
    ]
