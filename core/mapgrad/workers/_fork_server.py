"""Where worker processes come from: a small process without torch and the user's script, which forks them."""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
import weakref
from contextlib import suppress
from typing import Any, Final, NamedTuple

from mapgrad.workers._locks import call_after_fork, without_forks
from mapgrad.workers._messages import receive, send

_STATUS: Final = struct.Struct("!i")
_DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG."""

_FILES: Final = 2
"""Descriptors that come with an order: the worker's socket, and the pipe by which its end is told."""

_PATIENCE: Final = 5.0
"""Seconds to wait until a dead worker's exit status is known."""

_SENT_TO_ALL: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""What terminals, schedulers and launchers send to all processes of a job: who asks decides what it means."""

_START: Final = (
    "import signal, sys; [signal.signal(number, signal.SIG_IGN) for number in {ignored}]; sys.path[:] = {path!r}; "
    "from mapgrad.workers._fork_server import serve_forks; serve_forks({file})"
)


def import_path() -> list[str]:
    """Return `sys.path` without what importing passes over, such as paths of `pathlib`."""
    return [entry for entry in sys.path if isinstance(entry, str)]  # pyright: ignore[reportUnnecessaryIsInstance] (a user's)


class Worker(NamedTuple):
    """A worker process.

    Attributes:
        socket: The way to it and back.
        status: Descriptor from which its exit status can be read once it has ended.
    """

    socket: socket.socket
    status: int

    def end_of(self) -> str:
        """Wait until the process has ended and say how it did."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.status, selectors.EVENT_READ)
            data = os.read(self.status, _STATUS.size) if selector.select(_PATIENCE) else b""
        if len(data) < _STATUS.size:
            return "ended"
        (status,) = _STATUS.unpack(data)
        if status < 0:
            return f"can't be forked ({os.strerror(-status)})"
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed by {name}"

    def close(self) -> None:
        """Let go of the process; an idle one ends."""
        self.socket.close()
        os.close(self.status)


class ForkServer:
    """The process that forks workers; started by the first of them, and begun anew if it has ended."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._ending: weakref.finalize[[socket.socket, subprocess.Popen[bytes]], ForkServer] | None = None
        call_after_fork(self)

    def fork(self) -> Worker:
        """Return a new worker process, which runs `mapgrad.workers._child.serve`."""
        with without_forks():
            ours, theirs = socket.socketpair()
            status, their_status = os.pipe()
            try:
                try:
                    send(self._running(), None, (theirs.fileno(), their_status))
                except OSError:
                    self._forget()
                    send(self._running(), None, (theirs.fileno(), their_status))
            except BaseException:
                Worker(ours, status).close()
                raise
            finally:
                theirs.close()
                os.close(their_status)
            return Worker(ours, status)

    def _running(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            with theirs:
                ignored = [int(getattr(signal, name)) for name in _SENT_TO_ALL if hasattr(signal, name)]
                start = _START.format(ignored=ignored, path=import_path(), file=theirs.fileno())
                command = [sys.executable, "-c", start]
                process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            self._socket = ours
            self._ending = weakref.finalize(self, _end, ours, process)
        return self._socket

    def _forget(self) -> None:
        if self._ending is not None:
            self._ending()
        self._socket = self._ending = None

    def after_fork(self) -> None:
        """Leave the server to the parent: it must see that nobody has its socket open once the parent is gone."""
        if self._ending is not None and (kept := self._ending.detach()) is not None:
            _, _, (ours, process), _ = kept
            ours.close()
            process.returncode = 0  # not ours to wait for
        self._socket = self._ending = None


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)


# -- in the server


def serve_forks(file: int) -> None:
    """Fork a worker for each message, tell how each one ended, and end with the process that asks.

    Args:
        file: Descriptor of the socket.
    """
    from mapgrad.workers import _child

    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _do_nothing)  # the descriptor wakes us
    statuses: dict[int, int] = {}
    gc.freeze()
    with socket.socket(fileno=file) as orders, selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                _tell_ends(statuses, woken)
            if orders not in ready:
                continue
            try:
                _, files = receive(orders)
            except (EOFError, OSError):
                return
            if len(files) < _FILES:  # too many are open here; that these are closed tells who asks
                for each in files:
                    os.close(each)
                continue
            to_parent, status = files
            server = os.getpid()
            try:
                pid = os.fork()
            except OSError as error:  # too many processes, say: those that are there go on
                os.write(status, _STATUS.pack(-(error.errno or 0)))
                os.close(to_parent)
                os.close(status)
                continue
            if pid == 0:
                try:
                    _become_worker(server, [orders.detach(), woken, wake, status, *statuses.values()])
                    _child.serve(socket.socket(fileno=to_parent))
                except BaseException:  # noqa: BLE001 (nothing may go on as the server)
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            os.close(to_parent)
            statuses[pid] = status


def _do_nothing(*_: object) -> None: ...


def _tell_ends(statuses: dict[int, int], woken: int) -> None:
    with suppress(BlockingIOError):
        while os.read(woken, 512):
            pass
    while statuses:
        pid, how = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status = statuses.pop(pid, None)
        if status is not None:
            with suppress(OSError):
                os.write(status, _STATUS.pack(how))
            os.close(status)


def _become_worker(server: int, files: list[int]) -> None:
    """Leave what is the server's; on Linux, die with it at once, whatever the worker is at."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for file in files:
        os.close(file)
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None)
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(0)


fork_server: Final = ForkServer()
