"""Plugins that the program itself brings, and what is listed."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mapgrad.errors import PluginError, UnknownSolverError
from mapgrad.problems import Assignment, KSubset, Ranking
from mapgrad.solvers import InstanceSolver, SolverSpec, hookimpl, list_solvers, register, resolve, unregister

if TYPE_CHECKING:
    from conftest import Install

pytestmark = pytest.mark.usefixtures("install")

PROBLEM = KSubset(4, 2)


class First(InstanceSolver):
    def solve(self, state: Any, theta: np.ndarray, request: Any) -> np.ndarray:
        return np.zeros_like(theta)


@hookimpl
def offer_first() -> list[SolverSpec]:
    return [SolverSpec(name="first", factory=First, accepts=(KSubset, Ranking))]


PLUGIN = SimpleNamespace(mapgrad_solvers=offer_first)
EMPTY = "import mapgrad.solvers\n@mapgrad.solvers.hookimpl\ndef mapgrad_solvers():\n    return []\n"


def test_register_and_unregister():
    register(PLUGIN, "mine")
    (info,) = list_solvers()
    assert (info.name, info.plugin, info.distribution, info.version, info.status) == (
        "mine.first",
        "mine",
        "",
        "",
        "ok",
    )
    assert resolve("mine.first", PROBLEM).label == "mine.first (registered by this program)"
    unregister("mine")
    assert list_solvers() == []
    register(PLUGIN, "mine")
    assert [info.name for info in list_solvers()] == ["mine.first"]


def test_register_before_and_after_entry_points_are_read(install: Install):
    install("acme-solvers", {"acme": "acme_empty"}, acme_empty=EMPTY)
    register(PLUGIN, "early")
    assert [info.name for info in list_solvers()] == ["early.first"]
    register(PLUGIN, "late")
    assert [info.name for info in list_solvers()] == ["early.first", "late.first"]


def test_a_class_is_a_plugin_through_its_static_method():
    class Plugin:
        @staticmethod
        @hookimpl
        def mapgrad_solvers() -> list[SolverSpec]:
            return offer_first()

    register(Plugin, "mine")
    assert [info.name for info in list_solvers()] == ["mine.first"]


def test_a_taken_name_is_refused():
    register(PLUGIN, "mine")
    message = "plugin name 'mine' is taken (registered by this program): register under another name"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        register(SimpleNamespace(mapgrad_solvers=offer_first), "mine")


def test_an_entry_points_name_is_refused_and_not_forgotten(install: Install):
    install("acme-solvers", {"acme": "acme_empty"}, version="2.1", acme_empty=EMPTY)
    message = "plugin name 'acme' is taken (acme-solvers 2.1): register under another name"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        register(PLUGIN, "acme")
    message = (
        "plugin 'acme' (acme-solvers 2.1) is installed, not registered by this program: set MAPGRAD_BLOCK=acme to "
        "switch it off"
    )
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        unregister("acme")


def test_unregister_what_nobody_registered():
    with pytest.raises(UnknownSolverError, match=r"^no plugin is registered as 'mine'$"):
        unregister("mine")


def test_a_broken_plugin_is_refused_with_its_cause():
    @hookimpl
    def mapgrad_solvers() -> list[SolverSpec]:
        raise RuntimeError("no luck")

    message = "plugin 'mine' (registered by this program) is broken: RuntimeError: no luck"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$") as caught:
        register(SimpleNamespace(mapgrad_solvers=mapgrad_solvers), "mine")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert list_solvers() == []
    register(PLUGIN, "mine")


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        (7, "TypeError: a name must be a str, got 7"),
        ("", "ValueError: '' can't be a name"),
        ("a.b", "ValueError: 'a.b' can't be a name"),
        ("my plugin", "ValueError: 'my plugin' can't be a name"),
        ("auto", "ValueError: 'auto' asks for the cheapest exact solver"),
    ],
)
@pytest.mark.parametrize("blocked", ["", "a.b,my plugin,auto"])
def test_names_that_a_plugin_cannot_have(name: Any, detail: str, blocked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAPGRAD_BLOCK", blocked)
    with pytest.raises(PluginError, match=rf"is broken: {re.escape(detail)}"):
        register(PLUGIN, name)


def test_a_blocked_name_may_be_registered_and_stays_unused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAPGRAD_BLOCK", "mine")
    register(PLUGIN, "mine")
    assert [(info.name, info.status) for info in list_solvers()] == [("mine", "blocked")]
    with pytest.raises(PluginError, match=r"^plugin 'mine' \(registered by this program\) is blocked"):
        resolve("mine.first", PROBLEM)


def test_one_of_many_threads_gets_a_name():
    threads = 16
    barrier = threading.Barrier(threads)

    def claim() -> bool:
        barrier.wait()
        try:
            register(SimpleNamespace(mapgrad_solvers=offer_first), "mine")
        except PluginError:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        claims = [future.result(timeout=30) for future in [pool.submit(claim) for _ in range(threads)]]
    assert sum(claims) == 1


def test_list_for_a_problem():
    def even_only(problem: Any) -> str | None:
        return None if problem.shape[0] % 2 == 0 else "n is odd"

    @hookimpl
    def mapgrad_solvers() -> list[SolverSpec]:
        return [
            SolverSpec(name="both", factory=First, accepts=(KSubset, Ranking)),
            SolverSpec(name="even", factory=First, accepts=(KSubset,), supports=even_only),
            SolverSpec(name="absent", factory=First, accepts=(KSubset,), requires=("acme_engine",)),
        ]

    register(SimpleNamespace(mapgrad_solvers=mapgrad_solvers), "mine")

    def names(problem: Any) -> list[str]:
        return [info.name for info in list_solvers(problem)]

    assert names(None) == ["mine.absent", "mine.both", "mine.even"]
    assert names(KSubset(4, 2)) == ["mine.absent", "mine.both", "mine.even"]
    assert names(KSubset(5, 2)) == ["mine.absent", "mine.both"]
    assert names(Ranking(3)) == ["mine.both"]
    assert names(Assignment(2)) == []


def test_list_for_something_else_than_a_problem():
    message = "problem must be a problem, such as mapgrad.KSubset(10, 3), got (4, 2)"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        list_solvers((4, 2))  # pyright: ignore[reportArgumentType] (the mistake under test)


def test_traits_of_a_class_that_cannot_be_loaded(caplog: pytest.LogCaptureFixture):
    @hookimpl
    def mapgrad_solvers() -> list[SolverSpec]:
        return [SolverSpec(name="gone", factory="json:Gone", accepts=(KSubset,))]

    register(SimpleNamespace(mapgrad_solvers=mapgrad_solvers), "mine")
    (info,) = list_solvers()
    assert (info.status, info.traits) == ("ok", None)
    (message,) = caplog.messages
    assert message == (
        "mine.gone (registered by this program) can't be loaded: importing 'json:Gone' raised AttributeError: module "
        "'json' has no attribute 'Gone'"
    )
