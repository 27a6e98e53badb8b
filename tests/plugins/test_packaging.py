"""Plugins are packages as third parties ship them: found by entry point, thin until used, on public names only."""

import ast
import importlib
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import mapgrad

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file())
MODULES = sorted((ROOT / "plugins").glob("*/*.py"))


def specs_of(plugin: str) -> list[mapgrad.SolverSpec | mapgrad.ExecutorSpec]:
    module = importlib.import_module(plugin)
    hooks = [getattr(module, name) for name in ("mapgrad_solvers", "mapgrad_executors") if hasattr(module, name)]
    assert hooks
    return [spec for hook in hooks for spec in hook()]


class WithoutTypes(ast.NodeTransformer):
    """Takes out what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(WithoutTypes().visit(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes_of(name: str, path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


def outside(path: Path) -> set[str]:
    """The packages a module imports beside the standard library and itself."""
    return {name.partition(".")[0] for name in imported(path)} - sys.stdlib_module_names - {path.parent.name}


def test_the_entry_points_are_the_folders_of_plugins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["mapgrad"] == {name.removeprefix("mapgrad_"): name for name in PLUGINS}
    assert {path.name for path in (ROOT / "plugins").iterdir() if path.name != "__pycache__"} == set(PLUGINS)


LOADS = """
import importlib, sys, torch, mapgrad
mapgrad.SolverSpec, mapgrad.ExecutorSpec, mapgrad.Knapsack
for name in sys.argv[1:]:
    before = set(sys.modules)
    plugin = importlib.import_module(name)
    for hook in ("mapgrad_solvers", "mapgrad_executors"):
        getattr(plugin, hook, list)()
    print(*sorted(set(sys.modules) - before))
"""


def test_plugins_import_nothing_but_mapgrad_until_they_are_used() -> None:
    for plugin in PLUGINS:
        assert outside(ROOT / "plugins" / plugin / "__init__.py") == {"mapgrad"}
    done = subprocess.run([sys.executable, "-c", LOADS, *PLUGINS], capture_output=True, text=True, check=True)
    loaded = [{name.partition(".")[0] for name in line.split()} for line in done.stdout.splitlines()]
    assert loaded == [{plugin} for plugin in PLUGINS]


def test_torch_and_mapgrad_load_no_solver_package() -> None:
    script = "import sys, torch; before = set(sys.modules); import mapgrad; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.partition(".")[0] for name in loaded} & {"networkx", "scipy", *PLUGINS}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_plugin_uses_public_names_of_mapgrad_and_no_other_plugin(path: Path) -> None:
    names = imported(path)
    own = path.parent.name
    assert not {name for name in names if name.startswith("mapgrad_") and name.partition(".")[0] != own}
    from_mapgrad = {name for name in names if name.partition(".")[0] == "mapgrad"}
    assert not {name for name in from_mapgrad if any(part.startswith("_") for part in name.split("."))}
    assert attributes_of("mapgrad", path) <= set(mapgrad.__all__)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_spec_names_a_solver_and_all_that_it_imports(plugin: str) -> None:
    for spec in specs_of(plugin):
        module, _, name = spec.factory.partition(":")
        assert module.startswith(f"{plugin}._")
        if isinstance(spec, mapgrad.SolverSpec):
            solver = getattr(importlib.import_module(module), name)
            assert issubclass(solver, mapgrad.InstanceSolver | mapgrad.BatchSolver)
        found = find_spec(module)
        assert found is not None
        assert outside(Path(str(found.origin))) <= {"mapgrad", "numpy", "torch", *spec.requires}
        assert bool(spec.requires) == bool(spec.install)


def test_the_install_hints_name_an_extra_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for plugin in PLUGINS:
        for spec in specs_of(plugin):
            if spec.requires:
                own = plugin.removeprefix("mapgrad_")
                extra = own if own in project["optional-dependencies"] else "compiled"
                assert spec.install == f"pip install 'mapgrad[{extra}]'"
                needed = " ".join(project["optional-dependencies"][extra])
                assert all(package in needed for package in spec.requires)
