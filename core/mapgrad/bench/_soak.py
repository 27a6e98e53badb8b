"""Suite `soak`: what memory, processes and files become in a long run in which a row in a hundred fails."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.batching import get_solver
from mapgrad.bench._faulty import DIES, RAISES, crews, faulty
from mapgrad.bench._machine import processes, status_bytes
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.gradients import IMLE, Step
from mapgrad.layer import MAPLayer
from mapgrad.problems import KSubset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mapgrad.bench._clock import Effort

_ROWS: Final = 64
_ENTRIES: Final = 16
_FAILING: Final = 0.01
_KILLING: Final = 0.02  # of the failing rows, where workers are processes
_SAMPLES: Final = 24
_WARM_UP: Final = 0.1  # of the time: allocators grow at first
_MEBIBYTE: Final = 2**20


def soaked(case: str, seconds: float, effort: Effort) -> Iterator[Row]:
    """Yield the resident memory of training steps as rows add up, and how much it grows a row in the second half."""
    if sys.platform != "linux":
        yield Row(case, "", note="memory can be read on Linux only", judged=False)
        return
    with faulty() as kind:
        names = "inline", "threads:2", "processes:2"
        for name, crew in crews(*names):
            solver = get_solver(kind, KSubset(_ENTRIES, 1), workers=crew, on_error="zero_grad")
            layer = MAPLayer(solver, IMLE(None, Step(1e-3)))
            yield from _run(case, name, layer, (1.0 if effort.is_quick else seconds) / len(names))


def _run(case: str, name: str, layer: MAPLayer, seconds: float) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    killing = _KILLING if name.startswith("processes") else 0.0
    rows = failed = 0
    points: list[tuple[int, int]] = []
    began = time.perf_counter()
    held: dict[str, int] = {}
    while len(points) <= _SAMPLES:
        theta = torch.rand((_ROWS, _ENTRIES), generator=generator, dtype=torch.float64)
        draws = torch.rand((2, _ROWS), generator=generator)
        at_fault = draws[0] < _FAILING
        theta[at_fault, 0] = torch.where(draws[1] < killing, DIES, RAISES).double()[at_fault]
        layer(theta.requires_grad_()).sum().backward()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        rows, failed = rows + _ROWS, failed + int(at_fault.sum())
        share = (time.perf_counter() - began) / seconds
        if share >= _WARM_UP + (1 - _WARM_UP) * len(points) / _SAMPLES:
            held = held or _held()
            points.append((rows, _resident()))
    for count, size in points:
        yield Row(case, name, {"rows": count}, Spread.of([size / _MEBIBYTE]), "MiB resident", judged=False)
    half: NDArray[np.float64] = np.array(points[_SAMPLES // 2 :], dtype=np.float64)
    slope = float(np.polyfit(half[:, 0], half[:, 1], 1)[0])
    extra: dict[str, Any] = {"rows solved": rows, "rows at fault": failed, **_more(_held(), held)}
    note = "forward and backward pass, slope over the second half"
    yield Row(case, name, value=Spread.of([slope]), unit="bytes more a row", extra=extra, note=note, judged=False)


def _resident() -> int:
    total = 0
    for process in processes():
        with contextlib.suppress(OSError, StopIteration):  # it has just ended
            total += status_bytes("VmRSS", process)
    return total


def _held() -> dict[str, int]:
    own = Path("/proc/self")
    return {
        "processes": len(processes()),
        "threads": len([*(own / "task").iterdir()]),
        "descriptors": len([*(own / "fd").iterdir()]),
    }


def _more(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {f"{name} more": count - before[name] for name, count in now.items()}


_TIMES: Final = {"a minute": 60.0, "twenty minutes": 1200.0}

SUITE: Final = Suite(
    "Memory of this process and its workers while a row in a hundred fails",
    {case: partial(soaked, case, seconds) for case, seconds in _TIMES.items()},
    quick=("a minute",),
)
