"""CBC through PuLP: what an interrupt leaves, and what is said without its binary."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mapgrad


def knapsack(seed: int, items: int = 12, rows: int = 3) -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(seed).integers(1, 20, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


INTERRUPTED = """
import os, warnings
import numpy as np, torch, mapgrad
warnings.simplefilter("error")
weights = np.random.default_rng(3).integers(50, 100, (30, 100))
solver = mapgrad.get_solver("pulp.cbc", mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2))
try:
    solver(torch.tensor(weights.mean(0)))
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process left")
"""


@pytest.mark.skipif(os.name != "posix", reason="a single process is interrupted by a signal, which only POSIX has")
def test_an_interrupt_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(tmp_path))}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.mps")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)  # CBC is at work by then
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    assert output.splitlines() == ["interrupted", "no process left"]
    assert list(tmp_path.iterdir()) == []


def test_without_the_binary_of_cbc_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbcbox", None)
    with pytest.raises(
        mapgrad.MissingDependencyError, match=r"needs cbcbox, which isn't installed: pip install 'mapgr"
    ):
        mapgrad.get_solver("pulp.cbc", knapsack(0))
    assert mapgrad.get_solver("pulp", knapsack(0)).name == "pulp.highs"
