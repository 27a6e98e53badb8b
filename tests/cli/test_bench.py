"""``mapgrad bench``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import mapgrad
from mapgrad.bench import Report, suite_names
from mapgrad.cli._bench import Suite, require_writable

QUICK = ("bench", "road", "--quick", "--only", "k-subset")


def test_the_command_knows_all_suites():
    assert [suite.value for suite in Suite] == suite_names()


def test_the_document_has_a_section_for_each_suite():
    text = (Path(__file__).parents[2] / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert all(f"\n## `mapgrad bench {name}`: " in text for name in suite_names())


def test_a_table_and_a_file(invoke, tmp_path):
    path = tmp_path / "road.json"
    result = invoke(*QUICK, "--json", str(path), columns=200)
    assert result.exit_code == 0, result.output
    assert "torch.topk and scatter_" in result.stdout
    for word in ("machine: ", "versions: python ", "seeds: θ and noise 0"):
        assert word in result.stdout
    (row,) = Report.read(path).rows
    assert (row.case, row.name, row.unit) == ("k-subset", "topk", "µs a row")


def test_methods_and_seeds_are_chosen_and_an_earlier_run_goes_on(invoke, tmp_path):
    path = tmp_path / "training.json"
    command = ("bench", "training", "--quick", "--method", "least squares", "--seed", "7")
    result = invoke(*command, "--json", str(path), columns=400)
    assert result.exit_code == 0, result.output
    assert "seeds: first 7, number 2" in result.stdout
    assert invoke(*command, "--resume", str(path)).exit_code == 0
    result = invoke("bench", "training", "--quick", "--resume", str(path), columns=400)
    assert result.exit_code == 2
    assert "must be of suite 'training' with the seeds {'first': 0, 'number': 2}" in result.stderr


def test_what_goes_to_no_terminal_is_markdown(invoke, monkeypatch):
    lines = invoke(*QUICK, columns=200).stdout.splitlines()
    assert any(line.startswith("| case ") for line in lines)
    assert any(line.startswith("|---") for line in lines)


@pytest.mark.parametrize(("factor", "exit_code", "verdict"), [(0.01, 1, "worse"), (100.0, 0, "")])
def test_an_earlier_run_is_compared_with(invoke, tmp_path, monkeypatch, factor, exit_code, verdict):
    path = tmp_path / "before.json"
    invoke(*QUICK, "--json", str(path))
    now = Report.read(path)
    report = json.loads(path.read_text())
    for name in ("median", "low", "high"):
        report["rows"][0]["ratio"][name] *= factor
    report["machine"]["cpu"] = "another one"
    report["is_quick"] = False
    path.write_text(json.dumps(report))
    monkeypatch.setattr("mapgrad.bench.run_suite", lambda *arguments, **options: now)
    result = invoke("bench", "road", "--compare", str(path), columns=200)
    assert result.exit_code == exit_code, result.output
    assert f"{exit_code} of 1 figures got worse beyond the spread" in result.stdout
    row = next(line for line in result.stdout.splitlines() if "k-subset; B = 64" in line)
    assert ("worse" in row) == bool(verdict)
    assert "The earlier run was on another CPU, another one." in result.stdout


def test_files_are_looked_at_before_anything_is_measured(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("mapgrad.bench.run_suite", lambda *arguments, **options: pytest.fail("measured"))
    path = tmp_path / "before.json"
    result = invoke("bench", "road", "--compare", str(path), columns=400)
    assert result.exit_code == 2
    assert "before.json can't be read: No such file or directory" in result.stderr
    result = invoke(*QUICK, "--compare", str(path), columns=400)
    assert result.exit_code == 2
    assert "leave out --quick or --compare" in result.stderr
    Report("road", "", [], {}, {}, {}, is_quick=True).write(path)
    result = invoke("bench", "road", "--compare", str(path), columns=400)
    assert result.exit_code == 2
    assert "is of a run with --quick" in result.stderr
    result = invoke("bench", "step", "--quick", "--plot", str(tmp_path / "curves.png"), columns=400)
    assert result.exit_code == 2
    assert "makes no curve: leave out --quick" in result.stderr
    for option in ("--json", "--plot"):
        result = invoke(*QUICK, option, str(tmp_path / "nowhere" / "file.png"), columns=400)
        assert result.exit_code == 2
        assert f"there is no folder {tmp_path / 'nowhere'}" in result.stderr
        result = invoke(*QUICK, option, str(tmp_path), columns=400)
        assert result.exit_code == 2
        assert "is a folder; name a file" in result.stderr
    result = invoke(*QUICK, "--plot", str(tmp_path / "curves.nothing"), columns=400)
    assert result.exit_code == 2
    assert "its suffix must be one of" in result.stderr


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_what_cant_be_opened_is_refused_before_anything_is_measured(invoke, tmp_path, monkeypatch, option):
    """Access rights don't tell."""
    monkeypatch.setattr("mapgrad.bench.run_suite", lambda *arguments, **options: pytest.fail("measured"))
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere" / "file.png")
    for path in (link, tmp_path / f"{'a' * 300}.png"):
        result = invoke(*QUICK, option, str(path), columns=2000)
        assert result.exit_code == 2, result.output
        assert "can't be written; name another place: " in result.stderr


def test_to_look_at_a_file_changes_nothing(tmp_path):
    there, missing, link = tmp_path / "there", tmp_path / "missing", tmp_path / "link"
    there.write_text("before")
    link.symlink_to(missing)
    for path in (there, missing, link):
        require_writable(path)
    assert there.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "there"]


def test_curves_are_drawn_where_there_are_some(invoke, tmp_path):
    path = tmp_path / "curves.png"
    result = invoke("bench", "growth", "--quick", "--only", "k-subset, B", "--plot", str(path))
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suite", ["kernels", "threads", "workers", "faults", "training"])
def test_suites_of_one_size_a_case_refuse_to_plot_before_they_measure(invoke, tmp_path, monkeypatch, suite):
    monkeypatch.setattr("mapgrad.bench.run_suite", lambda *arguments, **options: pytest.fail("measured"))
    result = invoke("bench", suite, "--plot", str(tmp_path / "curves.png"), columns=400)
    assert result.exit_code == 2
    assert "makes no curve: leave out --plot, or take one of step, road, growth, soak, peers" in result.stderr


def test_a_comparison_is_shown_though_there_is_no_curve(invoke, tmp_path, monkeypatch):
    now = mapgrad.bench.run_suite("road", quick=True, only=["k-subset"])
    monkeypatch.setattr("mapgrad.bench.run_suite", lambda *arguments, **options: now)
    path = tmp_path / "before.json"
    replace(now, is_quick=False).write(path)
    arguments = "--compare", str(path), "--plot", str(tmp_path / "curves.png")
    result = invoke("bench", "road", *arguments, columns=400)
    assert result.exit_code == 2
    assert "0 of 1 figures got worse beyond the spread" in result.stdout
    assert "no figure for several sizes" in result.stderr


def test_an_x_stands_for_the_times_sign(invoke):
    result = invoke("bench", "step", "--quick", "--only", "path 5x5", columns=400)
    assert result.exit_code == 0, result.output
    assert "| path 5×5 " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps"], "'steps' is not one of 'step', 'kernels'"),
        (["step", "--only", "x"], "no case of suite 'step'"),
        (["step", "--only", "x", "--quick"], "no quick case of suite 'step' begins so: take from path 5×5; k-subset"),
    ],
)
def test_unknown_names_are_refused(invoke, arguments, message):
    result = invoke("bench", *arguments, columns=400)
    assert result.exit_code == 2
    assert message in result.stderr
