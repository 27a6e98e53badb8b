"""What a cluster costs: bytes a row, time a call, and rows a second against the number of workers.

    python tests/benchmarks/bench_clusters.py bytes
    python tests/benchmarks/bench_clusters.py calls processes dask:2 ray:2
    python tests/benchmarks/bench_clusters.py growth 1 4 16 64 256

`growth` has workers that only sleep, which needs no cores: many threads in two processes of a Dask cluster. What bends
there is the way to the workers, not the machine.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

import mapgrad
from mapgrad.solvers import Block, executor_named, resolve
from mapgrad.workers import Job, Runner, Workers
from mapgrad.workers._batch import Batch
from mapgrad.workers._parcels import Parcel, Rows

ROW_SECONDS = 0.01


class Sleeping(mapgrad.InstanceSolver[mapgrad.KSubset, None]):
    """Takes ten milliseconds of nobody's time."""

    def solve(self, state: None, theta: Any, request: mapgrad.Request) -> Any:
        time.sleep(ROW_SECONDS)
        return theta


class Factory:
    def build(self, problem: mapgrad.KSubset, options: dict[str, Any]) -> Sleeping:
        return Sleeping(problem)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def batch_of(rows: int, entries: int) -> tuple[Runner, Job, Block]:
    problem = mapgrad.KSubset(entries, 1)
    theta = np.random.default_rng(0).random((rows, entries))
    return Runner(Sleeping(problem)), Job("sleeping", Factory(), problem, {}), Block(theta)


def measure_bytes() -> None:
    def sizes(rows: int, entries: int) -> tuple[int, int]:
        runner, job, block = batch_of(rows, entries)
        parcel = Parcel(0, None)
        out = pickle.dumps(Rows(Batch(runner, job, block, None), parcel, 0, rows, with_job=False))
        pickle.loads(pickle.dumps(Rows(Batch(runner, job, block, None), parcel, 0, 1, with_job=True)))()
        return len(out), len(pickle.dumps(pickle.loads(out)()))

    say("| n | bytes a call, there and back | bytes a row, there and back |\n| --- | --- | --- |")
    for entries in (20, 144, 1000):
        (out_one, back_one), (out_many, back_many) = sizes(1, entries), sizes(11, entries)
        out, back = (out_many - out_one) / 10, (back_many - back_one) / 10
        say(f"| {entries} | {out_one - out:.0f} + {back_one - back:.0f} | {out:.0f} + {back:.0f} |")
    problem = mapgrad.GridShortestPath(12, 12)
    factory = resolve("networkx.shortest_path", problem)
    say(f"\nA job, once a worker: {len(pickle.dumps(Job('', factory, problem, {})))} bytes for {problem}")


def measure_calls(names: list[str]) -> None:
    say("| workers | start, s | µs a call, in flood | µs a call, one at a time |\n| --- | --- | --- | --- |")
    for name in names:
        began = time.perf_counter()
        if name == "processes":
            executor: Any = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        elif name == "threads":
            executor = ThreadPoolExecutor(2)
        else:
            executor = executor_named(name)()
        wait([executor.submit(time.sleep, 0.2) for _ in range(4)])
        start = time.perf_counter() - began
        flood, single = [], []
        for _ in range(5):
            began = time.perf_counter()
            wait([executor.submit(abs, number) for number in range(400)])
            flood.append((time.perf_counter() - began) / 400)
            began = time.perf_counter()
            for number in range(50):
                executor.submit(abs, number).result()
            single.append((time.perf_counter() - began) / 50)
        say(f"| {name} | {start:.1f} | {np.median(flood) * 1e6:.0f} | {np.median(single) * 1e6:.0f} |")
        executor.shutdown()


def measure_growth(counts: list[int]) -> None:
    from distributed import Client, LocalCluster

    import mapgrad_dask

    say("| workers | rows | rows a second | of what they could |\n| --- | --- | --- | --- |")
    for count in counts:
        processes = min(count, 2)
        with (
            LocalCluster(n_workers=processes, threads_per_worker=count // processes, dashboard_address=":0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            workers = Workers(mapgrad_dask.executor(client))
            runner, job, _ = batch_of(1, 20)
            workers.solve(runner, job, batch_of(4 * count, 20)[2])
            rates: list[float] = []
            for _ in range(3):
                block = batch_of(rows := 200 * count, 20)[2]
                began = time.perf_counter()
                workers.solve(runner, job, block)
                rates.append(rows / (time.perf_counter() - began))
                assert not block.causes
            rate, most = float(np.median(rates)), count / ROW_SECONDS
            say(f"| {count} | {rows} | {rate:.0f} | {rate / most:.0%} |")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:] or ["bytes"]
    if what == "bytes":
        measure_bytes()
    elif what == "calls":
        measure_calls(arguments)
    else:
        measure_growth([int(argument) for argument in arguments])
