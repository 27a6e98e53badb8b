"""The deadline of a batch: what is left of it, and calls that can't be stopped, in a thread that is left behind."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TypeVar

import torch

from mapgrad.errors import SolveTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solvers import Block
    from mapgrad.workers import Job, Runner, Workers

_T = TypeVar("_T")

LONGEST: Final = threading.TIMEOUT_MAX / 2
"""Seconds, 24 days or 146 years, as the system has it; neither locks nor all engines take many more."""


class Clock:
    """What is left of a batch's deadline, for all the solves into which the batch was cut.

    Args:
        deadline: Seconds.
    """

    __slots__ = ("deadline", "left")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.left = min(deadline, LONGEST)

    def error(self) -> SolveTimeoutError:
        """Return why a row that isn't finished has no answer."""
        return SolveTimeoutError(f"the deadline of {self.deadline:g} s had passed before it was solved")

    def solve(self, workers: Workers, runner: Runner, job: Job, block: Block) -> None:
        """Have workers solve a block; rows that aren't finished in time fail.

        Args:
            workers: See `Workers.solve`, as for the others.
            runner: The solver, used in this process.
            job: The same for workers elsewhere.
            block: The rows.
        """
        if self.left <= 0:
            for row in range(len(block)):
                block.fail(row, self.error())
            return
        left = workers.solve(runner, job, block, self.left)
        is_late = any(isinstance(cause, SolveTimeoutError) for cause in block.causes.values())
        self.left = 0.0 if is_late or left is None else left

    def call(self, function: Callable[[], _T], device: torch.device) -> _T | None:
        """Return what a function returns, or raise what it raises; None where it takes too long.

        It runs in a thread of its own, as torch is set up in this one; on a GPU it ends with what it gave to it.

        Args:
            function: The function.
            device: Where it computes.
        """
        if self.left <= 0:
            return None
        found: list[_T] = []
        raised: list[BaseException] = []
        enter = thread_state(device)

        def run() -> None:
            try:
                with enter():
                    result = function()
                    if device.type == "cuda":
                        torch.cuda.current_stream(device).synchronize()
                    found.append(result)
            except BaseException as error:  # noqa: BLE001 (the caller's, whatever it is)
                raised.append(error)

        thread = threading.Thread(target=run, name="mapgrad_deadline", daemon=True)
        began = time.perf_counter()
        thread.start()
        thread.join(self.left)
        if raised:
            raise raised[0]
        self.left = self.left - (time.perf_counter() - began) if found else 0.0
        return found[0] if found else None


def thread_state(device: torch.device, stream: torch.cuda.Stream | None = None) -> Callable[[], ExitStack]:
    """Return what sets up another thread as torch is in this one, but without a graph, when it is entered there.

    Torch keeps for each thread its autocast, its inference mode, its default device, and which GPU and stream are
    current.

    Args:
        device: Where the thread computes.
        stream: Its stream; None for this thread's.
    """
    kind, default = device.type, torch.get_default_device()
    is_autocast, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    is_inference = torch.is_inference_mode_enabled()
    if kind == "cuda" and stream is None:
        stream = torch.cuda.current_stream(device)

    def enter() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(is_inference))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(kind, dtype, is_autocast))
        if default.type != "cpu":
            stack.enter_context(default)
        if stream is not None:
            stack.enter_context(torch.cuda.stream(stream))
        return stack

    return enter
