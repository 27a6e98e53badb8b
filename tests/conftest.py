"""What many tests use: data sets of others, where a machine has them, and forked children."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest -n auto starts a worker on each core: torch's own threads, which wait busily, would only take turns there
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MAPGRAD_CACHE_DIR"] = ""  # tests leave nothing in the user's cache, and find nothing there

FOLDER = Path(os.environ.get("MAPGRAD_DATA", Path(__file__).parents[2] / "shared" / "data"))

# a shell that runs the tests in the background has them, and the programs that they start, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def data():
    """Return a function from a data set's name to its folder."""

    def folder(name):
        path = FOLDER / name
        if not path.is_dir():
            pytest.skip(f"no folder {path}: MAPGRAD_DATA names the folder of data sets")
        return path

    return folder


def call_in_child(function, seconds=60):
    """Call a function in a forked child; fail where it raises or hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks while threads run
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    pytest.fail("the child hangs")


@pytest.fixture
def in_child():
    return call_in_child
