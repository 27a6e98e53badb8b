"""Rows on the workers of mpi4py, which are started by MPI itself."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = """
import torch
from mpi4py.futures import MPIPoolExecutor

import mapgrad

if __name__ == "__main__":
    problem = mapgrad.GridShortestPath(5, 6)
    theta = -torch.rand(3, 40, 5, 6, generator=torch.Generator().manual_seed(0))
    inline = mapgrad.get_solver("networkx.shortest_path", problem)
    with MPIPoolExecutor(2) as executor:
        workers = mapgrad.Workers(executor)
        with mapgrad.get_solver("networkx.shortest_path", problem, workers=workers) as solver:
            for deadline in (None, 60.0):
                assert torch.equal(solver(theta, deadline=deadline), inline(theta))
            assert workers.count == 2
    print("end")
"""


def test_answers_are_the_same_as_inline(tmp_path):
    if find_spec("mpi4py") is None:
        pytest.skip("mpi4py isn't installed: pip install mpi4py mpich")
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if launcher is None:
        pytest.skip("there is no mpiexec: pip install mpich")
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    # workers that MPI starts with the program; MPICH 5.0 aborts at times where a thread is to start them later
    command = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
