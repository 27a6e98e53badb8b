"""What a row costs in workers: all processes are counted, and what isn't there is named."""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import pytest

import mapgrad
from mapgrad.bench import run_suite
from mapgrad.bench._clock import QUICK, Times
from mapgrad.bench._machine import processes
from mapgrad.bench._throughput import PYTHON, Holding, ProcessClock, measure, row_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time of other processes can be read on Linux only")

HERE = "inline", "threads:2", "processes:2"
CLUSTERS = "dask:2", "ray:2"
LOOP = "import time\nwhile time.process_time() < {seconds}: pass\nprint(flush=True)\ninput()"


@pytest.fixture
def no_clusters(monkeypatch):
    for package in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)


def require_cpu_of_all_processes(rows):
    """Rows take a tenth of a millisecond wherever they run: a process that has others solve them has little of it."""
    inline = rows["inline"].value.median
    assert 50 < inline < 400
    assert rows["inline"].ratio is None
    for name in rows.keys() - {"inline"}:
        row = rows[name]
        assert row.value.median > 0.7 * inline
        assert row.value.median == pytest.approx(row.extra["inline, µs CPU"] + row.extra["µs CPU more"], rel=0.5)
        assert row.ratio.median > 0
        assert (row.size, row.unit, row.against) == ({"B": 32, "n": 144}, "µs CPU a row", "inline, wall")


def test_threads_and_processes_are_measured_beside_the_calling_thread(no_clusters):
    rows = {row.name: row for row in run_suite("workers", quick=True).rows}
    assert [*rows] == [*HERE, *CLUSTERS]
    assert [rows[name].value for name in CLUSTERS] == [None, None]
    require_cpu_of_all_processes({name: rows[name] for name in HERE})


@pytest.mark.slow
def test_clusters_of_this_machine_are_measured_with_their_processes(monkeypatch):
    if not (find_spec("ray") and find_spec("distributed")):
        pytest.skip("ray and distributed aren't both installed: pip install 'mapgrad[dask,ray]'")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default, by which Ray says what will change
    require_cpu_of_all_processes({row.name: row for row in run_suite("workers", quick=True).rows})


def test_clusters_whose_packages_are_missing_are_named(no_clusters):
    make = partial(mapgrad.get_solver, Holding, passes=1)
    dask, ray = measure(PYTHON, make, 8, QUICK, CLUSTERS)
    assert "distributed, which isn't installed: pip install 'mapgrad[dask]'" in dask.note
    assert "needs ray, which isn't installed: pip install 'mapgrad[ray]'" in ray.note


def test_the_clock_counts_other_processes_and_keeps_what_they_took_when_they_end():
    with subprocess.Popen(
        [sys.executable, "-c", LOOP.format(seconds=0.3)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.pid in processes()
        clock = ProcessClock([child.pid])
        child.stdout.readline()
        seconds = clock()
        assert seconds >= 0.3
        child.communicate(b"\n")
    assert child.pid not in processes()
    assert clock() == seconds


def test_a_row_without_the_workers_time_says_so():
    times = {"inline": Times((0.01, 0.01), (0.01, 0.01)), "ray:2": Times((0.001, 0.002), (0.005, 0.015))}
    row = row_of("case", "ray:2", {"B": 10}, times, 1.0)
    assert row.value is None
    assert row.note == "the CPU time of its workers can't be read, as they are no children of this process"
    assert row.extra == {"µs wall": pytest.approx(1_000)}
    assert row.ratio.median == pytest.approx(1)
    times["ray:2"] = Times((0.02, 0.03), (0.005, 0.015))
    row = row_of("case", "ray:2", {"B": 10}, times, 0.5)
    assert (row.value.median, row.extra["µs CPU more"]) == pytest.approx((2_500, 1_500))
    assert row.note == "not quiet: two busy threads got 50% of two cores"
    assert not row.judged
