"""What many tests use: data sets of others, where a machine has them, forked children, and programs of their own."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest -n auto starts a worker on each core: torch's own threads, which wait busily, would only take turns there
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MAPGRAD_CACHE_DIR"] = ""  # tests leave nothing in the user's cache, and find nothing there


def pytest_collection_finish():
    """Leave what was imported and collected out of all later garbage collections: a million objects."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def import_source(tmp_path_factory):
    """Return a function that imports source text as a module of a name, which worker processes can import too."""
    folder = tmp_path_factory.mktemp("modules")

    def imported(name, source):
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield imported


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


SERVER = """
import gc, json, os, sys
import torch, mapgrad

for name in mapgrad.__all__:
    getattr(mapgrad, name)
torch.ones(2, requires_grad=True).backward(torch.ones(2))  # the first one imports SymPy
gc.freeze()  # the collection at each child's end passes over what was imported
for line in sys.stdin:
    given = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for number, name in enumerate((os.devnull, given["out"], given["err"])):
    file = os.open(name, os.O_WRONLY if number else os.O_RDONLY)
    os.dup2(file, number)
    os.close(file)
sys.argv[1:] = given["arguments"]
sys.path[:0] = given["paths"]
os.environ.update(given["environment"])
exec(compile(given["code"], "<string>", "exec"))
"""
"""Forks a child for each program, which goes on where a new interpreter would be once it has imported torch."""


class ForkServer:
    """Runs programs in processes of their own, as `python -c` does, but torch and mapgrad are imported only once."""

    def __init__(self, folder):
        self.out, self.err = folder / "out", folder / "err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, code, *arguments, paths=(), environment=None, timeout=120):
        """Return how a program ended: its exit code is -9 where it took longer than `timeout` seconds."""
        self.out.write_text("")
        self.err.write_text("")
        given = {
            "code": code,
            "arguments": [*map(str, arguments)],
            "paths": [*map(str, paths)],
            "environment": environment or {},
            "out": str(self.out),
            "err": str(self.err),
        }
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        timer = threading.Timer(timeout, os.kill, (int(self.process.stdout.readline()), signal.SIGKILL))
        timer.start()
        code = int(self.process.stdout.readline())
        timer.cancel()
        return subprocess.CompletedProcess(arguments, code, self.out.read_text(), self.err.read_text())

    def close(self):
        self.process.communicate(timeout=60)


@pytest.fixture(scope="session")
def run_program(tmp_path_factory):
    """Return a function that runs Python code in a process of its own, and returns how that ended."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    server = ForkServer(tmp_path_factory.mktemp("programs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def on_two_ranks(run_program):
    """Return a function that runs a script, which assigns `result`, on two ranks, and returns their results.

    The script has `rank` and `folder`; the function is given the script and the folder.
    """
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("torch.distributed has no gloo back-end here")

    def run(script, folder):
        program = (
            "import datetime, os, sys, torch\n"
            "folder, other = sys.argv[1], os.fork()\n"
            "rank, patience = int(other == 0), datetime.timedelta(seconds=100)\n"
            "torch.set_num_threads(1)\n"
            "torch.distributed.init_process_group(\n"
            "    'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2, timeout=patience\n"
            ")\n"
            f"{script}\n"
            "torch.save(result, f'{folder}/{rank}.pt')\n"
            "torch.distributed.destroy_process_group()\n"
            "sys.exit(0 if rank else os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))\n"
        )
        done = run_program(program, folder)
        assert done.returncode == 0, done.stderr
        return [torch.load(folder / f"{rank}.pt") for rank in range(2)]

    return run
