"""What other libraries lose by the same faults: a batch with one row at fault, then a batch without any.

Each runs in a process of its own, as some never come back.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from mapgrad.bench._faulty import DIES, HANGS, RAISES
from mapgrad.bench._report import Row, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mapgrad.bench._clock import Effort

_ROWS: Final = 64
FAULTS: Final = {"raises": RAISES, "kills its process": DIES, "hangs": HANGS}
_PATIENCE: Final = 40.0
"""Seconds for all three batches and the start of workers, after which a library counts as one that never comes back."""

_SOLVING: Final = 2e-3
_WORKERS: Final = 2
_LOST: Final = float("nan")
_BATCHES: Final = "the first batch", "the batch with the fault", "the batch after it"


def answer(first: float) -> float:
    """Solve a row, or do what its number says."""
    if first < (DIES + HANGS) / 2:
        os._exit(3)
    if first < (HANGS + RAISES) / 2:
        time.sleep(2 * _PATIENCE)
    if first < 0:
        raise RuntimeError("out of sorts")
    time.sleep(_SOLVING)
    return first


def _each(results: Sequence[Callable[[], float]]) -> list[float]:
    """Return the results that come, NaN for others."""
    found: list[float] = []
    for result in results:
        try:
            found.append(result())
        except Exception:  # noqa: BLE001 (whatever a library makes of the fault)
            found.append(_LOST)
    return found


def _all_or_none(solve: Callable[[], Sequence[float]]) -> list[float]:
    """Return the answers of a library that gives a batch's together."""
    try:
        return [float(value) for value in solve()]
    except Exception:  # noqa: BLE001 (as above)
        return [_LOST] * _ROWS


def _futures(rows: list[float]) -> list[float]:
    from concurrent.futures import ProcessPoolExecutor

    executor = _kept(ProcessPoolExecutor, _WORKERS)
    return _each([_submitted(executor, row) for row in rows])


def _loky(rows: list[float]) -> list[float]:
    loky: Any = importlib.import_module("loky")
    executor = loky.get_reusable_executor(max_workers=_WORKERS)
    return _each([_submitted(executor, row) for row in rows])


def _submitted(executor: Any, row: float) -> Callable[[], float]:
    try:
        return executor.submit(answer, row).result
    except Exception:  # noqa: BLE001 (a pool that is broken)
        return lambda: _LOST


def _joblib(rows: list[float]) -> list[float]:
    joblib: Any = importlib.import_module("joblib")
    return _all_or_none(lambda: joblib.Parallel(n_jobs=_WORKERS)(joblib.delayed(answer)(row) for row in rows))


def _dask(rows: list[float]) -> list[float]:
    distributed: Any = importlib.import_module("distributed")
    client = _kept(distributed.Client, n_workers=_WORKERS, threads_per_worker=1, dashboard_address=None)
    return _each([future.result for future in client.map(answer, rows, pure=False)])


def _ray(rows: list[float]) -> list[float]:
    ray: Any = importlib.import_module("ray")
    if not ray.is_initialized():
        ray.init(num_cpus=_WORKERS, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(answer)
    return _each([partial(ray.get, reference) for reference in map(remote.remote, rows)])


def _pyepo(rows: list[float]) -> list[float]:
    torch: Any = importlib.import_module("torch")
    return _all_or_none(lambda: _kept(_pyepo_layer)(torch.tensor(rows)[:, None])[:, 0].tolist())


def _pyepo_layer() -> Any:
    func: Any = importlib.import_module("pyepo.func")
    opt: Any = importlib.import_module("pyepo.model.opt")

    class Model(opt.optModel):
        num_cost = 1

        def _getModel(self) -> tuple[None, list[int]]:  # noqa: N802 (PyEPO's name)
            return None, [0]

        def setObj(self, c: Any) -> None:  # noqa: N802 (as above)
            self.first = float(c[0])

        def solve(self) -> tuple[list[float], float]:
            return [answer(self.first)], 0.0

    return func.blackboxOpt(Model(), processes=_WORKERS)


@cache
def _kept(make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return make(*arguments, **named)


PEERS: Final[dict[str, tuple[str, Callable[[list[float]], list[float]]]]] = {
    "concurrent.futures, 2 processes": ("concurrent.futures", _futures),
    "loky, 2 processes": ("loky", _loky),
    "joblib, 2 processes": ("joblib", _joblib),
    "Dask, 2 processes": ("distributed", _dask),
    "Ray, 2 processes": ("ray", _ray),
    "PyEPO, 2 processes": ("pyepo", _pyepo),
}


def main(peer: str, fault: str) -> None:
    """Print a line of JSON for a batch without a fault, one with it, and one after it; then end the process group."""
    solve = PEERS[peer][1]
    healthy = [float(row) for row in range(_ROWS)]
    with_fault = [*healthy]
    with_fault[_ROWS // 2] = FAULTS[fault]
    for rows in (healthy, with_fault, healthy):
        began = time.perf_counter()
        found = solve(rows)
        lost = sum(value != row for value, row in zip(found, rows, strict=True) if row >= 0)
        sys.stdout.write(json.dumps([lost, time.perf_counter() - began]) + "\n")
        sys.stdout.flush()
    os.killpg(os.getpgrp(), signal.SIGKILL)  # workers would keep this process's output open


def rows_lost(fault: str, effort: Effort) -> Iterator[Row]:
    """Yield a row for each library that is installed."""
    for peer, (module, _) in list(PEERS.items())[: 1 if effort.is_quick else None]:
        case = f"elsewhere: a row that {fault}"
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            yield Row(case, peer, note=f"{module} isn't installed", judged=False)
        else:
            yield _measured(case, peer, fault)


def _measured(case: str, peer: str, fault: str) -> Row:
    """Have a library solve three batches in a process of its own."""
    program = f"from mapgrad.bench._fault_peers import main; main({peer!r}, {fault!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # so that its workers end with it
    )
    try:
        output, _ = child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
    batches = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    if not batches:
        return Row(case, peer, note="it solves nothing here", judged=False)
    note = "" if len(batches) == len(_BATCHES) else f"{_BATCHES[len(batches)]} hasn't ended after {_PATIENCE:g} s"
    (_, whole), (lost, seconds), (after, _) = batches + [(_ROWS - 1, _PATIENCE)] * (len(_BATCHES) - len(batches))
    extra = {"rows of the next batch lost": after, "batch, ms wall": seconds * 1e3, "without it, ms wall": whole * 1e3}
    return Row(case, peer, {"B": _ROWS}, Spread.of([lost]), "other rows lost", extra=extra, note=note, judged=False)
