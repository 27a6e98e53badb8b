"""A Dask cluster as an executor."""

# its package isn't among the extra `all`, so that it is often not there
# pyright: reportMissingImports=false

from __future__ import annotations

import threading
import time
from concurrent.futures import BrokenExecutor, Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import dask.config
from distributed import Client, LocalCluster, secede

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_LOOK: Final = 0.5
"""Seconds between looks at the client while calls are open: some of them get no answer once it is closed."""

_FRESH: Final = 1.0
"""Seconds for which the number of workers is believed."""


class DaskExecutor(Executor):
    """Calls of this program on the workers of a Dask cluster; see `mapgrad_dask.executor`.

    A call isn't known by its content, as Dask's own executor would have it, so that one that is tried again runs again.
    """

    def __init__(self, client: Client | str | int) -> None:
        self._cluster: LocalCluster | None = None
        if isinstance(client, int):
            # a call that has cost a worker is given back at once, for its caller to find the row at fault
            with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                self._cluster = LocalCluster(n_workers=client, threads_per_worker=1, dashboard_address=":0")
        self._is_ours = not isinstance(client, Client)
        self._client: Any = client
        if not self._is_ours and self._client.asynchronous:
            raise ValueError(f"expected a client that waits for answers, not one of asynchronous=True, got {client!r}")
        if self._is_ours:
            self._client = Client(self._cluster or client, set_as_default=False)
        self._executor: Executor = self._client.get_executor(pure=False)
        self._lock = threading.Lock()
        self._is_open = True
        self._opening = threading.Lock()
        self._counted = (-_FRESH, 1)
        self._calls: set[Future[Any]] = set()
        self._has_calls = threading.Event()
        threading.Thread(target=self._watch, name="mapgrad_dask", daemon=True).start()

    @property
    def _broken(self) -> bool:
        """Whether the client is closed, by the program or as it found its scheduler no more."""
        return self._client.status not in ("running", "connecting")

    @property
    def _max_workers(self) -> int:
        """How many calls the cluster's workers take at a time, as the scheduler says now."""
        with self._lock:
            now = time.monotonic()
            if now - self._counted[0] >= _FRESH:
                count = self._counted[1]
                if self._client.status == "running":
                    with suppress(Exception):  # the scheduler is gone or slow, as the calls will tell
                        threads: dict[str, int] = self._client.nthreads(callback_timeout=_FRESH)
                        count = max(1, sum(threads.values()))
                self._counted = time.monotonic(), count
            return self._counted[1]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call a function; in a task of the cluster, whose place others may take from now on."""
        with suppress(ValueError, AttributeError, KeyError):  # this is no task, or has given its place away
            secede()
        with self._opening:  # so that `shutdown` waits for each call that was taken
            if not self._is_open:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._broken:
                raise BrokenExecutor("the Dask client is closed, or has lost its scheduler for good")
            call = self._executor.submit(fn, *args, **kwargs)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self._has_calls.set()
        return call

    def _watch(self) -> None:
        """Cancel calls that are open when the client is closed."""
        while True:
            self._has_calls.wait()
            if not self._is_open and not self._calls:
                return
            time.sleep(_LOOK)
            if not self._calls and self._is_open:
                self._has_calls.clear()
            elif self._broken:
                for call in list(self._calls):
                    call.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; close what was started here."""
        with self._opening:
            self._is_open = False
        self._has_calls.set()
        if not self._broken:
            self._executor.shutdown(wait=wait and not cancel_futures)
        if self._is_ours:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def executor_of(text: Client | str) -> DaskExecutor:
    """Return the executor that users name as ``"dask:4"`` or ``"dask:tcp://host:port"``, or give as a client.

    Raises:
        ValueError: There is neither a number nor an address, or the client doesn't wait for answers.
    """
    if isinstance(text, Client):
        return DaskExecutor(text)
    if text.isdecimal() and int(text) > 0:
        return DaskExecutor(int(text))
    if ":" not in text:
        raise ValueError(
            f'expected a number of processes or a scheduler\'s address, as in "dask:4" and "dask:tcp://host:8786", '
            f'got "dask:{text}"'
        )
    return DaskExecutor(text)
