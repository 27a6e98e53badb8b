import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

import mapgrad


class LargestSum(mapgrad.InstanceSolver):
    """Honest: the k largest."""

    def solve(self, state, theta, request):
        z = np.zeros_like(theta)
        z[np.argsort(-theta, kind="stable")[: self.problem.k]] = 1
        return z


class SmallestSum(LargestSum):
    def solve(self, state, theta, request):
        return super().solve(state, -theta, request)


class Raises(LargestSum):
    def __init__(self, problem):
        raise RuntimeError("no licence [today]")


@pytest.fixture
def offer():
    """Register a plugin "mine" with these solvers, for the time of a test."""
    plugins = []

    def register(**solvers):
        class Plugin:
            @mapgrad.hookimpl
            def mapgrad_solvers(self):
                return [mapgrad.SolverSpec(name, solver, (mapgrad.KSubset,)) for name, solver in solvers.items()]

        mapgrad.register(Plugin(), "mine")
        plugins.append("mine")

    yield register
    for name in plugins:
        mapgrad.unregister(name)


def test_version_is_the_distribution_s(invoke):
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"mapgrad {version('mapgrad')}\n")


@pytest.mark.parametrize("command", ["solvers", "check", "demo", "bench", "lab", "tune"])
def test_help_names_each_command_and_explains_it(invoke, command):
    assert command in invoke("--help").stdout
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: mapgrad {command}" in result.stdout


def test_solvers_names_what_is_installed_and_what_it_accepts(invoke):
    result = invoke("solvers", columns=160)
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if "networkx.shortest_path" in line)
    assert row.split()[1:4] == ["mapgrad", version("mapgrad"), "ok"]
    assert "GridShortestPath, ShortestPath" in row
    assert all(info.name in result.stdout for info in mapgrad.list_solvers())


def test_solvers_cuts_no_name_on_a_terminal_of_80_columns(invoke):
    text = "".join(invoke("solvers", columns=80).stdout.split())
    for info in mapgrad.list_solvers():
        assert ",".join(problem.__name__ for problem in info.accepts) in text


@pytest.mark.parametrize("columns", [30, 79, 80, 200])
def test_solvers_says_what_is_wrong_at_any_width(invoke, monkeypatch, columns):
    infos = [
        mapgrad.SolverInfo(
            "mine.absent", "mine", "mine-dist", "2.1", "missing", (mapgrad.KSubset,), "pip install 'a[b]'"
        ),
        mapgrad.SolverInfo("bad", "bad", "bad-dist", "0.3", "broken", (), "ValueError: [red]boom[/red]"),
        mapgrad.SolverInfo("local", "local", "", "", "blocked", (), "MAPGRAD_BLOCK"),
    ]
    monkeypatch.setattr(mapgrad, "list_solvers", lambda: infos)
    result = invoke("solvers", columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    text = " ".join(result.stdout.split())
    for word in ("missing", "broken", "blocked", "mine-dist 2.1", "bad-dist 0.3", "this program", "KSubset"):
        assert word in text
    assert "'a[b]'" in text
    assert "[red]boom[/red]" in text


def test_solvers_shows_a_plugin_that_breaks_on_import(tmp_path):
    folder = tmp_path / "wreck-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: wreck\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text("[mapgrad]\nwreck = wreck_module\n")
    (tmp_path / "wreck_module.py").write_text("raise ValueError('it sank')\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    result = subprocess.run(
        [sys.executable, "-m", "mapgrad", "solvers"],
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("wreck"))
    assert row.split()[1:4] == ["wreck", "1.5", "broken"]
    assert "it sank" in result.stdout
    assert "networkx.shortest_path" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize("name", ["topk", "networkx.spanning_tree"])
def test_check_passes_an_honest_solver(invoke, name):
    result = invoke("check", name)
    assert result.exit_code == 0, result.output
    problems = mapgrad.testing.example_problems(name)
    laws = [law for law, _ in mapgrad.testing.iter_checks(name, problems[0])]
    for law in laws:
        assert f"{law} " in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if " on " in line}
    assert f"kept on {len(problems)} problem" in rows["optimal"]
    assert f"doesn't apply on {len(problems)}: " in rows["stop"]
    assert "broken" not in result.stdout


def test_check_takes_a_plugin_that_the_program_registered(invoke, offer):
    offer(right=LargestSum)
    assert invoke("check", "mine.right").exit_code == 0


def test_check_tells_every_broken_law_and_exits_with_1(invoke, offer):
    offer(wrong=SmallestSum)
    result = invoke("check", "mine.wrong")
    assert result.exit_code == 1
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if " on " in line}
    assert "kept on 4 problems" in rows["feasible"]
    assert "broken on 2 of 4 problems" in rows["optimal"]
    assert "breaks the law 'optimal'" in result.stdout
    assert "KSubset(n=6, k=3)" in result.stdout


def test_check_counts_any_exception_as_a_broken_law(invoke, offer):
    offer(unlicensed=Raises)
    result = invoke("check", "mine.unlicensed")
    assert result.exit_code == 1
    assert "broken on 4 of 4 problems" in result.stdout
    assert "RuntimeError: no licence [today]" in result.stdout


def test_check_needs_a_known_solver(invoke):
    result = invoke("check", "netwrokx.matching")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "no solver is named 'netwrokx.matching'; did you mean 'networkx.matching'" in result.stderr
    assert "call mapgrad.testing.check_solver(Class, problem), or mapgrad.register" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_check_says_so_where_no_small_problem_fits(invoke, monkeypatch):
    monkeypatch.setattr(mapgrad.testing, "example_problems", lambda name: [])
    result = invoke("check", "topk")
    assert result.exit_code == 2
    assert "mapgrad.testing.check_solver('topk', problem)" in result.stderr


@pytest.mark.parametrize("arguments", [["check"], ["solvers", "--all"], ["learn"]])
def test_misused_commands_exit_with_2(invoke, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: mapgrad" in result.stderr
