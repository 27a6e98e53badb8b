"""Plugin ``dask``: solvers' rows on a Dask cluster, one that is there or one that is started on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mapgrad

if TYPE_CHECKING:
    from distributed import Client  # pyright: ignore[reportMissingImports]  (it isn't among `all`)

    from mapgrad_dask._executor import DaskExecutor


def executor(client: Client | str | int) -> DaskExecutor:
    """Return an executor on a Dask cluster, for ``workers=``, which stays open until its ``shutdown()``.

    Workers need this package, and the packages that solvers need, but no torch.

    Args:
        client: A `distributed.Client`, which stays open then, too; a scheduler's address, such as
            ``"tcp://host:8786"``; or a number of worker processes to start on this machine.
    """
    from mapgrad_dask._executor import DaskExecutor

    return DaskExecutor(client)


@mapgrad.hookimpl
def mapgrad_executors() -> list[mapgrad.ExecutorSpec]:
    """Return this plugin's one kind of executor."""
    return [
        mapgrad.ExecutorSpec(
            name="dask",
            factory="mapgrad_dask._executor:executor_of",
            takes=("distributed.client.Client",),
            requires=("dask", "distributed"),
            install="pip install 'mapgrad[dask]'",
            usage='"dask:4", "dask:tcp://host:port" or a distributed.Client',
        )
    ]
