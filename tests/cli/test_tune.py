"""``mapgrad tune``."""

import numpy as np
import pytest

import mapgrad


def test_a_problem_by_its_expression(invoke):
    result = invoke("tune", "KSubset(n=6, k=2)", "--rows", "4", "--seconds", "3", columns=200)
    assert result.exit_code == 0, result.output
    assert "4 rows of KSubset(n=6, k=2)" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("| topk"))
    assert row.rstrip(" |").endswith("fastest")
    assert 'mapgrad.get_solver("topk", problem)' in result.stdout
    assert "Others found the same objectives, together on 4 rows of the sample: " in result.stdout


@pytest.mark.parametrize("name", ["program.mps", "program.mps.gz"])
def test_a_problem_in_a_file_and_its_objective(invoke, tmp_path, name):
    path = tmp_path / name
    program = mapgrad.IntegerProgram(A_ub=[[1, 2, 1]], b_ub=[2])
    program.to_mps(path)
    result = invoke("tune", str(path), "--rows", "2", "--seconds", "3", columns=200)
    assert result.exit_code == 0, result.output
    assert "fastest" in result.stdout


def test_a_sample_in_a_file(invoke, tmp_path):
    path = tmp_path / "theta.npy"
    np.save(path, np.random.default_rng(0).standard_normal((3, 6)))
    result = invoke("tune", "KSubset(6, 2)", "--theta", str(path), "--seconds", "3")
    assert result.exit_code == 0, result.output
    assert "3 rows of KSubset" in result.stdout
    for text in ("not an array", ""):
        path.write_text(text)
        result = invoke("tune", "KSubset(6, 2)", "--theta", str(path), columns=400)
        assert result.exit_code == 2
        assert "isn't an array in NumPy's format" in result.stderr
        assert "pickle" not in result.stderr  # NumPy's advice on what isn't an array, which would be dangerous here
    for missing, reason in ((tmp_path / "nowhere.npy", "No such file or directory"), (tmp_path, "Is a directory")):
        result = invoke("tune", "KSubset(6, 2)", "--theta", str(missing), columns=400)
        assert result.exit_code == 2
        assert f"{missing} can't be read: {reason}" in result.stderr
    np.save(path, np.zeros((3, 7)))
    result = invoke("tune", "KSubset(6, 2)", "--theta", str(path), columns=400)
    assert (result.exit_code, "θ has shape (3, 7)" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("nowhere.mps", "there is no file nowhere.mps"),
        ("KSubset", "is neither a file that ends in .mps or .lp nor a problem"),
        ("KSubset(n=open('x'), k=1)", "is neither a file"),
        ("print(1)", "print isn't one of Arborescence, Assignment"),
        ("KSubset(2, 5)", "k must"),
        ("KSubset(2)", "KSubset(2): "),
        ("KSubset(2, m=5)", "KSubset(2, m=5): "),
        ("ShortestPath.on_grid(5)", "ShortestPath.on_grid(5): "),
        ("ShortestPath.on_grid", "is neither a file"),
        ("ShortestPath.to_ilp(5)", "ShortestPath.to_ilp isn't one of Arborescence, Assignment"),
        ("KSubset(4, 2).to_ilp()", "KSubset(4, 2).to_ilp isn't one of"),
        ("IntegerProgram.from_mps('nowhere.mps')", "there is no file nowhere.mps"),
    ],
)
def test_what_isnt_a_problem_is_refused(invoke, problem, message):
    result = invoke("tune", problem, columns=400)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_problem_by_a_class_method(invoke):
    result = invoke("tune", "ShortestPath.on_grid(3, width=2)", "--rows", "2", "--seconds", "1", columns=400)
    assert result.exit_code == 0, result.output
    assert "2 rows of ShortestPath.on_grid(3, width=2)" in result.stdout
    assert "problem = mapgrad.ShortestPath.on_grid(3, width=2)\n" in result.stdout


def test_the_answer_says_what_the_problem_is(invoke, tmp_path):
    path = tmp_path / "program.mps"
    mapgrad.IntegerProgram(A_ub=[[1, 2, 1]], b_ub=[2]).to_mps(path)
    result = invoke("tune", str(path), "--rows", "2", "--seconds", "1", columns=400)
    assert f'problem = mapgrad.IntegerProgram.from_mps("{path}")\n' in result.stdout
    result = invoke("tune", "KSubset(4, 2)", "--rows", "2", "--seconds", "1", columns=400)
    assert "problem = mapgrad.KSubset(4, 2)\n" in result.stdout
