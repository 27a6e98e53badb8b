"""Top-k on one CUDA device beside torch's, and beside the time that its bytes take; paths there beside the CPU's.

Run by hand: ``python tests/benchmarks/bench_gpu.py [--json new.json]``; it takes two minutes. Each number is a median
over runs that find nothing in the L2 cache. The bound is the time to read θ and write z once, at the speed of a large
copy on the same device; small batches take no less than their launch. torch's states are topk and scatter, with Gumbel
noise of rand and two logarithms added in the columns with noise; ours come from the counter. Then whole steps of a
layer, forward and backward, with the kernel and without; and best paths of θ on the device, found there and, by numba's
kernels, on the CPU, with the way there and back.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from triton.testing import do_bench

import mapgrad
from mapgrad.bench._report import text_table
from mapgrad.gradients._quantiles import quantiles
from mapgrad_topk import _topk, _triton

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEVICE = torch.device("cuda")
LENGTHS = 128, 256, 1024, 4096, 32768
ROWS = 512, 8192, 65536
MOST = 1 << 28
"""Entries of the largest batch: 1 GiB of θ."""
SIDE = 12
PATHS = 512, 4096, 32_768
STEPS = (512, 1000, 1), (512, 1000, 16), (10_000, 1000, 1), (10_000, 1000, 16), (1024, 20_000, 4)


def milliseconds(work: Callable[[], Any]) -> float:
    return do_bench(work, warmup=5, rep=30, return_mode="median")


def bytes_a_millisecond() -> float:
    source = torch.randn(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source))


def largest_by_torch(theta: torch.Tensor, k: int) -> torch.Tensor:
    return torch.zeros_like(theta).scatter_(-1, theta.topk(k, sorted=False).indices, 1.0)


def perturbed_by_torch(theta: torch.Tensor, k: int) -> torch.Tensor:
    return largest_by_torch(theta - torch.rand_like(theta).log_().neg_().log_(), k)


def kernels(speed: float) -> Iterator[dict[str, float]]:
    for n in LENGTHS:
        for rows in ROWS:
            if rows * n <= MOST:
                theta = torch.randn(rows, n, device=DEVICE)
                for k in (10, n // 2):
                    yield {"rows": rows, "n": n, "k": k, "bound": 2 * theta.nbytes / speed, **times(theta, k)}


def times(theta: torch.Tensor, k: int) -> dict[str, float]:
    noise = mapgrad.CounterNoise(1, 1, 1.0, quantiles(mapgrad.Gumbel(), DEVICE))
    return {
        "plain": milliseconds(lambda: _triton.largest(theta, k)),
        "torch plain": milliseconds(lambda: largest_by_torch(theta, k)),
        "noise": milliseconds(lambda: _triton.largest(theta[None, None], k, noise)),
        "torch noise": milliseconds(lambda: perturbed_by_torch(theta, k)),
    }


def steps() -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    kernel = _topk._kernels_on
    for batch, n, samples in STEPS:
        case: dict[str, float] = {"batch": batch, "n": n, "samples": samples, "z": 4 * samples * batch * n / 2**20}
        for name, kernels_on in (("kernel", kernel), ("torch", lambda _: None)):
            _topk._kernels_on = kernels_on
            solver = mapgrad.get_solver("topk", mapgrad.KSubset(n, 10))
            layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=samples), seed=0)
            theta = torch.randn(batch, n, device=DEVICE, requires_grad=True)
            weight = torch.randn_like(theta)

            def step(layer: Any = layer, theta: torch.Tensor = theta, weight: torch.Tensor = weight) -> None:
                theta.grad = None
                layer(theta).backward(weight)

            step()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            case[f"{name} MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
            case[name] = milliseconds(step)
        found.append(case)
    _topk._kernels_on = kernel
    return found


def paths() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cells = range(SIDE * SIDE)
    right = [(cell, cell + 1) for cell in cells if cell % SIDE < SIDE - 1]
    down = [(cell, cell + SIDE) for cell in cells if cell < SIDE * (SIDE - 1)]
    for name, problem in (
        ("grid", mapgrad.GridShortestPath(SIDE, SIDE)),
        ("DAG", mapgrad.ShortestPath(SIDE * SIDE, right + down, 0, SIDE * SIDE - 1)),
    ):
        solvers = [mapgrad.get_solver(f"{plugin}.shortest_path", problem) for plugin in ("torch", "compiled")]
        for batch in PATHS:
            theta = -torch.rand(batch, *problem.shape, device=DEVICE)
            device, host = (milliseconds(partial(solver, theta)) for solver in solvers)
            found.append({"problem": f"{name} {SIDE} × {SIDE}", "batch": batch, "device": device, "host": host})
    return found


def show(title: str, header: list[str], table: list[list[str]]) -> None:
    sys.stdout.write(f"{title}\n\n{text_table(header, table)}\n\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    card, speed = torch.cuda.get_device_name(), bytes_a_millisecond()
    measured, layers, routes = [*kernels(speed)], steps(), paths()
    header = ["", "θ, z moved", "kernel", "÷ moved", "torch ÷", "with noise", "÷ moved", "torch ÷", "card"]
    table = [
        [
            f"{case['rows']:,.0f} × {case['n']:.0f}, k = {case['k']:.0f}",
            f"{case['bound']:.4f} ms",
            f"{case['plain']:.4f} ms",
            f"{case['plain'] / case['bound']:.2f}",
            f"{case['torch plain'] / case['plain']:.1f}",
            f"{case['noise']:.4f} ms",
            f"{case['noise'] / case['bound']:.2f}",
            f"{case['torch noise'] / case['noise']:.1f}",
            card,
        ]
        for case in measured
    ]
    show(f"The k largest of each row; a copy moves {speed / 1e6:,.0f} GB/s", header, table)
    header = ["", "with the kernel", "torch alone", "ratio", "MiB beside θ", "of torch", "z", "card"]
    table = [
        [
            f"B = {case['batch']:,.0f}, n = {case['n']:,.0f}, S = {case['samples']:.0f}",
            f"{case['kernel']:.2f} ms",
            f"{case['torch']:.2f} ms",
            f"{case['torch'] / case['kernel']:.1f}",
            f"{case['kernel MiB']:,.0f}",
            f"{case['torch MiB']:,.0f}",
            f"{case['z']:,.0f}",
            card,
        ]
        for case in layers
    ]
    show("A step of IMLE(samples=S) with 10 of n chosen, forward and backward", header, table)
    header = ["", "torch.shortest_path", "compiled.shortest_path", "ratio", "card"]
    table = [
        [
            f"{case['problem']}, B = {case['batch']:,.0f}",
            f"{case['device']:.2f} ms",
            f"{case['host']:.2f} ms",
            f"{case['host'] / case['device']:.2f}",
            card,
        ]
        for case in routes
    ]
    show("Best paths of θ on the device", header, table)
    if arguments.json:
        figures = {"kernels": measured, "steps": layers, "paths": routes}
        arguments.json.write_text(json.dumps({"card": card, "torch": torch.__version__, **figures}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
