"""What the road from θ to a solver and back costs: figures with goals, beside solvers that do nothing.

Run by hand: ``python tests/benchmarks/bench_road.py [--only 1,3] [--json after.json] [--against before.json]``.
Prints every figure with its goal and exits with 1 where one is missed. CPU time on one thread, medians, candidates of a
ratio interleaved in one process; memory and imports in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import _timing  # before NumPy and torch
import numpy as np
import torch

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAM = 10.0
KAPPA = 5.0
REQUEST = mapgrad.Request() if hasattr(mapgrad, "Request") else None
"""What a bare loop hands to `solve`; version 0.1 had a start in its place."""


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        group: Number of its goal, as `--only` takes it.
        name: What was measured, and where.
        value: The measurement.
        goal: The largest value allowed; None for a figure that has no goal.
        unit: What it is a ratio of, or its unit; with whatever explains it.
    """

    group: int
    name: str
    value: float
    goal: float | None
    unit: str

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return "–"
        return "ok" if self.value <= self.goal else "missed"


class NullBatch(mapgrad.BatchSolver):
    def solve(self, theta: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(theta)


class NullInstance(mapgrad.InstanceSolver):
    """Returns an array that it keeps."""

    def __init__(self, problem: mapgrad.Problem) -> None:
        super().__init__(problem)
        self.answer = np.zeros(problem.shape)

    def solve(self, state: Any, theta: np.ndarray, request: Any = None) -> np.ndarray:
        return self.answer


class NullBlock(NullInstance):
    """The same for a block of rows; version 0.1, which had none, calls `solve`."""

    def solve_rows(self, state: Any, block: Any) -> None:
        block.z[:] = 0


class BusyInstance(NullInstance):
    """Takes a tenth of a millisecond a row."""

    count = 1

    def calibrate(self) -> None:
        passes = 100_000
        one_pass = median(_timing.cpu_seconds(partial(_timing.busy_loop, passes)) for _ in range(21)) / passes
        self.count = round(1e-4 / one_pass)

    def solve(self, state: Any, theta: np.ndarray, request: Any = None) -> np.ndarray:
        _timing.busy_loop(self.count)
        return self.answer


# The twenty lines that a user would write.


class HandWritten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: torch.Tensor, solve: Callable[[torch.Tensor], torch.Tensor], lam: float) -> Any:
        z = solve(theta)
        ctx.save_for_backward(theta, z)
        ctx.solve, ctx.lam = solve, lam
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        theta, z = ctx.saved_tensors
        better = ctx.solve(theta - ctx.lam * gradient)
        return (z - better) / ctx.lam, None, None


def hand_written(solve: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor) -> torch.Tensor:
    return HandWritten.apply(theta, solve, LAM)  # pyright: ignore[reportReturnType]


def step(layer: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor, weights: torch.Tensor) -> None:
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * weights).sum().backward()


