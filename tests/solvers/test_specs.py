"""Specs that a plugin got wrong: the message says which field of which solver, what was expected and what came."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from mapgrad.errors import PluginError
from mapgrad.problems import KSubset
from mapgrad.solvers import SolverSpec, hookimpl, register


def plugin_of(*specs: SolverSpec) -> SimpleNamespace:
    @hookimpl
    def mapgrad_solvers() -> list[SolverSpec]:
        return list(specs)

    return SimpleNamespace(mapgrad_solvers=mapgrad_solvers)


def spec(**fields: Any) -> SolverSpec:
    return SolverSpec(**{"name": "sort", "factory": "acme:Sort", "accepts": (KSubset,), **fields})


CLASS = 'must be "module:Class" or a class derived from InstanceSolver or BatchSolver'
FEATURES = "must be a tuple of some of 'semicontinuous', 'sos', 'indicators'"
PROBLEMS = "must be a tuple of problem classes, at least one"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"name": 3}, "TypeError: a name must be a str, got 3"),
        (
            {"name": "a.b"},
            "ValueError: 'a.b' can't be a name: write letters, digits, '_' and '-', a letter or '_' first",
        ),
        ({"factory": "acme.Sort"}, f"TypeError: factory of solver 'sort' {CLASS}, got 'acme.Sort'"),
        ({"factory": dict}, f"TypeError: factory of solver 'sort' {CLASS}, got <class 'dict'>"),
        ({"accepts": KSubset}, f"TypeError: accepts of solver 'sort' {PROBLEMS}, got {KSubset}"),
        ({"accepts": ()}, f"TypeError: accepts of solver 'sort' {PROBLEMS}, got ()"),
        ({"accepts": ("KSubset",)}, f"TypeError: accepts of solver 'sort' {PROBLEMS}, got ('KSubset',)"),
        ({"supports": True}, "TypeError: supports of solver 'sort' must be None or a function of a problem, got True"),
        ({"requires": "numpy"}, "TypeError: requires of solver 'sort' must be a tuple of module names, got 'numpy'"),
        ({"install": None}, "TypeError: install of solver 'sort' must be a str, got None"),
        ({"cost": 1e-6}, "TypeError: cost of solver 'sort' must be None or a function of a problem, got 1e-06"),
        ({"setup": 1e-3}, "TypeError: setup of solver 'sort' must be None or a function of a problem, got 0.001"),
        ({"native": "sos"}, f"TypeError: native of solver 'sort' {FEATURES}, got 'sos'"),
        ({"native": ("sos", "sos1")}, f"TypeError: native of solver 'sort' {FEATURES}, got ('sos', 'sos1')"),
        (
            {"settings": {"engine": "scip"}},
            "TypeError: settings of solver 'sort' must be a tuple of dictionaries of options, got {'engine': 'scip'}",
        ),
        (
            {"settings": ("scip",)},
            "TypeError: settings of solver 'sort' must be a tuple of dictionaries of options, got ('scip',)",
        ),
    ],
)
def test_malformed_field(fields: dict[str, Any], detail: str):
    message = f"plugin 'acme' (registered by this program) is broken: {detail}"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        register(plugin_of(spec(**fields)), "acme")


def test_two_solvers_of_one_name():
    with pytest.raises(
        PluginError, match=r"broken: ValueError: mapgrad_solvers\(\) returned two solvers named 'sort'$"
    ):
        register(plugin_of(spec(), spec(factory="acme:Other")), "acme")
