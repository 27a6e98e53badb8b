"""A solver that fails as it is told, for the suites on faults, and the workers that it is measured with."""

from __future__ import annotations

import importlib
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mapgrad.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_MODULE: Final = "mapgrad_bench_faulty"
_SOLVER: Final = '''
import os
import threading

import numpy as np

from mapgrad.solvers import InstanceSolver


class Faulty(InstanceSolver):
    """Answers with the number of its process; does what a row's first entry says if that is negative."""

    over = threading.Event()  # by which threads that hang end with their measurement

    def solve(self, state, theta, request):
        if theta[0] < -2.5:
            os._exit(3)
        if theta[0] < -1.5:
            self.over.wait(60)
        if theta[0] < -0.5:
            raise RuntimeError("out of sorts")
        return np.full(theta.shape, float(os.getpid()))
'''
"""In a module of its own, as a user's solver is: processes import that, without torch and these benchmarks."""

RAISES, HANGS, DIES = -1.0, -2.0, -3.0
"""What the first entry of such a row is."""


@contextmanager
def faulty() -> Generator[Any]:
    """Have the solver's class while something is measured."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{_MODULE}.py").write_text(_SOLVER, encoding="utf-8")
        sys.path.insert(0, folder)
        try:
            found: Any = importlib.import_module(_MODULE).Faulty
            found.traits = type(found.traits)(scale_free=True, deterministic=False)  # equal rows are asked for, too
            yield found
            found.over.set()
        finally:
            sys.path.remove(folder)
            sys.modules.pop(_MODULE, None)


def crews(*names: str) -> Iterator[tuple[str, Workers]]:
    """Yield workers by their names, each kind closed before the next."""
    for name in names:
        crew = Workers({"inline": None, "threads:2": 2}.get(name, name))
        try:
            yield name, crew
        finally:
            crew.close()