def rows(count: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return θ and the loss's gradient, float32 [count, n]: no two rows are equal, and every row's step moves it."""
    generator = torch.Generator().manual_seed(0)
    theta, weights = torch.randn((2, count, n), generator=generator)
    return theta, weights


def layer_of(solver: Any, n: int, noise: Any = None, *, samples: int = 1, seed: int | None = None) -> mapgrad.MAPLayer:
    estimator = mapgrad.IMLE(noise, mapgrad.Step(LAM), samples=samples, symmetric=False)
    return mapgrad.MAPLayer(mapgrad.get_solver(solver, mapgrad.KSubset(n, 1)), estimator, seed=seed)


def one_step() -> Iterator[Figure]:
    n = 16
    theta, weights = rows(1, n)
    batch, instance = NullBatch(mapgrad.KSubset(n, 1)), NullInstance(mapgrad.KSubset(n, 1))

    def solve_row(row: torch.Tensor) -> torch.Tensor:
        answer = instance.solve(None, row.detach()[0].double().numpy(), REQUEST)
        return torch.from_numpy(answer).to(row.dtype)[None]

    seconds = _timing.medians(
        {
            "hand": partial(step, partial(hand_written, batch.solve), theta, weights),
            "batch": partial(step, layer_of(NullBatch, n), theta, weights),
            "hand, instance": partial(step, partial(hand_written, solve_row), theta, weights),
            "instance": partial(step, layer_of(NullInstance, n), theta, weights),
            "block": partial(step, layer_of(NullBlock, n), theta, weights),
        },
        seconds=3.0,
    )
    by_hand = f"× twenty lines of autograd ({seconds['hand'] * 1e6:.0f} µs)"
    yield Figure(1, "step, n = 16, B = 1: batch solver", seconds["batch"] / seconds["hand"], 2.5, by_hand)
    yield Figure(1, "step, n = 16, B = 1: instance solver", seconds["instance"] / seconds["hand"], None, by_hand)
    yield Figure(1, "step, n = 16, B = 1: block solver", seconds["block"] / seconds["hand"], None, by_hand)
    around = f"× the same lines around its solve ({seconds['hand, instance'] * 1e6:.0f} µs)"
    ratio = seconds["instance"] / seconds["hand, instance"]
    yield Figure(1, "step, n = 16, B = 1: instance solver", ratio, None, around)


def bare_loop(solver: Any, block: np.ndarray, z: np.ndarray) -> None:
    for number, row in enumerate(block):
        z[number] = solver.solve(None, row, REQUEST)


def loop_without_answers(solver: Any, block: np.ndarray) -> None:
    for row in block:
        solver.solve(None, row, REQUEST)


def row_loop() -> Iterator[Figure]:
    theta, _ = rows(512, 16)
    problem = mapgrad.KSubset(16, 1)
    null, block = NullInstance(problem), theta.double().numpy()
    seconds = _timing.medians(
        {
            "bare": partial(bare_loop, null, block, np.empty_like(block)),
            "calls": partial(loop_without_answers, null, block),
            "solver": partial(mapgrad.get_solver(NullInstance, problem), theta),
        },
        seconds=2.0,
    )
    for kind, goal, name in (("bare", 6.0, "a bare loop over solve"), ("calls", None, "the same that drops answers")):
        unit = f"× {name} ({seconds[kind] / 512 * 1e6:.2f} µs a row)"
        yield Figure(2, "solver(θ), 512 × 16: instance solver", seconds["solver"] / seconds[kind], goal, unit)


def top_k() -> Iterator[Figure]:
    theta, _ = rows(512, 1000)

    def bare() -> torch.Tensor:
        return torch.zeros_like(theta).scatter_(-1, theta.topk(10).indices, 1.0)

    solver = mapgrad.get_solver("topk", mapgrad.KSubset(1000, 10))
    if not torch.equal(solver(theta), bare()):
        raise AssertionError("the solver and torch.topk answer with different states")
    seconds = _timing.medians({"bare": bare, "solver": partial(solver, theta)}, seconds=2.0)
    unit = f"× torch.topk and scatter_ ({seconds['bare'] * 1e3:.2f} ms)"
    yield Figure(3, "solver(θ), 512 × 1000: topk, k = 10", seconds["solver"] / seconds["bare"], 1.5, unit)


def rows_and_elements() -> Iterator[Figure]:
    for count, n in ((512, 16), (512, 1000), (64, 4096)):
        for samples in (1, 8):
            # samples without noise are all the same: as many rows of their own stand in for them
            shapes = {"no noise": (count * samples, 1), "Gumbel": (count, samples), "Sum-of-Gamma": (count, samples)}
            steps = {
                "no noise": step_of(count * samples, n, None, 1),
                "Gumbel": step_of(count, n, mapgrad.Gumbel(), samples),
                "Sum-of-Gamma": step_of(count, n, mapgrad.SumOfGamma(KAPPA), samples),
            }
            for kind, seconds in _timing.medians(steps, seconds=2.0).items():
                micros = seconds / (2 * samples * count) * 1e6
                nanos = {"no noise": 7.0, "Gumbel": 14.0, "Sum-of-Gamma": 20.0}[kind]
                name = f"step, {shapes[kind][0]} × {n}, S = {shapes[kind][1]}: block solver, {kind}"
                unit = f"µs a row = 1 + {(micros - 1) / n * 1e3:.1f} ns × {n}"
                yield Figure(4, name, micros, 1 + nanos * n / 1e3, unit)


def step_of(count: int, n: int, noise: Any, samples: int) -> _timing.Work:
    return partial(step, layer_of(NullBlock, n, noise, samples=samples, seed=0), *rows(count, n))


def slow_solves() -> Iterator[Figure]:
    count = 64
    for n in (16, 1000):
        problem = mapgrad.KSubset(n, 1)
        busy = BusyInstance(problem)
        busy.calibrate()
        theta, _ = rows(count, n)
        block = theta.double().numpy()
        seconds = _timing.medians(
            {
                "bare": partial(bare_loop, busy, block, np.empty_like(block)),
                "solver": partial(mapgrad.get_solver(busy, problem), theta),
            },
            seconds=2.5,
        )
        added = (seconds["solver"] / seconds["bare"] - 1) * 100
        unit = f"% over a bare loop over solve ({seconds['bare'] / count * 1e6:.0f} µs a row)"
        yield Figure(5, f"solver(θ), {count} × {n}: solves of 100 µs", added, 10.0, unit)


MEMORY_SHAPE = 512, 1000


def memory() -> Iterator[Figure]:
    # blocks from this size on go back to the system once they are freed, so that the high-water mark sees them
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    command = [sys.executable, "-c", "import bench_road; bench_road.report_peaks()"]
    answer = subprocess.run(command, cwd=Path(__file__).parent, env=environment, check=True, capture_output=True)
    unit = "× the bytes of [S, B, n] float32, θ's own gradient not counted"
    for kind, samples, peak in json.loads(answer.stdout):
        name = f"extra memory of a step, 512 × 1000, S = {samples}: topk, k = 10, Gumbel, {kind}"
        yield Figure(6, name, peak, 3.0, unit)


def report_peaks() -> None:
    """Write each configuration's peak to the standard output; runs in a process of its own."""
    theta, weights = rows(*MEMORY_SHAPE)
    problem = mapgrad.KSubset(MEMORY_SHAPE[1], 10)
    peaks: list[tuple[str, int, float]] = []
    # what torch and the noise keep for good, once a process
    peak_bytes(mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), mapgrad.IMLE(mapgrad.Gumbel())), theta, weights)
    for kind, seed in (("unseeded", None), ("seeded", 0)):
        for samples in (1, 4, 8):
            estimator = mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(LAM), samples=samples)
            layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), estimator, seed=seed)
            layer(theta[:2].clone().requires_grad_()).backward(weights[:2])
            peaks.append((kind, samples, peak_bytes(layer, theta, weights) / (samples * theta.nbytes)))
    sys.stdout.write(json.dumps(peaks))


