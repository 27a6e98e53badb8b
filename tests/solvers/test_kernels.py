"""How kernels are kept: anew where a package's modules changed, and at once where there is no room."""

import os
import subprocess
import sys

import numpy as np
import pytest

import mapgrad

numba = pytest.importorskip("numba")


def test_a_change_in_a_helper_of_the_same_package_is_seen(tmp_path):
    package = tmp_path / "twice"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("_kernel.py").write_text(
        "import mapgrad\nfrom numba import types\nfrom twice._helper import helper\n"
        "@mapgrad.kernel(types.int64)\ndef number(given):\n    return helper(given)\n"
        "print(number.ready()(5))\n"
    )
    found = []
    for factor in (2, 2, 3):
        package.joinpath("_helper.py").write_text(
            f"from numba import njit\n@njit\ndef helper(given):\n    return {factor} * given\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import twice._kernel"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    assert found == ["10", "10", "15"]


def test_a_full_disk_is_no_error(monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    @mapgrad.kernel(numba.types.float64[::1])
    def double(values):
        for place in range(len(values)):
            values[place] *= 2

    monkeypatch.setattr("numba.core.caching.Cache.save_overload", full)
    monkeypatch.setattr("mapgrad.solvers._kernels._failures", iter(range(9)))
    values = np.ones(3)
    with caplog.at_level("INFO", "mapgrad"):
        double.ready()(values)
    assert values.tolist() == [2, 2, 2]
    assert "No space left on device" in caplog.text


def test_a_damaged_file_is_written_anew(tmp_path):
    module, kept = tmp_path / "kept.py", tmp_path / "machine code"
    module.write_text(
        "import mapgrad\nfrom numba import types\n"
        "@mapgrad.kernel(types.int64)\ndef twice(given):\n    return 2 * given\n"
        "print(twice.ready()(21))\n"
    )

    def run():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(kept)}
        done = subprocess.run(
            [sys.executable, str(module)], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        return {path: path.stat().st_size for path in kept.rglob("*.nb?")}

    whole = run()
    for suffix in (".nbi", ".nbc"):
        (damaged,) = (path for path in whole if path.suffix == suffix)
        damaged.write_bytes(damaged.read_bytes()[:20])
        run()
        assert run() == whole


FORKS = """
import os, sys, threading
from numba import types
import mapgrad


@mapgrad.kernel(types.float64)
def first(x):
    for _ in range(3):
        x = x * x + 1.0
    return x


@mapgrad.kernel(types.float64)
def second(x):
    return x + 1.0


begun = threading.Event()
compiling = threading.Thread(target=lambda: (begun.set(), first.ready()))
compiling.start()
begun.wait()
child = os.fork()
if not child:
    os._exit(int(first(1.0) != 26.0 or second(1.0) != 2.0))
compiling.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_a_kernel_is_compiled_has_it_too(tmp_path):
    tmp_path.joinpath("forks.py").write_text(FORKS)
    subprocess.run([sys.executable, "-W", "ignore", str(tmp_path / "forks.py")], check=True, timeout=60)
