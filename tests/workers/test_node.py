"""Workers of a node, shared out among its ranks."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from mapgrad.workers import Workers

LAUNCHERS = {
    "torchrun": ("LOCAL_WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MPICH": ("MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", *(name for pair in LAUNCHERS.values() for name in pair)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("workers", [8, "processes:8", 3, "processes:1"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_have_together_as_many_workers_as_the_node(launcher, workers, ranks, monkeypatch):
    size, place = LAUNCHERS[launcher]
    counts = []
    for rank in range(ranks):
        monkeypatch.setenv(size, str(ranks))
        monkeypatch.setenv(place, str(rank))
        pool = Workers(workers, per_node=True)
        counts.append(pool.count)
        assert pickle.loads(pickle.dumps(pool)).count == pool.count
    asked = Workers(workers).count
    assert sum(counts) == max(asked, ranks)
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1


def test_a_program_without_ranks_has_the_nodes_workers():
    pool = Workers("processes:8", per_node=True)
    assert pool.count == 8
    assert repr(pool) == "Workers('processes:8', per_node=True)"


def test_ranks_of_a_launch(tmp_path, run_program):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, pathlib, sys, mapgrad\n"
        "workers = mapgrad.Workers('processes:5', per_node=True)\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(str(workers.count))\n"
    )
    launch = (
        "import runpy, sys\n"
        "sys.argv[:1] = ['torchrun', '--standalone', '--nproc-per-node', '3']\n"
        "runpy.run_module('torch.distributed.run', run_name='__main__')\n"
    )
    done = run_program(launch, script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == ["2", "2", "1"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LOCAL_RANK": "1"}, "set LOCAL_WORLD_SIZE and LOCAL_RANK, as torchrun does, got LOCAL_RANK='1'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "got RANK='0', WORLD_SIZE='2'"),
        ({"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "LOCAL_RANK one from 0 to below it, .* got '2' and '2'"),
        ({"LOCAL_WORLD_SIZE": "many", "LOCAL_RANK": "0"}, "LOCAL_WORLD_SIZE must be the number .* got 'many' and '0'"),
    ],
)
def test_ranks_of_which_too_little_is_known_are_refused(environment, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Workers("processes:4", per_node=True)
    assert Workers("processes:4").count == 4


def test_only_numbers_of_workers_are_shared_out():
    with ThreadPoolExecutor(1) as executor:
        for workers in (None, executor, "ray:8", True):
            with pytest.raises(TypeError, match=r'per_node=True is for numbers of threads and "processes:n", got'):
                Workers(workers, per_node=True)
    with pytest.raises(ValueError, match="at least 1"):
        Workers(0, per_node=True)
    with pytest.raises(TypeError, match="per_node must be True or False, got 1"):
        Workers(4, per_node=1)