def peak_bytes(layer: mapgrad.MAPLayer, theta: torch.Tensor, weights: torch.Tensor) -> int:
    """Return by how much a step raises the resident memory, less what its leaf's gradient takes."""
    leaf = theta.clone().requires_grad_()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts at what is resident
    before = resident_bytes("VmRSS")
    z = layer(leaf)
    z.backward(weights)
    return resident_bytes("VmHWM") - before - leaf.nbytes


def resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def draws() -> Iterator[Figure]:
    theta, _ = rows(512, 1000)
    gumbel, sum_of_gamma = mapgrad.Gumbel(), mapgrad.SumOfGamma(KAPPA)

    def draw(noise: Any) -> None:
        noise.sample(theta.shape, generator=None, dtype=theta.dtype, device=theta.device)

    seconds = _timing.medians({"Gumbel": partial(draw, gumbel), "Sum-of-Gamma": partial(draw, sum_of_gamma)})
    yield draw_ratio("noise.sample", seconds["Gumbel"], seconds["Sum-of-Gamma"], theta.numel())

    layers = {
        name: layer_of(NullBatch, 1000, noise, seed=0)
        for name, noise in (("none", None), ("Gumbel", gumbel), ("Sum-of-Gamma", sum_of_gamma))
    }
    with torch.no_grad():
        seconds = _timing.medians({name: partial(layer, theta) for name, layer in layers.items()}, seconds=2.0)
    extra = {name: value - seconds["none"] for name, value in seconds.items()}
    yield draw_ratio("seeded layer, less no noise", extra["Gumbel"], extra["Sum-of-Gamma"], theta.numel())


