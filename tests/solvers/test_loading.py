"""Plugins that are found by their entry points: one test for each result, with its full message."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from mapgrad.errors import MissingDependencyError, PluginError, UnknownSolverError, UnsupportedProblemError
from mapgrad.problems import KSubset, Ranking
from mapgrad.solvers import SolverInfo, Traits, _loading, list_solvers, resolve

if TYPE_CHECKING:
    from conftest import Install

GOOD = """
import numpy as np
import mapgrad
from mapgrad.problems import KSubset, Ranking
from mapgrad.solvers import InstanceSolver, SolverSpec, hookimpl

class Sorting(InstanceSolver):
    def solve(self, state, theta, request):
        z = np.zeros(theta.shape)
        z[np.argsort(-theta)[: self.problem.k]] = 1
        return z

@hookimpl
def mapgrad_solvers():
    return [SolverSpec(name="sort", factory=f"{__name__}:Sorting", accepts=(KSubset,))]
"""

HEAD = """
from mapgrad.problems import KSubset
from mapgrad.solvers import InstanceSolver, SolverSpec, hookimpl
"""

PROBLEM = KSubset(4, 2)


def summary(info: SolverInfo) -> tuple[str, str, str, str, str]:
    return info.name, info.distribution, info.version, info.status, info.detail


def broken_detail(install: Install, code: str) -> str:
    """Install one plugin, and return why it is broken."""
    install("acme-solvers", {"acme": "acme_broken"}, version="2.1", acme_broken=HEAD + code)
    (info,) = list_solvers()
    assert summary(info)[:4] == ("acme", "acme-solvers", "2.1", "broken")
    return info.detail


def test_a_good_plugin_is_listed_and_resolved(install: Install):
    install("acme-solvers", {"acme": "acme_good"}, version="2.1", acme_good=GOOD)
    (info,) = list_solvers()
    assert summary(info) == ("acme.sort", "acme-solvers", "2.1", "ok", "")
    assert (info.plugin, info.accepts, info.traits) == ("acme", (KSubset,), Traits())
    factory = resolve("acme.sort", PROBLEM)
    assert (factory.name, factory.label) == ("acme.sort", "acme.sort (acme-solvers 2.1)")
    assert factory.build(PROBLEM, {}).problem == PROBLEM


def test_an_entry_point_may_name_an_object(install: Install):
    code = HEAD + (
        "class Plugin:\n"
        "    @hookimpl\n"
        "    def mapgrad_solvers(self):\n"
        "        return (SolverSpec(name='acme', factory='none:None_', accepts=(KSubset,)),)\n"
        "plugin = Plugin()\n"
    )
    install("acme-solvers", {"acme": "acme_object:plugin"}, acme_object=code)
    assert [info.name for info in list_solvers()] == ["acme"]


def test_nothing_is_read_when_mapgrad_is_imported():
    code = (
        "import importlib.metadata as metadata, sys, torch\n"
        "def refuse(*_, **__): raise AssertionError('entry points were read')\n"
        "metadata.entry_points = refuse\n"
        "metadata.Distribution.entry_points = property(refuse)\n"
        "import mapgrad\n"
        "for name in mapgrad.__all__:\n"
        "    if name != '__version__':\n"
        "        getattr(mapgrad, name)\n"
        "print('mapgrad_topk' in sys.modules, 'mapgrad_networkx' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("False False\n", 0), result.stderr


def test_a_name_loads_its_own_plugin_only(install: Install):
    install("acme-solvers", {"acme": "acme_lazy"}, acme_lazy=GOOD)
    install("other-solvers", {"other": "other_lazy"}, other_lazy=GOOD)
    resolve("acme.sort", PROBLEM)
    assert "acme_lazy" in sys.modules
    assert "other_lazy" not in sys.modules


def test_a_typo_loads_no_plugin(install: Install):
    install("acme-solvers", {"acme": "acme_exits"}, acme_exits="raise AssertionError('it was imported')")
    install("other-solvers", {"other": "other_lazy"}, other_lazy=GOOD)
    message = "no solver is named 'acne.sort'; did you mean 'acme'?"
    with pytest.raises(UnknownSolverError, match=f"^{re.escape(message)}$"):
        resolve("acne.sort", PROBLEM)
    assert {"acme_exits", "other_lazy"}.isdisjoint(sys.modules)
    message = "no solver is named 'other.sorted'; did you mean 'other.sort'?"
    with pytest.raises(UnknownSolverError, match=f"^{re.escape(message)}$"):
        resolve("other.sorted", PROBLEM)
    assert "acme_exits" not in sys.modules


def test_a_plugin_that_raises_on_import_leaves_the_others_alone(install: Install, caplog: pytest.LogCaptureFixture):
    install("acme-solvers", {"acme": "acme_raises"}, version="2.1", acme_raises="1 / 0")
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    for _ in range(2):
        assert [summary(info) for info in list_solvers()] == [
            ("acme", "acme-solvers", "2.1", "broken", "ZeroDivisionError: division by zero"),
            ("other.sort", "other-solvers", "1.0", "ok", ""),
        ]
    message = "plugin 'acme' (acme-solvers 2.1) is broken: ZeroDivisionError: division by zero"
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("mapgrad", "WARNING", message)
    ]
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$") as caught:
        resolve("acme.sort", PROBLEM)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("class Panic(BaseException): pass\nraise Panic('at src/lib.rs:1')", "Panic: at src/lib.rs:1"),
        (HEAD + "@hookimpl\ndef mapgrad_solvers():\n    raise SystemExit('bye')\n", "SystemExit: bye"),
    ],
)
def test_a_plugin_that_wants_to_end_the_process_is_broken(install: Install, code: str, detail: str):
    install("acme-solvers", {"acme": "acme_exits"}, acme_exits=code)
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    assert [(info.name, info.status, info.detail) for info in list_solvers()] == [
        ("acme", "broken", detail),
        ("other.sort", "ok", ""),
    ]
    assert resolve("auto", PROBLEM).name == "other.sort"


def test_an_error_whose_text_ends_the_process_is_held(install: Install):
    code = "class Panic(BaseException):\n    def __str__(self):\n        raise SystemExit(3)\nraise Panic\n"
    assert broken_detail(install, code) == "Panic: its text can't be read, as that raised SystemExit"


def test_a_name_whose_solvers_cannot_take_the_problem_runs_no_other_plugin(install: Install):
    install("acme-solvers", {"acme": "acme_good"}, acme_good=GOOD)
    install("mapgrad", {"topk": "topk_ours"}, topk_ours=GOOD)
    install("other-solvers", {"other": "other_lazy"}, other_lazy=GOOD)
    with pytest.raises(UnsupportedProblemError, match=r"Installed solvers that can: none$"):
        resolve("acme.sort", Ranking(3))
    assert "other_lazy" not in sys.modules
    assert "topk_ours" in sys.modules
    assert {info.name for info in list_solvers()} == {"acme.sort", "other.sort", "topk.sort"}


def test_a_slow_plugin_is_named(install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(_loading, "_SLOW", 0.2)
    install("acme-solvers", {"acme": "acme_slow"}, version="2.1", acme_slow="import time\ntime.sleep(.25)\n" + GOOD)
    install("broken-solvers", {"broken": "acme_breaks"}, acme_breaks="import time\ntime.sleep(.25)\n1 / 0\n")
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    for _ in range(2):
        slow, broken, quick = list_solvers()
        assert (slow.status, broken.status, quick.status) == ("ok", "broken", "ok")
        assert min(slow.seconds, broken.seconds) >= 0.25
        assert quick.seconds < slow.seconds
    messages = [message for message in caplog.messages if "to load" in message]
    assert [re.sub(r"\d+\.\d s", "N s", message) for message in messages] == [
        "plugin 'acme' (acme-solvers 2.1) took N s to load; MAPGRAD_BLOCK=acme keeps it out",
        "plugin 'broken' (broken-solvers 1.0) took N s to load; MAPGRAD_BLOCK=broken keeps it out",
    ]


def test_the_log_names_a_plugin_that_is_about_to_run(install: Install, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "mapgrad")
    install("acme-solvers", {"acme": "acme_good"}, version="2.1", acme_good=GOOD)
    list_solvers()
    assert caplog.messages == ["loading plugin 'acme' (acme-solvers 2.1)"]


def test_a_requirement_whose_package_ends_the_process_is_missing(install: Install):
    code = GOOD.replace("accepts=", "requires=('acme_parent.engine',), accepts=")
    install("acme-solvers", {"acme": "acme_needy"}, acme_needy=code, acme_parent="raise SystemExit(3)")
    assert [info.status for info in list_solvers()] == ["missing"]


def test_an_interrupted_import_may_be_tried_again(install: Install):
    code = (
        "import acme_count\nacme_count.imports += 1\nif acme_count.imports == 1:\n    raise KeyboardInterrupt\n" + GOOD
    )
    install("acme-solvers", {"acme": "acme_slow"}, acme_slow=code, acme_count="imports = 0")
    with pytest.raises(KeyboardInterrupt):
        list_solvers()
    assert [(info.name, info.status) for info in list_solvers()] == [("acme.sort", "ok")]


def test_unknown_hook(install: Install):
    detail = broken_detail(install, "@hookimpl\ndef mapgrad_solver():\n    return []\n")
    assert re.fullmatch(
        r"PluginValidationError: unknown hook 'mapgrad_solver' in plugin <module 'acme_broken' .*>", detail
    )


def test_unknown_hook_beside_the_right_one(install: Install):
    code = "@hookimpl\ndef mapgrad_solvers():\n    return []\n@hookimpl\ndef mapgrad_problems():\n    return []\n"
    detail = broken_detail(install, code)
    assert detail.startswith("PluginValidationError: unknown hook 'mapgrad_problems' in plugin")


def test_hook_with_an_argument_that_is_not_offered(install: Install):
    detail = broken_detail(install, "@hookimpl\ndef mapgrad_solvers(problem):\n    return []\n")
    assert detail.startswith("PluginValidationError: Plugin 'acme' for hook 'mapgrad_solvers' hookimpl definition")
    assert "\n" not in detail


def test_forgotten_marker(install: Install):
    detail = broken_detail(install, "def mapgrad_solvers():\n    return []\n")
    assert re.fullmatch(
        r"TypeError: <module 'acme_broken' .*> has no mapgrad_solvers\(\) or mapgrad_executors\(\) marked with "
        r"@mapgrad.hookimpl",
        detail,
    )


def test_hook_that_raises(install: Install):
    detail = broken_detail(install, "@hookimpl\ndef mapgrad_solvers():\n    raise RuntimeError('no\\n luck')\n")
    assert detail == "RuntimeError: no luck"


@pytest.mark.parametrize("returned", ["None", "'acme.sort'", "[1]", "{'acme': 1}"])
def test_hook_that_returns_nonsense(install: Install, returned: str):
    detail = broken_detail(install, f"@hookimpl\ndef mapgrad_solvers():\n    return {returned}\n")
    assert detail == f"TypeError: mapgrad_solvers() must return a list of SolverSpec, got {returned}"


def test_entry_point_of_a_module_that_is_not_there(install: Install):
    install("acme-solvers", {"acme": "acme_absent"})
    (info,) = list_solvers()
    assert summary(info) == (
        "acme",
        "acme-solvers",
        "1.0",
        "broken",
        "ModuleNotFoundError: No module named 'acme_absent'",
    )


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("a.b", "ValueError: 'a.b' can't be a name: write letters, digits, '_' and '-', a letter or '_' first"),
        ("auto", "ValueError: 'auto' asks for the cheapest exact solver and can't be a plugin's name"),
    ],
)
def test_names_that_a_plugin_cannot_have(install: Install, name: str, detail: str):
    install("acme-solvers", {name: "acme_named"}, acme_named=GOOD)
    assert [summary(info)[3:] for info in list_solvers()] == [("broken", detail)]


def test_an_entry_point_that_names_no_module_breaks_itself_only(install: Install):
    install("acme-solvers", {"acme": "no module!"})
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    assert [(info.name, info.status) for info in list_solvers()] == [("acme", "broken"), ("other.sort", "ok")]


def test_two_third_parties_with_one_name_are_both_refused(install: Install):
    install("zeta-solvers", {"acme": "acme_zeta", "zeta": "acme_zeta"}, version="0.3", acme_zeta=GOOD)
    install("alpha-solvers", {"acme": "acme_alpha"}, version="1.2", acme_alpha=GOOD)
    detail = "alpha-solvers 1.2, zeta-solvers 0.3 claim the same name; uninstall all but one of them"
    clash, zeta = list_solvers()
    assert summary(clash) == ("acme", "alpha-solvers, zeta-solvers", "1.2, 0.3", "broken", detail)
    assert summary(zeta) == ("zeta.sort", "zeta-solvers", "0.3", "ok", "")
    message = f"plugin 'acme' (alpha-solvers 1.2, zeta-solvers 0.3) is broken: {detail}"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        resolve("acme.sort", PROBLEM)


def test_ours_wins_a_clash(install: Install, caplog: pytest.LogCaptureFixture):
    install("alpha-solvers", {"topk": "topk_alpha"}, version="1.2", topk_alpha="1 / 0")
    install("mapgrad", {"topk": "topk_ours"}, version="0.1.0", topk_ours=GOOD)
    assert [summary(info) for info in list_solvers()] == [("topk.sort", "mapgrad", "0.1.0", "ok", "")]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "plugin name 'topk' belongs to mapgrad 0.1.0: that of alpha-solvers 1.2 is ignored")
    ]


def test_one_distribution_seen_twice_is_one_claimant(install: Install):
    install("acme-solvers", {"acme": "acme_old"}, version="1.0", folder="late", acme_old="1 / 0")
    install("Acme_Solvers", {"acme": "acme_new"}, version="2.0", folder="early", acme_new=GOOD)
    assert [summary(info) for info in list_solvers()] == [("acme.sort", "Acme_Solvers", "2.0", "ok", "")]


def test_an_entry_point_written_twice_is_one_claim(install: Install):
    info = install("acme-solvers", {"acme": "acme_twice"}, acme_twice=GOOD)
    info.joinpath("entry_points.txt").write_text("[mapgrad]\nacme = acme_twice\nacme = acme_twice\n")
    assert [(info.name, info.status) for info in list_solvers()] == [("acme.sort", "ok")]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_in_which_distributions_are_listed_does_not_show(
    install: Install, monkeypatch: pytest.MonkeyPatch, backwards: bool
):
    listed = metadata.distributions

    def distributions(*, path: list[str]) -> list[metadata.Distribution]:
        return sorted(listed(path=path), key=lambda each: (each.name, each.version), reverse=backwards)

    monkeypatch.setattr(metadata, "distributions", distributions)
    for name, folder in (("beta", "late"), ("gamma", "late"), ("alpha", "late"), ("delta", "early")):
        install(f"{name}-solvers", {"acme": f"acme_{name}"}, folder=folder, **{f"acme_{name}": GOOD})
    install("gamma-solvers", {"acme": "acme_gamma"}, version="2.0", folder="late")
    (info,) = list_solvers()
    assert info.distribution == "alpha-solvers, beta-solvers, delta-solvers, gamma-solvers"
    assert info.version == "1.0, 1.0, 1.0, 2.0"


def test_distribution_without_metadata_is_named_by_its_folder(install: Install):
    (install("acme-solvers", {"acme": "acme_bare"}, version="2.1", acme_bare=GOOD) / "METADATA").unlink()
    assert [summary(info) for info in list_solvers()] == [("acme.sort", "acme_solvers", "2.1", "ok", "")]


def test_unreadable_entry_points_hide_nobody_else(install: Install, caplog: pytest.LogCaptureFixture):
    info = install("acme-solvers", {"acme": "acme_good"}, acme_good=GOOD)
    info.joinpath("entry_points.txt").write_text("[mapgrad]\nno equals sign\n")
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    assert [info.name for info in list_solvers()] == ["other.sort"]
    assert caplog.messages[0].startswith("the entry points of acme-solvers 1.0 can't be read: ")


def test_blocked_plugins_are_not_imported(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme-solvers", {"acme": "acme_blocked", "other": "acme_blocked"}, acme_blocked="1 / 0")
    monkeypatch.setenv("MAPGRAD_BLOCK", "other, acme")
    assert [summary(info)[3:] for info in list_solvers()] == [("blocked", "MAPGRAD_BLOCK names it")] * 2
    message = "plugin 'acme' (acme-solvers 1.0) is blocked: MAPGRAD_BLOCK names it"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        resolve("acme", PROBLEM)


def test_of_installed_plugins_only_those_that_are_named_are_imported(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme-solvers", {"acme": "acme_only", "other": "other_only"}, acme_only=GOOD, other_only="1 / 0")
    monkeypatch.setenv("MAPGRAD_ONLY", "acme, mine")
    assert [summary(info)[3:] for info in list_solvers()] == [("ok", ""), ("blocked", "MAPGRAD_ONLY doesn't name it")]
    message = "plugin 'other' (acme-solvers 1.0) is blocked: MAPGRAD_ONLY doesn't name it"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        resolve("other", PROBLEM)


def test_names_of_no_plugin_are_told(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    install("acme-solvers", {"acme": "acme_typo"}, acme_typo=GOOD)
    monkeypatch.setenv("MAPGRAD_BLOCK", "acme.sort")
    monkeypatch.setenv("MAPGRAD_ONLY", "acme, acem")
    assert [info.name for info in list_solvers()] == ["acme.sort"]
    advice = "and no plugin has that name: name plugins, as highs, not solvers, as highs.tsp"
    assert caplog.messages == [f"MAPGRAD_BLOCK names 'acme.sort', {advice}", f"MAPGRAD_ONLY names 'acem', {advice}"]


def test_auto_says_which_plugins_it_did_without(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme-solvers", {"acme": "acme_without", "other": "acme_without"}, acme_without="1 / 0")
    monkeypatch.setenv("MAPGRAD_BLOCK", "acme")
    with pytest.raises(UnsupportedProblemError) as caught:
        resolve("auto", PROBLEM)
    assert str(caught.value).endswith(
        "; plugins that can't be used: acme: MAPGRAD_BLOCK names it"
        "; plugins that can't be used: other: ZeroDivisionError: division by zero"
    )


def test_strict_raises_what_would_be_logged(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    install("acme-solvers", {"acme": "acme_raises"}, acme_raises="1 / 0")
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    monkeypatch.setenv("MAPGRAD_STRICT", "1")
    assert resolve("other.sort", PROBLEM).name == "other.sort"
    for _ in range(2):
        with pytest.raises(PluginError, match=r"^plugin 'acme' \(acme-solvers 1\.0\) is broken: ZeroDivisionError"):
            list_solvers()
    assert caplog.messages == []


def test_missing_requirement(install: Install, monkeypatch: pytest.MonkeyPatch):
    code = GOOD.replace("accepts=", "requires=('json', 'acme_engine'), install='pip install acme-engine', accepts=")
    install("acme-solvers", {"acme": "acme_needy"}, acme_needy=code)
    detail = "needs acme_engine, which isn't installed: pip install acme-engine"
    (info,) = list_solvers()
    assert summary(info) == ("acme.sort", "acme-solvers", "1.0", "missing", detail)
    assert info.traits is None
    with pytest.raises(MissingDependencyError, match=f"^{re.escape(f'acme.sort (acme-solvers 1.0) {detail}')}$"):
        resolve("acme.sort", PROBLEM)
    monkeypatch.setitem(sys.modules, "acme_engine", sys)
    assert [info.status for info in list_solvers()] == ["ok"]


def test_racing_threads_import_once_and_agree(install: Install):
    slow = "import time, acme_counter\nacme_counter.imports += 1\ntime.sleep(.05)\n" + GOOD
    install("acme-solvers", {"acme": "acme_slow"}, acme_slow=slow, acme_counter="imports = 0")
    install("other-solvers", {"other": "other_raises"}, other_raises="1 / 0")
    threads = 16
    barrier = threading.Barrier(threads)

    def look_up() -> list[tuple[str, str]]:
        barrier.wait()
        return [(info.name, info.status) for info in list_solvers()]

    with ThreadPoolExecutor(threads) as pool:
        found = [future.result(timeout=30) for future in [pool.submit(look_up) for _ in range(threads)]]
    assert found == [[("acme.sort", "ok"), ("other", "broken")]] * threads
    assert sys.modules["acme_counter"].imports == 1


def test_racing_threads_log_a_broken_plugin_once(install: Install, caplog: pytest.LogCaptureFixture):
    install("acme-solvers", {"acme": "acme_raises"}, acme_raises="import time\ntime.sleep(.01)\n1 / 0")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: list_solvers(), range(8)))
    assert len(caplog.records) == 1


def test_a_plugin_that_lists_solvers_while_it_is_imported(install: Install):
    code = "from mapgrad.solvers import list_solvers\nSEEN = [info.name for info in list_solvers()]\n" + GOOD
    install("acme-solvers", {"acme": "acme_curious"}, acme_curious=code)
    install("other-solvers", {"other": "other_good"}, other_good=GOOD)
    assert [info.name for info in list_solvers()] == ["acme.sort", "other.sort"]
    assert sys.modules["acme_curious"].SEEN == ["other.sort"]


def test_a_plugin_that_looks_itself_up_while_it_is_imported(install: Install):
    code = HEAD + "from mapgrad.solvers import resolve\nresolve('acme', KSubset(4, 2))\n"
    install("acme-solvers", {"acme": "acme_selfish"}, acme_selfish=code)
    (info,) = list_solvers()
    assert info.detail == (
        "PluginError: plugin 'acme' (acme-solvers 1.0) is being imported: look it up when that is done"
    )


def test_look_ups_and_imports_in_two_threads_do_not_deadlock(install: Install):
    """One thread imports the plugin's module, whose code lists solvers; another lists solvers, which imports it."""
    code = "import time\nfrom mapgrad.solvers import list_solvers\ntime.sleep(.1)\nlist_solvers()\n" + GOOD
    install("acme-solvers", {"acme": "acme_crossed"}, acme_crossed=code)
    importing = threading.Thread(target=__import__, args=("acme_crossed",), daemon=True)
    listing = threading.Thread(target=list_solvers, daemon=True)
    importing.start()
    listing.start()
    importing.join(timeout=20)
    listing.join(timeout=20)
    assert not importing.is_alive()
    assert not listing.is_alive()
    assert [info.name for info in list_solvers()] == ["acme.sort"]
