"""What `import mapgrad` loads and costs, and what works without torch."""

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import mapgrad

CORE = Path(mapgrad.__file__).parent
PLUGINS = Path(__file__).parents[1] / "plugins"
FOLDERS = sorted(path for path in PLUGINS.iterdir() if path.joinpath("__init__.py").is_file())
COMPUTES_IN_TORCH = {"mapgrad_diagram", "mapgrad_topk", "mapgrad_torch"}
"""Plugins whose solvers take whole batches of tensors; all others solve on the host."""

HEAVY = (
    "ortools",
    "pulp",
    "highspy",
    "scipy",
    "networkx",
    "matplotlib",
    "typer",
    "rich",
    "pytest",
    "hypothesis",
    "numba",
)
BUDGET = 15e-3
"""Seconds of processor time that `import mapgrad` may take."""


def run(code: str, *arguments: str) -> str:
    """Run code in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_without_torch(code: str, *arguments: str) -> str:
    """The same, where torch can't be imported."""
    return run("import sys\nsys.modules['torch'] = None\n" + code, *arguments)


def test_import_alone_loads_mapgrad_and_the_standard_library():
    code = "import sys\nbefore = set(sys.modules)\nimport mapgrad\nprint(*sorted(set(sys.modules) - before))"
    packages = {name.partition(".")[0] for name in run(code).split()}
    assert packages - sys.stdlib_module_names == {"mapgrad"}


def test_all_names_load_no_solver_and_read_no_entry_point():
    code = """
import json, sys, torch
before = set(sys.modules)
import importlib.metadata
entry_points = []
importlib.metadata.entry_points = lambda **names: entry_points.append(names)
import mapgrad
for name in mapgrad.__all__:
    getattr(mapgrad, name)
print(json.dumps({"new": sorted(set(sys.modules) - before), "read": len(entry_points)}))
"""
    found = json.loads(run(code))
    packages = {name.partition(".")[0] for name in found["new"]}
    assert packages.isdisjoint(HEAVY)
    assert not any(name.startswith("mapgrad_") for name in packages)
    assert "torch._dynamo" not in found["new"]
    assert found["read"] == 0


def test_import_is_quick():
    code = "import time, typing\nstarted = time.process_time()\nimport mapgrad\nprint(time.process_time() - started)"
    assert min(float(run(code)) for _ in range(3)) <= BUDGET


@pytest.mark.parametrize(
    "module",
    [
        "mapgrad",
        "mapgrad.errors",
        "mapgrad.solutions",
        "mapgrad.problems",
        "mapgrad.solvers",
        "mapgrad.workers",
        "mapgrad.cli",
    ],
)
def test_what_is_imported_without_torch(module):
    run_without_torch("import importlib\nimportlib.import_module(sys.argv[1])", module)


def test_names_that_need_no_torch_are_there_without_it():
    names = [name for module in ("errors", "solutions", "problems", "solvers") for name in mapgrad._NAMES[module]]
    assert len(names) > 30
    run_without_torch("import mapgrad\nfor name in sys.argv[1:]:\n    getattr(mapgrad, name)", *names)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_plugins_are_imported_without_torch(folder):
    run_without_torch(
        "import importlib\n"
        "plugin = importlib.import_module(sys.argv[1])\n"
        "hooks = [getattr(plugin, name, None) for name in ('mapgrad_solvers', 'mapgrad_executors')]\n"
        "assert [hook() for hook in hooks if hook]\n",
        folder.name,
    )


@pytest.mark.parametrize(
    "folder", [each for each in FOLDERS if each.name not in COMPUTES_IN_TORCH], ids=lambda folder: folder.name
)
def test_host_solvers_are_imported_without_torch(folder):
    modules = [f"{folder.name}.{path.stem}" for path in sorted(folder.glob("_[a-z]*.py"))]
    assert modules
    package = {"mapgrad_dask": "distributed", "mapgrad_ray": "ray"}.get(folder.name)
    if package and find_spec(package) is None:
        pytest.skip(f"{package} isn't installed: it isn't among the extra `all`")
    run_without_torch("import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)", *modules)


def test_a_factory_of_a_host_solver_works_without_torch():
    code = """
import pickle
import numpy as np
from mapgrad import GridShortestPath
from mapgrad.solvers import Block, resolve

problem = GridShortestPath(3, 3, neighbors=4)
factory = pickle.loads(pickle.dumps(resolve("networkx.shortest_path", problem)))
solver = factory.build(problem, {})
block = Block(-np.array([[1.0, 9, 9, 1, 9, 9, 1, 1, 1]]))
solver.solve_rows(solver.init(), block)
print(block.z.tolist())
"""
    assert json.loads(run_without_torch(code)) == [[1, 0, 0, 1, 0, 0, 1, 1, 1]]


def test_solvers_are_listed_without_torch():
    code = "import runpy\nsys.argv = ['mapgrad', 'solvers']\nrunpy.run_module('mapgrad', run_name='__main__')"
    assert "scipy.assignment" in run_without_torch(f"import os\nos.environ['COLUMNS'] = '160'\n{code}")


def test_public_names_are_the_same_in_all_three_lists():
    tree = ast.parse(CORE.joinpath("__init__.py").read_text(encoding="utf-8"))
    for_type_checkers = {
        (node.module.removeprefix("mapgrad").lstrip("."), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.partition(".")[0] == "mapgrad"
        for alias in node.names
    }
    on_first_use = {(module, name) for module, names in mapgrad._NAMES.items() for name in names}
    subpackages = {("", module) for module, names in mapgrad._NAMES.items() if not names}
    assert for_type_checkers == on_first_use | subpackages
    assert sorted(mapgrad.__all__) == sorted({name for _, name in for_type_checkers} | {"__version__"})
    assert set(mapgrad.__all__) <= set(dir(mapgrad))
    assert {name for name in dir(mapgrad) if not name.startswith("_")} <= set(mapgrad.__all__)


def test_public_names_are_those_of_their_modules():
    for module, names in mapgrad._NAMES.items():
        home = getattr(mapgrad, module)
        assert home is sys.modules[f"mapgrad.{module}"]
        assert all(getattr(mapgrad, name) is getattr(home, name) for name in names)
    assert mapgrad.__version__ == version("mapgrad")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'mapgrad' has no attribute 'MAPLayr'$"):
        mapgrad.MAPLayr  # noqa: B018 (the look-up is what is tested)
