"""Imports run one way: up the house's list of packages, and in no circle; plugins see `mapgrad` alone.

All imports count, those for type checkers and those inside functions too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

CORE = Path(mapgrad.__file__).parents[1]
PLUGINS = Path(__file__).parents[1] / "plugins"

FLOORS = (
    {"arguments", "errors", "disk_cache"},
    {"solutions"},
    {"problems"},
    {"solvers"},
    {"workers"},
    {"recording"},
    {"batching"},
    {"exact", "gradients", "pool"},
    {"layer", "losses", "data", "distribution", "decorator", "pipelining", "replaying", "seeding"},
    {"testing"},
    {"bench"},
    {"mapgrad"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
"""Packages and modules of the core, the lowest first; `mapgrad` is its __init__, with the public names."""

UPWARDS = {
    ("mapgrad.errors", "mapgrad.solutions"): "an annotation: RowsError carries a batch's Solutions",
}
"""Imports from a higher floor that may stay, each with its reason."""

CIRCLES = {
    (
        "mapgrad.problems._base",
        "mapgrad.problems._program",
    ): "Problem.to_ilp returns an IntegerProgram, itself a Problem",
}
"""Imports that may close a circle within a package, each with its reason."""


def modules_below(root: Path) -> dict[str, Path]:
    """Return the modules of a source root by their names."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules_below(CORE)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module, modules: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield each imported module with the name that is taken from it; the name is empty where it is the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule, "") if submodule in modules else (str(node.module), alias.name)


def graph() -> dict[str, set[str]]:
    """Return for each module of the core those of the core that it imports."""
    return {
        name: {module for module, _ in imported(parse(path), MODULES) if module in MODULES}
        for name, path in MODULES.items()
    }


GRAPH = graph()


def package_of(module: str) -> str:
    """Return the part of the core that a module belongs to, such as "batching"."""
    return module.split(".")[1] if "." in module else module


def floor_of(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if package_of(module) in floor)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_part_of_the_core_has_a_floor():
    assert {package_of(module) for module in MODULES} <= set().union(*FLOORS)


def test_packages_import_from_their_own_floor_and_below():
    upwards = {
        (module, other) for module, others in GRAPH.items() for other in others if floor_of(other) > floor_of(module)
    }
    assert upwards == set(UPWARDS)


def test_packages_form_no_circle():
    packages: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        packages.setdefault(package_of(module), set()).update(
            package_of(other)
            for other in others
            if package_of(other) != package_of(module) and (module, other) not in UPWARDS
        )
    assert circle(packages) == []


def within(package: str, exceptions: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    """Return for each module of a package those of the same package that it imports, without some imports."""
    return {
        module: {other for other in others if package_of(other) == package and (module, other) not in exceptions}
        for module, others in GRAPH.items()
        if package_of(module) == package
    }


@pytest.mark.parametrize("package", sorted({package_of(module) for module in MODULES}))
def test_modules_of_a_package_form_no_circle(package: str):
    assert circle(within(package, CIRCLES)) == []


@pytest.mark.parametrize(("module", "other"), CIRCLES)
def test_the_exceptions_are_needed(module: str, other: str):
    found = circle(within(package_of(module), CIRCLES.keys() - {(module, other)}))
    assert {module, other} <= set(found)


@pytest.mark.parametrize("plugin", sorted(path.name for path in PLUGINS.iterdir() if path.name.startswith("mapgrad_")))
def test_a_plugin_imports_public_names_of_mapgrad_and_itself(plugin: str):
    modules = modules_below(PLUGINS)
    public = {("mapgrad", ""), *(("mapgrad", name) for name in mapgrad.__all__)}
    for path in (PLUGINS / plugin).rglob("*.py"):
        tree = parse(path)
        ours = {(module, name) for module, name in imported(tree, modules) if module.startswith("mapgrad")}
        outside = {(module, name) for module, name in ours if module.partition(".")[0] != plugin}
        assert outside <= public, path.name
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mapgrad"
        }
        assert used <= set(mapgrad.__all__), path.name


@pytest.mark.parametrize("plugin", sorted(path.name for path in PLUGINS.iterdir() if path.name.startswith("mapgrad_")))
def test_modules_of_a_plugin_form_no_circle(plugin: str):
    modules = {name: path for name, path in modules_below(PLUGINS).items() if name.partition(".")[0] == plugin}
    assert (
        circle({name: {module for module, _ in imported(parse(path), modules)} for name, path in modules.items()}) == []
    )


def test_a_circle_is_found_however_it_is_written():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "import mapgrad.errors\n"
        "if TYPE_CHECKING:\n    from mapgrad.solvers import _resolve\n"
        "def late():\n    from mapgrad.problems import Problem\n"
    )
    assert set(imported(tree, MODULES)) == {
        ("typing", "TYPE_CHECKING"),
        ("mapgrad.errors", ""),
        ("mapgrad.solvers._resolve", ""),
        ("mapgrad.problems", "Problem"),
    }
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
