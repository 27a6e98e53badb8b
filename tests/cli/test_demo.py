import re

import pytest
import torch

from mapgrad.demo import _demo, _terrain
from mapgrad.demo import _learning as learning


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Make the demo a matter of a second, in an empty folder."""
    monkeypatch.setattr(_demo, "SIZES", _demo.Sizes(crops=40, stride=32, batch=8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """Fail where the demo starts to work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_terrain, "load_terrain", lambda: pytest.fail("the demo had begun"))


ROWS = (
    "straight line, picture ignored",
    "network before training",
    "trained on routes: I-MLE",
    "trained on costs: two-stage",
)


def test_the_demo_trains_tells_and_draws(invoke, small):
    threads = torch.get_num_threads()
    result = invoke("demo", "--epochs", "2", columns=80)
    assert result.exit_code == 0, result.output
    assert "40 train" in result.stdout
    assert "I-MLE through compiled.shortest_path" in result.stdout
    assert re.findall(r"epoch +(\d)/2 +loss +[\d.]+ +validation: regret +[\d.]+%, optimal", result.stdout) == ["1", "2"]
    for name in ROWS:
        assert re.search(rf"{name} +[\d.]+% +[\d.]+% +[\d.]+%", result.stdout), name
    assert (small / "mapgrad-demo.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_num_threads() == threads


def test_the_demo_is_a_function_of_its_seed(invoke, small):
    def table(*arguments):
        result = invoke("demo", "--epochs", "1", "--output", "a.svg", *arguments)
        return result.stdout.partition("problems;")[0]

    first = table()
    assert table() == first
    assert table("--seed", "1") != first


@pytest.mark.parametrize(
    ("estimator", "title"),
    [("aimle", "AIMLE"), ("blackbox", "black-box"), ("straight-through", "straight-through")],
)
def test_estimators_and_solvers_are_swapped_by_name(invoke, small, estimator, title):
    arguments = ("--estimator", estimator, "--solver", "networkx", "--output", "picture.PDF", "--epochs", "1")
    result = invoke("demo", *arguments, columns=80)
    assert result.exit_code == 0, result.output
    assert f"with {title} through networkx.shortest_path" in result.stdout
    assert f"trained on routes: {title} " in result.stdout
    assert (small / "picture.PDF").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--solver", "networkx.shortestpath"], "did you mean 'networkx.shortest_path'"),
        (["--solver", "topk"], "'topk' can't solve GridShortestPath"),
        (
            ["--estimator", "reinforce"],
            "'reinforce' is not one of 'imle', 'pooled', 'aimle', 'blackbox', 'straight-through'",
        ),
        (["--device", "abacus"], "torch can't use 'abacus' here"),
        (["--device", "meta"], "torch can't use 'meta' here"),
        (["--epochs", "0"], "should be greater than or equal to 1"),
        (["--seed", "-1"], "should be greater than or equal to 0"),
        (["--output", "nowhere/picture.png"], "there is no folder nowhere"),
        (["--output", "picture.txt"], "picture.txt must end in one of"),
        (["--output", "picture"], "picture must end in one of"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_computed(invoke, untrained, arguments, message):
    result = invoke("demo", *arguments, columns=400)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_folder_or_a_locked_place_is_no_output(invoke, untrained, tmp_path):
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in invoke("demo", "--output", "folder.png", columns=400).stderr
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere" / "file.png")
    result = invoke("demo", "--output", "link.png", columns=400)
    assert result.exit_code == 2
    assert "can't be written" in result.stderr


def test_ctrl_c_ends_without_a_traceback_or_a_picture(invoke, small, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "train", interrupted)
    result = invoke("demo")
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert list(small.iterdir()) == []
