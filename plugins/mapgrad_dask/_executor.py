"""A Dask cluster as an executor."""

# its package isn't among the extra `all`, so that it is often not there
# pyright: reportMissingImports=false

from __future__ import annotations

import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dask.config
from distributed import Client, LocalCluster, SpecCluster, secede

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK: Final = 0.5
"""Seconds between looks at the client while calls are open: some of them get no answer once it is closed."""

_FRESH: Final = 1.0
"""Seconds for which the number of workers is believed."""


class _Local(LocalCluster):
    """A cluster of this machine that keeps its workers, however many rows kill them.

    `SpecCluster` gives a worker up for good that isn't there 15 seconds after one of its place has died, though its
    nanny may just be starting the next.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        super(SpecCluster, self)._update_worker_status(op, msg)


class DaskExecutor(Executor):
    """Calls of this program on the workers of a Dask cluster; see `mapgrad_dask.executor`.

    A call isn't known by its content, as Dask's own executor would have it, so that one that is tried again runs again.
    Nor is its outcome lost, as there, where a worker dies with an answer that nobody has fetched yet.
    """

    def __init__(self, client: Client | str | int) -> None:
        self._cluster: LocalCluster | None = None
        if isinstance(client, int):
            # a call that has cost a worker is given back at once, for its caller to find the row at fault
            with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                self._cluster = _Local(n_workers=client, threads_per_worker=1, dashboard_address=":0")
        self._is_ours = not isinstance(client, Client)
        self._client: Any = client
        if not self._is_ours and self._client.asynchronous:
            raise ValueError(f"expected a client that waits for answers, not one of asynchronous=True, got {client!r}")
        if self._is_ours:
            self._client = Client(self._cluster or client, set_as_default=False)
        self._lock = threading.Lock()
        self._is_open = True
        self._opening = threading.Lock()
        self._counted = (-_FRESH, 1)
        self._calls: set[Future[Any]] = set()
        self._is_watched = False

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
            task = self._client.submit(fn, *args, pure=False, **kwargs)
            call: Future[Any] = Future()
            self._calls.add(call)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="mapgrad_dask", daemon=True).start()
        call.add_done_callback(self._calls.discard)
        call.add_done_callback(partial(_give_up, task))
        self._client.loop.add_callback(_follow, task, call)
        return call

    def _watch(self) -> None:
        """Cancel the calls that are open once the client is closed; end with the last of them."""
        while True:
            time.sleep(_LOOK)
            with self._opening:
                calls = list(self._calls)
                if not calls:
                    self._is_watched = False
                    return
            if self._broken:
                for call in calls:
                    call.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; close what was started here."""
        with self._opening:
            self._is_open = False
            calls = list(self._calls)
        if wait and not cancel_futures:
            wait_for(calls)
        else:
            for call in calls:
                call.cancel()
        if self._is_ours:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _give_up(task: Any, call: Future[Any]) -> None:
    """Cancel the task of a call that was cancelled."""
    if call.cancelled() and not task.cancelled():
        with suppress(Exception):  # the client is closed
            task.cancel()


async def _follow(task: Any, call: Future[Any]) -> None:
    """Give a call what comes of its task; in the client's event loop."""
    answer, error = None, None
    try:
        answer = await task
    except BaseException as raised:  # noqa: BLE001 (the call's own, or what cost it)
        error = raised
    if task.cancelled():
        call.cancel()
    if not call.set_running_or_notify_cancel():
        return
    if error is None:
        call.set_result(answer)
    else:
        call.set_exception(error)


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