def draw_ratio(name: str, gumbel: float, sum_of_gamma: float, elements: int) -> Figure:
    unit = f"× a Gumbel draw ({gumbel / elements * 1e9:.1f} ns an element)"
    return Figure(7, f"Sum-of-Gamma draw, 512 × 1000: {name}", sum_of_gamma / gumbel, 2.0, unit)


def imports() -> Iterator[Figure]:
    wanted = {
        "import mapgrad": "import mapgrad",
        "import mapgrad, and take get_solver, MAPLayer and IMLE": (
            "import mapgrad; mapgrad.get_solver, mapgrad.MAPLayer, mapgrad.IMLE"
        ),
    }
    script = "import time, torch; started = time.process_time(); {}; print(time.process_time() - started)"
    samples: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(6):
        for name, statement in wanted.items():
            command = [sys.executable, "-c", script.format(statement)]
            answer = subprocess.run(command, check=True, capture_output=True)
            samples[name].append(float(answer.stdout) * 1e3)
    for (name, values), goal in zip(samples.items(), (15.0, None), strict=True):
        yield Figure(8, name, median(values[1:]), goal, "ms of CPU beyond torch")  # the first may compile


GROUPS: dict[int, Callable[[], Iterator[Figure]]] = {
    1: one_step,
    2: row_loop,
    3: top_k,
    4: rows_and_elements,
    5: slow_solves,
    6: memory,
    7: draws,
    8: imports,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(map(str, GROUPS)), help="numbers of goals, such as 1,3")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--against", type=Path, help="figures of an earlier run, to print beside")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # a solver that does nothing leaves all rows dead
    earlier = json.loads(arguments.against.read_text(encoding="utf-8")) if arguments.against else {}
    started = time.perf_counter()
    figures = [figure for number in arguments.only.split(",") for figure in GROUPS[int(number)]()]
    table = [
        [
            f"{figure.group}  {figure.name}",
            *([f"{earlier[key]:.2f}" if (key := key_of(figure)) in earlier else "–"] if earlier else []),
            f"{figure.value:.2f}",
            "–" if figure.goal is None else f"{figure.goal:g}",
            figure.verdict,
            figure.unit,
        ]
        for figure in figures
    ]
    header = ["figure", *(["before"] if earlier else []), "now", "goal", "", "what it counts"]
    title = f"CPU time on one thread, medians; {time.perf_counter() - started:.0f} s in all, {_timing.load()}"
    _timing.show(title, header, table)
    if arguments.json:
        values = {key_of(figure): figure.value for figure in figures}
        arguments.json.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = sum(figure.verdict == "missed" for figure in figures)
    sys.stdout.write(f"{missed} of {sum(figure.goal is not None for figure in figures)} goals missed\n")
    sys.exit(missed > 0)


def key_of(figure: Figure) -> str:
    """Return a figure's name in a file: its unit without the measured parts tells namesakes apart."""
    return f"{figure.name} [{figure.unit.partition('(')[0].partition('=')[0].strip()}]"


if __name__ == "__main__":
    main()
