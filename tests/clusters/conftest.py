"""Clusters of this machine, each of its kind with two workers, and solvers that do them harm."""

import importlib
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Workers import a solver's class by name, which they can't from a test file.
MODULE = '''
import os
import time
from pathlib import Path

from mapgrad import InstanceSolver


class Fragile(InstanceSolver):
    """Chooses the largest entry; by the smallest one, it kills its process (−9), hangs (−8) or takes time (−7)."""

    def __init__(self, problem, folder=None):
        super().__init__(problem)
        self.folder = folder

    def init(self):
        if self.folder:
            Path(self.folder, f"{os.getpid()}-{id(self)}").touch()

    def solve(self, state, theta, request):
        worst = round(theta.min() / abs(theta).max() * 9)
        if worst == -9:
            os._exit(3)
        if worst == -8:
            time.sleep(100)
        if worst == -7:
            time.sleep(0.02)
        z = theta * 0.0
        z[theta.argmax()] = 1.0
        return z


def largest(rows):
    """Solve rows on the Dask cluster in whose task this runs."""
    from distributed import get_client

    import mapgrad
    import mapgrad_dask

    executor = mapgrad_dask.executor(get_client())
    with mapgrad.get_solver(Fragile, mapgrad.KSubset(len(rows[0]), 1), workers=executor, merge=False) as solver:
        return solver(rows)
'''


@pytest.fixture(scope="session")
def fragile(import_source):
    module = import_source("cluster_solvers", MODULE)
    folder = Path(module.__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default, by which Ray says what will change
        yield module


@pytest.fixture(scope="session")
def local_ray(fragile):
    if find_spec("ray") is None:
        pytest.skip("ray isn't installed: pip install 'mapgrad[ray]'")
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session", params=["dask", "ray"])
def executor(request, fragile):
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    elif find_spec("distributed") is None:
        pytest.skip("distributed isn't installed: pip install 'mapgrad[dask]'")
    executor = importlib.import_module(f"mapgrad_{request.param}").executor(2)
    yield executor
    executor.shutdown()
