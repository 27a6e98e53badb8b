"""What a run ran on."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from mapgrad.bench._clock import num_cores

QUIET: Final = 0.95
"""Of the time that two busy threads ask for, what they get on a machine without other work."""

_DISTRIBUTIONS: Final = (
    "mapgrad", "torch", "numpy", "scipy", "numba", "networkx", "rustworkx", "lapx", "ortools", "highspy", "pulp",
    "cbcbox", "triton", "pyepo", "torch-imle", "cvxpylayers", "distributed", "ray",
)  # fmt: skip
_SECONDS_OF_WORK: Final = 0.05


def machine() -> dict[str, Any]:
    """Return CPU model, cores, load and what else the figures depend on."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "governor": _text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not readable",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "not readable",
        "share of two cores": round(idle_share(), 2),
        "torch threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python, mapgrad, and those of its solvers and peers that are installed."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def idle_share(threads: int = 2) -> float:
    """Return which share of their wall-clock time busy threads get cores for: near 1 if nothing else runs."""
    block = bytes(2**20)

    def work() -> None:
        until = time.perf_counter() + _SECONDS_OF_WORK
        while time.perf_counter() < until:
            hashlib.sha256(block).digest()  # releases the GIL

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return (time.process_time() - cpu) / ((time.perf_counter() - began) * min(threads, num_cores()))


def _cpu_model() -> str:
    lines = _text_of("/proc/cpuinfo").splitlines() if sys.platform == "linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def status_bytes(name: str, process: int | None = None) -> int:
    """Return what Linux says of a process's memory, such as VmRSS; of this one's for None."""
    lines = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def processes() -> list[int]:
    """Return this process and those that it has started, and so on, as Linux numbers them."""
    found = [os.getpid()]
    for process in found:
        with suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found
