"""Answers that are worked out in a thread of their own while the caller goes on."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mapgrad.batching import thread_state
from mapgrad.workers._locks import call_after_fork
from mapgrad.workers._runner import stop_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.batching import Record
    from mapgrad.gradients._owner import Owner
    from mapgrad.gradients._pass import Pass
    from mapgrad.gradients.estimators import Forward

    Found = tuple[Tensor, Forward] | None

_latest: Final[weakref.WeakKeyDictionary[Owner, weakref.ref[Background]]] = weakref.WeakKeyDictionary()
"""What each layer began last, if somebody still waits for it or it hasn't ended."""

_PATIENCE: Final = 0.5
"""Seconds that the program's end waits for them, and again once it has stopped them: some engines crash that come back
while Python is ending."""

_PAUSE: Final = 0.02
"""Seconds between two stops: what is stopped may ask for more rows."""

_is_ending: Final = threading.Event()


class Pending:
    """A layer's answer to θ that is being worked out: what `MAPLayer.submit` returns."""

    def __init__(self, background: Background, finish: Callable[[], Tensor]) -> None:
        self._background = background
        self._finish = finish
        self._is_recorded = torch.is_grad_enabled()
        self._output: Tensor | None = None

    def done(self) -> bool:
        """Tell whether `result` wouldn't wait."""
        return self._background.is_done()

    def result(self) -> Tensor:
        """Wait for the answer and return it: what the layer's call would have returned, with its gradient.

        Raises:
            ShapeError, NonFiniteError, DomainError, RowsError: As the layer's call does, each time it is asked.
            RuntimeError: θ was written to in place since it was submitted.
        """
        if self._output is None:
            with torch.set_grad_enabled(self._is_recorded):
                self._output = self._finish()
        return self._output


class Background:
    """The forward pass of a layer in a thread of its own, begun when the layer's one before has ended.

    On a GPU it has a stream of its own, so that it waits for θ alone, and not for what the caller's stream is given
    meanwhile.

    Args:
        owner: The layer.
        pass_: The pass.
        theta: As for `Pass.forward`.
        record: Gets the answers, and the rows that failed.
    """

    def __init__(self, owner: Owner, pass_: Pass, theta: Tensor, record: Record) -> None:
        self._pass, self._theta, self._record = pass_, theta.detach(), record
        self._version = _version(self._theta)
        before = _latest.get(owner)
        self._before = None if before is None else before()
        self._found: Found = None
        self._error: BaseException | None = None
        self._stream: torch.cuda.Stream | None = None
        if theta.is_cuda:
            self._stream = torch.cuda.Stream(theta.device)
            self._stream.wait_stream(torch.cuda.current_stream(theta.device))
        self._enter = thread_state(theta.device, self._stream)
        self._turn = threading.Lock()  # taken by the thread, or by who gives it up
        self._ended = threading.Event()  # a join that Ctrl-C interrupts has Python take the thread for ended
        call_after_fork(self)
        try:
            _latest[owner] = weakref.ref(self)
            threading.Thread(target=self._run, name="mapgrad_submitted", daemon=True).start()
        except BaseException:  # Ctrl-C, which may come before or after the thread has begun
            if self._turn.acquire(blocking=False):
                _latest.pop(owner, None)
                if before is not None:
                    _latest[owner] = before
            raise

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            before, self._before = self._before, None
            if before is not None:
                before.wait()
            if _is_ending.is_set():
                return
            with self._enter():
                self._found = self._pass.forward(self._theta, self._record)
        except BaseException as error:  # noqa: BLE001 (the caller's, whatever it is)
            self._error = error
        finally:
            self._ended.set()

    def after_fork(self) -> None:
        """Have nobody wait for the parent's thread."""
        if not self._ended.is_set():
            self._error = RuntimeError(
                "θ was being solved when this process was forked, in a thread that its parent alone has: ask for "
                "result() before the fork, or submit θ in this process"
            )
        self._ended = threading.Event()
        self._ended.set()

    def is_done(self) -> bool:
        """Tell whether it has ended."""
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        self._ended.wait(seconds)

    def found(self) -> Found:
        """Wait for what `Pass.forward` returns, or raise what it raised."""
        self._ended.wait()
        if _version(self._theta) != self._version:
            raise RuntimeError(
                "θ was written to while it was being solved, so that which θ was is unknown: submit a clone, as in "
                "layer.submit(theta.clone()), or write to it after result()"
            )
        if self._error is not None:
            raise self._error
        if self._stream is not None and self._found is not None:
            self._hand_over(self._stream, *self._found)
        return self._found

    def _hand_over(self, stream: torch.cuda.Stream, output: Tensor, forward: Forward) -> None:
        here = torch.cuda.current_stream(self._theta.device)
        here.wait_stream(stream)
        self._theta.record_stream(stream)
        kept = *forward.state, *forward.sampler.kept
        for tensor in (output, forward.theta, forward.z, forward.rows, forward.status, *kept):
            if tensor is not None and tensor.is_cuda:
                tensor.record_stream(here)


def _version(theta: Tensor) -> int:
    """Return how often θ was written to in place, which torch doesn't count of inference tensors."""
    return 0 if theta.is_inference() else theta._version  # noqa: SLF001 (torch documents it for this use)


@atexit.register
def _end() -> None:
    left = [running for latest in _latest.values() if (running := latest()) is not None]
    deadline = time.monotonic() + _PATIENCE
    for running in left:
        running.wait(max(0.0, deadline - time.monotonic()))
    _is_ending.set()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and (left := [running for running in left if not running.is_done()]):
        stop_all()
        left[0].wait(_PAUSE)
