"""Suite `growth`: time and memory of a step against B, S and n, and what thousands of solves leave behind."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from mapgrad.batching import get_solver
from mapgrad.bench._cases import KAPPA, SEED, Case, assignment, auto, estimator, grid, knapsack, path, step, subset
from mapgrad.bench._clock import Effort, Work, interleave
from mapgrad.bench._machine import status_bytes
from mapgrad.bench._peers import OURS, path_peered, steps
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.gradients import Gumbel, SumOfGamma
from mapgrad.layer import MAPLayer
from mapgrad.problems import KSubset
from mapgrad.solvers import entries_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFERENCE: Final = {"B": 100, "S": 1, "n": 1000}
_LINES: Final = {
    "B": [{"B": count, "S": 1, "n": 1000} for count in (1, 10, 100, 1_000, 10_000)],
    "S": [{"B": 100, "S": samples, "n": 1000} for samples in (1, 4, 16, 64)],
    "n": [{"B": 100, "S": 1, "n": n} for n in (100, 1_000, 10_000, 100_000)],
}
_PEAKS: Final = (
    *({"B": 512, "S": samples, "n": 1000} for samples in (1, 4, 16)),
    {"B": 4096, "S": 1, "n": 1000},
    {"B": 10_000, "S": 16, "n": 1000},
)
_K: Final = 10
_SOLVES: Final = 2_000
_BATCH: Final = 64
_MEBIBYTE: Final = 2**20


def time_of(line: str, effort: Effort) -> Iterator[Row]:
    """Yield a row for each size: time an element, and what it is of that at B = 100, S = 1, n = 1,000."""
    sizes = [_REFERENCE, {**_REFERENCE, line: 2 * _REFERENCE[line]}] if effort.is_quick else _LINES[line]
    works: dict[str, Work] = {}
    for size in sizes:
        case = subset(size["n"], _K)
        layer = MAPLayer(auto(case.make()), estimator(SumOfGamma(KAPPA), size["S"]), seed=SEED)
        works[json.dumps(size)] = partial(step, layer, case.theta(size["B"]))
    times = interleave(works, effort)
    reference = times[json.dumps(_REFERENCE)]
    count = _elements(_REFERENCE)
    for size in sizes:
        cpu = times[json.dumps(size)].cpu
        ratio = Spread.of_ratios(cpu, reference.cpu).times(count / _elements(size))
        yield Row(
            f"k-subset, {line}",
            OURS,
            size,
            value=Spread.of(cpu).times(1e9 / _elements(size)),
            unit="ns an element",
            ratio=ratio,
            against="B = 100, S = 1, n = 1,000",
            extra={"step, ms": Spread.of(cpu).median * 1e3},
            judged=size != _REFERENCE,
        )


def _elements(size: dict[str, int]) -> int:
    return 2 * size["B"] * size["S"] * size["n"]


def paths_against_size(effort: Effort) -> Iterator[Row]:
    """Yield steps at B = 32 on grids of several sizes, with the peers'."""
    for size in (3, 5) if effort.is_quick else (5, 8, 12, 20):
        for row in steps(path_peered(size), 2 if effort.is_quick else 32, effort):
            yield replace(row, case="path")


def paths_against_rows(effort: Effort) -> Iterator[Row]:
    """Yield steps on a grid of 8×8 in batches of several sizes, with the peers'."""
    for count in (1, 2) if effort.is_quick else (1, 8, 32, 128, 512):
        yield from steps(path_peered(8), count, effort)


def memory(effort: Effort) -> Iterator[Row]:
    """Yield the peak of a step's memory beyond what was there before, each in a process of its own."""
    if sys.platform != "linux":
        yield Row("memory", "peak of a step", note="can be read on Linux only", judged=False)
        return
    # blocks from this size on go back to the system once they are freed, so that the high-water mark sees them
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16), "OMP_NUM_THREADS": "1"}
    for size in [{"B": 256, "S": 2, "n": 500}] if effort.is_quick else _PEAKS:
        code = f"from mapgrad.bench._growth import print_peak; print_peak({size!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2] or f"ended with {done.returncode}"
            yield Row("memory", "peak of a step", size, note=last, judged=False)
            continue
        peak, states = float(done.stdout), size["B"] * size["S"] * size["n"] * 4
        yield Row(
            "memory",
            "peak of a step",
            size,
            value=Spread.of([peak / _MEBIBYTE]),
            unit="MiB",
            ratio=Spread.of([peak / states]),
            against="[S, B, n] in float32",
            note="beside θ and its gradient",
        )


def print_peak(size: dict[str, int]) -> None:
    """Print by how many bytes a step of top-k raises the resident memory, less what its leaf's gradient takes.

    Meant for a process of its own.
    """
    torch.set_num_threads(1)
    problem = KSubset(size["n"], _K)
    generator = torch.Generator().manual_seed(SEED)
    theta, slope = (torch.randn((size["B"], size["n"]), generator=generator) for _ in range(2))
    peak = 0
    for _ in range(2):  # the first step imports and allocates what the process keeps for good
        layer = MAPLayer(auto(problem), estimator(Gumbel(), size["S"]), seed=SEED)
        leaf = theta.clone().requires_grad_()
        # the high-water mark starts at what is resident
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = status_bytes("VmRSS")
        z = layer(leaf)
        z.backward(slope)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        peak = status_bytes("VmHWM") - before - leaf.nbytes
        del layer, leaf, z  # a layer keeps its last answers
        gc.collect()
    sys.stdout.write(f"{peak}\n")


def native_models(effort: Effort) -> Iterator[Row]:
    """Yield by how much resident memory grows over many solves of one native model, for all solvers."""
    if sys.platform != "linux":
        yield Row("native models", "growth", note="can be read on Linux only", judged=False)
        return
    cases: list[Case] = [subset(100, 10), grid(12), path(5), assignment(20), knapsack(12, 2)]
    for case in cases[:1] if effort.is_quick else cases:
        problem = case.make()
        for entry in entries_for(problem):
            if isinstance(problem, entry.spec.accepts) and not entry.missing():
                yield _grown(case, entry.name, _BATCH if effort.is_quick else _SOLVES)


def _grown(case: Case, name: str, solves: int) -> Row:
    rows = case.utilities(_BATCH)
    with get_solver(name, case.make(), merge=False) as solver:
        for _ in range(-(-solves // (10 * _BATCH))):
            solver(rows)
        before = _resident()
        for _ in range(-(-solves // _BATCH)):
            solver(rows)
        grown = _resident() - before
    return Row(
        case.name,
        name,
        value=Spread.of([grown / _MEBIBYTE]),
        unit=f"MiB more after {solves:,} solves",
        judged=False,
    )


def _resident() -> int:
    gc.collect()
    return status_bytes("VmRSS")


_CASES: dict[str, Any] = {f"k-subset, {line}": partial(time_of, line) for line in _LINES}

SUITE: Final = Suite(
    "Time and memory of a step against rows, samples and entries",
    {
        **_CASES,
        "path": paths_against_size,
        "path 8×8": paths_against_rows,
        "memory": memory,
        "native models": native_models,
    },
    quick=("k-subset, B", "path", "memory", "native models"),
)
