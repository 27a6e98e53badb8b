"""Ctrl-C while an engine runs in the main thread: Python sees it only once the engine is back, a watcher stops it."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mapgrad.workers._locks import call_after_fork

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Runner

_PAUSE_MS: Final = 50
"""Between two calls of a solver's stop: the first may come just before the engine is ready to be stopped."""

_SHORT: Final = 1e-3
"""Seconds; an engine that was back earlier can't have swallowed an interrupt, but by a rare chance."""

_SWEEP: Final = b"\0"
"""Written by ourselves; no signal has the number zero."""

_CAN_WATCH: Final = hasattr(select, "poll")


def run(runner: Runner, block: Block) -> None:
    """Solve a block in the calling thread; in the main one, Ctrl-C stops a solver that can be stopped.

    Raises:
        KeyboardInterrupt: It came, and SIGINT has Python's own handler. Under another handler that returns, the block
            is solved all the same.
    """
    if not (runner.can_stop and _CAN_WATCH and threading.current_thread() is threading.main_thread()):
        runner.run(block)
        return
    while True:
        watch = _Watch(runner, _watcher.watch)
        try:
            _watcher.open(watch)
            began = time.perf_counter()
            runner.run(block, watch)
            if time.perf_counter() - began > _SHORT:
                _watcher.catch_up()
        finally:
            _watcher.watch = watch.outer  # first of all, before another interrupt can come
            _watcher.close(watch)
        if not watch.fired:
            _watcher.is_quiet = True
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise KeyboardInterrupt  # the engine swallowed that of the handler
        runner.restore(block)


class _Watch:
    """A run that SIGINT is to stop, and the run that it is a part of, where a solver asks another one."""

    __slots__ = ("_runner", "fired", "outer")

    def __init__(self, runner: Runner, outer: _Watch | None) -> None:
        self._runner = runner
        self.outer = outer
        self.fired = False

    def fire(self) -> None:
        self.fired = True
        self._runner.stop(self)


class _Watcher:
    """The thread that hears of signals through the wake-up descriptor, which C code writes to at once.

    Attributes:
        watch: The innermost run that is watched.
        is_quiet: Whether the last watch ended without an interrupt or an error.
    """

    def __init__(self) -> None:
        self.watch: _Watch | None = None
        self.is_quiet = True
        self._previous = -1
        self._is_reading = False
        self._swept = threading.Event()
        self._pipe: tuple[int, int] | None = None
        call_after_fork(self)

    def open(self, watch: _Watch) -> None:
        if self._pipe is None:
            self._pipe = self._start()
        if watch.outer is None and not self.is_quiet:
            self._sweep(self._pipe[1])
        self.is_quiet = False
        self.watch = watch
        previous = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if previous != self._pipe[1]:
            self._previous = previous

    def close(self, watch: _Watch) -> None:
        if watch.outer is None:
            signal.set_wakeup_fd(self._previous)

    def catch_up(self) -> None:
        """Wait until the thread has taken note of the signals that have come."""
        assert self._pipe is not None
        poll = _poll(self._pipe[0])
        while poll.poll(0) or self._is_reading:
            time.sleep(0)

    def _start(self) -> tuple[int, int]:
        pipe = os.pipe()
        os.set_blocking(pipe[1], False)
        threading.Thread(target=self._listen, args=(pipe[0],), name="mapgrad_interrupts", daemon=True).start()
        return pipe

    def _sweep(self, writing: int) -> None:
        """Wait until the thread has read what came in earlier watches, so that it doesn't stop the next one."""
        self._swept.clear()
        os.write(writing, _SWEEP)
        self._swept.wait()

    def _listen(self, reading: int) -> None:
        poll = _poll(reading)
        stopped: _Watch | None = None
        while True:
            if poll.poll(None if stopped is None else _PAUSE_MS):
                self._is_reading = True
                news = os.read(reading, 512)
                self._pass_on(news.replace(_SWEEP, b""))
                if signal.SIGINT in news:
                    stopped = self._outermost()
                    self._stop(stopped)
                if _SWEEP in news:
                    self._swept.set()
                self._is_reading = False
            elif stopped is self._outermost():
                self._stop(stopped)
            else:
                stopped = None

    def _pass_on(self, signals: bytes) -> None:
        """Write signals to the descriptor that was there before ours, such as an event loop's."""
        if self._previous >= 0 and signals:
            with suppress(OSError):
                os.write(self._previous, signals)

    def _outermost(self) -> _Watch | None:
        watch = self.watch
        while watch is not None and watch.outer is not None:
            watch = watch.outer
        return watch

    def _stop(self, outermost: _Watch | None) -> None:
        watch = self.watch
        while watch is not None and outermost is not None:
            watch.fire()
            watch = watch.outer

    def after_fork(self) -> None:
        """Leave the pipe to the parent: a child's signals must not stop the parent's solver."""
        if self._pipe is None:
            return
        previous = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self._previous if previous == self._pipe[1] else previous)
        for end in self._pipe:
            os.close(end)
        self.watch, self.is_quiet, self._is_reading, self._pipe = None, True, False, None
        self._swept = threading.Event()


def _poll(reading: int) -> select.poll:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return poll


_watcher: Final = _Watcher()
