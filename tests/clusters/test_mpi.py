"""Rows on the workers of mpi4py, which are started by MPI itself."""

from importlib.util import find_spec

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


def test_answers_are_the_same_as_inline(run_program):
    if find_spec("mpi4py") is None:
        pytest.skip("mpi4py isn't installed: pip install mpi4py mpich")
    try:
        from mpi4py import MPI
    except RuntimeError as error:
        pytest.skip(f"mpi4py finds no MPI: {error}")
    assert MPI.Is_initialized()
    done = run_program(SCRIPT, timeout=120)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
