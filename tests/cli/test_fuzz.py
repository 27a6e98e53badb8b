"""``mapgrad check --fuzz``."""

import numpy as np
import pytest

import mapgrad
from mapgrad.testing._exact_program import exact_optimum


class Infeasible(mapgrad.InstanceSolver):
    """Says that there is no answer, whatever it is asked."""

    def solve(self, state, theta, request):
        return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)


class Exact(mapgrad.InstanceSolver):
    """Honest: what exact arithmetic says."""

    def solve(self, state, theta, request):
        answer = exact_optimum(self.problem, theta)
        return np.array([float(each) for each in answer.x]) if answer.x else mapgrad.Solution(None, answer.status)


class Plugin:
    @mapgrad.hookimpl
    def mapgrad_solvers(self):
        accepts = (mapgrad.IntegerProgram,)
        return [mapgrad.SolverSpec("none", Infeasible, accepts), mapgrad.SolverSpec("exact", Exact, accepts)]


@pytest.fixture
def _plugin():
    mapgrad.register(Plugin(), "mine")
    yield
    mapgrad.unregister("mine")


@pytest.mark.usefixtures("_plugin")
def test_what_is_wrong_is_counted_and_written(invoke, tmp_path):
    result = invoke("check", "mine.none", "--fuzz", "15", "--seed", "2", "--folder", str(tmp_path))
    assert result.exit_code == 1
    row = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["free_lp"])
    assert row.split() == ["free_lp", "0", "0", "1", "0", "0"]
    path = tmp_path / "mine.none-free_lp-2-0.mps"
    assert "wrong: free_lp 0 of seed 2: INFEASIBLE instead of OPTIMAL" in result.stdout
    assert f"see {path}" in result.stdout
    assert mapgrad.IntegerProgram.from_mps(path).num_vars >= 1


@pytest.mark.usefixtures("_plugin")
def test_a_solver_that_is_right_exits_with_0(invoke, tmp_path):
    result = invoke("check", "mine.exact", "--fuzz", "15", "--folder", str(tmp_path))
    assert result.exit_code == 0, result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_solver_that_takes_none_of_them_is_an_error(invoke):
    result = invoke("check", "topk", "--fuzz", "3")
    assert result.exit_code == 2
    assert "'topk' takes none of these integer programs" in " ".join(result.stderr.split())


def test_a_file_isn_t_a_folder(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("mapgrad.testing.iter_fuzz", lambda *arguments, **options: pytest.fail("tried"))
    path = tmp_path / "file"
    path.touch()
    result = invoke("check", "topk", "--fuzz", "3", "--folder", str(path))
    assert result.exit_code == 2
    assert "isn't a folder; name another one" in " ".join(result.stderr.split())


def test_an_unknown_solver_is_an_error(invoke):
    result = invoke("check", "nobody", "--fuzz", "1")
    assert result.exit_code == 2
    assert "nobody" in result.stderr
