"""CBC in a process of its own, which leaves nothing behind: neither files nor itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread, Timer
from typing import TYPE_CHECKING, Final, TypeVar

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from threading import Event

T = TypeVar("T")

_DESCRIPTORS: Final = Path("/proc/self/fd")
_GRACE: Final = 0.5  # seconds beyond its limit, after which CBC is killed
_OF_JOBS: Final = {getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")}
"""Signals that all processes of a job may be sent: one that comes as CBC starts, in our group still, ends it alone."""


class CbcProcess:
    """One run of CBC, which another thread may kill, also before it begins.

    On Linux the files are in memory, and the kernel kills CBC when this process ends, be it by SIGKILL; a child that
    was forked during the run counts as this process. On other systems the files are in a temporary folder, and CBC and
    they stay behind when this process is killed. Ctrl-C ends CBC before it goes on its way.

    Args:
        binary: Path of CBC's binary.
        stopped: Set before `kill` is called. While it is set, no process is started.
    """

    def __init__(self, binary: str, stopped: Event) -> None:
        self._binary = binary
        self._stopped = stopped
        self._process: subprocess.Popen[bytes] | None = None
        self._is_left = False

    def run(
        self,
        write: Callable[[str], object],
        read: Callable[[str], T],
        options: Iterable[str],
        deadline: float | None,
    ) -> T | None:
        """Solve a model.

        Args:
            write: Writes the model, in MPS format, to the path that it is given.
            read: Reads the solution, as CBC writes it, from the path that it is given.
            options: CBC's own, such as ``"presolve off"``.
            deadline: When CBC is to end, in terms of `time.monotonic`; None for no limit.

        Returns:
            What `read` returns; None where CBC was killed or had no time to start.

        Raises:
            SolverCrashError: CBC failed.
        """
        outcome: Future[T | None] = Future()

        def work() -> None:
            try:
                outcome.set_result(self._run(write, read, options, deadline))
            except BaseException as error:  # noqa: BLE001 (raised again by who waits for it)
                outcome.set_exception(error)

        thread = Thread(target=work)  # no signal reaches it between CBC's start and the care for its end
        try:
            thread.start()
            return outcome.result()
        except BaseException:
            self._is_left = True
            self.kill()
            if thread.is_alive():
                thread.join()
            raise

    def kill(self) -> None:
        """End CBC, if it runs; what it has found is lost."""
        if self._process is not None:
            self._process.kill()

    def _run(
        self,
        write: Callable[[str], object],
        read: Callable[[str], T],
        options: Iterable[str],
        deadline: float | None,
    ) -> T | None:
        with _files() as (model, solution, descriptors):
            write(str(model))
            words = [word for option in options for word in f"-{option}".split()]
            words += ["-solve", "-printingOptions", "all", "-solution", str(solution)]
            code = self._wait(model, words, descriptors, deadline)
            if code is not None and -code in _OF_JOBS:
                code = self._wait(model, words, descriptors, deadline)
            if code is None:
                return None
            is_late = deadline is not None and time.monotonic() >= deadline
            if self._stopped.is_set() or (code != 0 and is_late):
                return None
            if code != 0 or not solution.exists() or solution.stat().st_size == 0:
                raise mapgrad.SolverCrashError(
                    f"CBC ended with exit status {code} and without a solution: {self._binary} may lack memory or be "
                    "made for another machine"
                )
            return read(str(solution))

    def _wait(
        self, model: Path, words: Sequence[str], descriptors: Sequence[int], deadline: float | None
    ) -> int | None:
        """Run CBC to its end, or kill it when its time is long up; return its exit status, None if it didn't start."""
        seconds = None if deadline is None else deadline - time.monotonic()
        if self._stopped.is_set() or (seconds is not None and seconds <= 0):
            return None
        limit = [] if seconds is None else ["-timeMode", "elapsed", "-sec", str(seconds)]
        with ExitStack() as stack:
            lifeline = stack.enter_context(_lifeline())
            process = subprocess.Popen(
                [self._binary, model, *limit, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(*descriptors, *lifeline),
                process_group=0,  # Ctrl-C in a terminal is for this process alone
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            _tie(process, lifeline)
            self._process = process
            if self._stopped.is_set() or self._is_left:  # `kill` may have come before there was a process
                process.kill()
            if seconds is not None:
                timer = Timer(seconds + _GRACE, process.kill)
                timer.daemon = True
                timer.start()
                stack.callback(timer.cancel)
            return process.wait()


# PR_SET_PDEATHSIG would need code that runs between fork and exec, which isn't safe where there are threads. A pipe
# needs none: the kernel tells the owner of its reading end when the last writing end is closed, by any signal.


@contextmanager
def _lifeline() -> Iterator[tuple[int, ...]]:
    """Hold the writing end of a pipe, and yield the reading end; yield nothing where the kernel can't watch it."""
    if sys.platform != "linux":
        yield ()
        return
    reading, writing = os.pipe()
    try:
        yield (reading,)
    finally:
        os.close(reading)
        os.close(writing)


def _tie(process: subprocess.Popen[bytes], lifeline: tuple[int, ...]) -> None:
    """Have the kernel kill a process that inherited a lifeline once nobody holds its other end."""
    if sys.platform == "linux":
        import fcntl

        for reading in lifeline:
            fcntl.fcntl(reading, fcntl.F_SETOWN, process.pid)
            fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)


@contextmanager
def _files() -> Iterator[tuple[Path, Path, tuple[int, ...]]]:
    """Yield the paths of a model and a solution, and the descriptors that CBC must inherit to open them."""
    with ExitStack() as stack:
        if sys.platform == "linux" and _DESCRIPTORS.is_dir():
            model, solution = (os.memfd_create(name) for name in ("model", "solution"))
            stack.callback(os.close, model)
            stack.callback(os.close, solution)
            yield _DESCRIPTORS / str(model), _DESCRIPTORS / str(solution), (model, solution)
        else:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="mapgrad-")))
            yield folder / "model.mps", folder / "solution.txt", ()
