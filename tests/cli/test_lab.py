"""``mapgrad lab``."""

import numpy as np
import pytest

from mapgrad.bench import Report

QUICK = ("lab", "ksubset", "--quick", "--budget", "6", "--estimator", "IMLE()")


def test_a_problem_by_its_name_and_files(invoke, tmp_path):
    names = [tmp_path / name for name in ("lab.json", "lab.html", "lab.svg")]
    files = [f"--{option}={name}" for option, name in zip(("json", "html", "plot"), names, strict=True)]
    result = invoke(*QUICK, *files, columns=200)
    assert result.exit_code == 0, result.output
    assert "τ = 1: cosine of one gradient at 6 solver calls a row × length of the mean" in result.stdout
    assert "| estimator | k-subset 100/10 |" in result.stdout
    assert "seeds: θ and noise 0" in result.stdout
    (row,) = Report.read(names[0]).rows
    assert (row.case, row.name, row.size) == ("k-subset 100/10; τ = 1", "IMLE()", {"calls": 6, "S": 2, "n": 100})
    assert "<svg" in names[1].read_text(encoding="utf-8")
    assert names[2].is_file()


def test_a_problem_and_estimators_written_out(invoke, tmp_path):
    estimators = ["IMLE(target=Step(2.0), symmetric=False)", "Pooled(sides=(0.5, 0.5))", "Straight"]
    options = [f"--estimator={text}" for text in estimators]
    result = invoke("lab", "KSubset(n=6, k=2)", "--quick", "--budget", "4", *options, columns=200)
    assert result.exit_code == 0, result.output
    for text in (*estimators[:2], "StraightThrough"):
        assert f"| {text} " in result.stdout
    result = invoke("lab", "KSubset(6, 2)", "--setting=τ = 1", "--budget=4", "--estimator=Pooled()", columns=200)
    assert result.stdout.count("cosine of one gradient") == 1  # not those of names that go on
    np.save(tmp_path / "theta.npy", np.random.default_rng(0).standard_normal((2, 6)))
    sample = f"--theta={tmp_path / 'theta.npy'}"
    result = invoke("lab", "KSubset(6, 2)", sample, "--quick", "--budget", "4", "--estimator", "Straight", columns=200)
    assert result.exit_code == 0, result.output


def test_a_class_method_makes_the_problem_and_small_letters_name_estimators(invoke):
    begun = ("straightthrough", "imle()", "line, D")
    options = [f"--estimator={text}" for text in begun]
    result = invoke("lab", "ShortestPath.on_grid(3, 3)", "--quick", "--budget=4", "--draws=200", *options, columns=200)
    assert result.exit_code == 0, result.output
    assert "ShortestPath(num_nodes=9," in result.stdout
    for name in ("StraightThrough", "IMLE()", "Line, depth 0"):
        assert f"| {name} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "is neither a file that ends in .mps or .lp nor a problem"),
        (["ksubset", "--estimator", "nonsense"], "no estimator of the lab begins with 'nonsense'"),
        (["ksubset", "--estimator", "print(1)"], "print(1): print isn't an estimator, a target or a law"),
        (["ksubset", "--estimator", "IMLE(target=open('x'))"], "open isn't an estimator, a target or a law"),
        (["ksubset", "--estimator", "Step(1.0)"], "no estimator of the lab begins with 'Step(1.0)'"),
        (["ksubset", "--estimator", "IMLE(x"], "IMLE(x: "),
        (["ksubset", "--estimator", "IMLE(target=Step(-1))"], "IMLE(target=Step(-1)): lam must be positive"),
        (["ksubset", "--setting", "cold"], "no setting begins so: take from τ = 1; "),
        (["ksubset", "--json", "nowhere/file.json"], "there is no folder nowhere"),
        (["ksubset", "--html", "."], ". is a folder; name a file"),
        (["--theta", "x.npy"], "a sample of θ needs one PROBLEM"),
    ],
)
def test_what_cant_be_understood_is_refused(invoke, arguments, message):
    result = invoke("lab", *arguments, columns=400)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
