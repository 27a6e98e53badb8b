"""Compiled diagrams on disk: used where they are whole, and never trusted."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mapgrad import Knapsack, KSubset, disk_cache, exact
from mapgrad.exact import _diagram

PROBLEM = KSubset(9, 4)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep every diagram, however fast it was compiled, in a folder of this test."""
    monkeypatch.setenv("MAPGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_diagram, "_SLOW", -1.0)
    _diagram._compiled.clear()
    yield tmp_path / "diagrams"
    _diagram._compiled.clear()


def anew(problem=PROBLEM):
    _diagram._compiled.clear()
    return exact.Diagram(problem)


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def same(one, other):
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(one.nodes, other.nodes, strict=True))


def test_a_kept_diagram_is_not_compiled_again(folder, monkeypatch):
    first = anew()
    assert only_file(folder).suffix == ".npz"
    monkeypatch.setattr(_diagram, "compile_nodes", lambda *_: pytest.fail("compiled again"))
    second = anew()
    assert same(first, second)
    assert second.num_states == 126
    assert second.map(torch.zeros(9)).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_another_program_or_budget_has_a_file_of_its_own(folder):
    anew(), anew(KSubset(9, 3)), exact.Diagram(PROBLEM, max_nodes=5000)
    assert len(list(folder.iterdir())) == 3


def test_quick_ones_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(_diagram, "_SLOW", 60.0)
    anew()
    assert not folder.exists()


def altered(**changes):
    """Return what writes a file with some arrays changed."""

    def write(path):
        with np.load(path) as file:
            arrays = {name: file[name].copy() for name in file.files}
        for name, change in changes.items():
            arrays[name] = change(arrays[name])
        np.savez(path, **arrays)

    return write


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def flipped(path):
    content = bytearray(path.read_bytes())
    with np.load(path) as file:
        place = content.index(file["low"].tobytes())
    content[place + 40] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        flipped,
        lambda path: np.savez(path, other=np.zeros(3)),
        lambda path: np.savez(path, order=np.array([{}], dtype=object), allow_pickle=True),
        altered(version=lambda _: np.array(0)),
        altered(key=lambda _: np.array("another")),
        altered(low=put(-1, 10**6)),
        altered(low=put(-1, -1)),
        altered(high=put(2, 3)),
        altered(order=put(0, 1)),
        altered(order=lambda array: array[:-1]),
        altered(ends=put(3, 0)),
        altered(ends=lambda array: array + 1),
        altered(leaf_values=put(1, np.nan)),
        altered(leaf_values=put(0, 0.0)),
        altered(high=lambda array: array.astype(np.float64)),
        altered(high=lambda array: array[None]),
    ],
)  # fmt: skip
def test_damaged_and_foreign_files_are_replaced(folder, damage, caplog):
    first = anew()
    path = only_file(folder)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    with caplog.at_level(logging.WARNING, "mapgrad"):
        assert same(first, anew())
    assert f"{path} isn't used and will be written anew" in caplog.text
    caplog.clear()
    assert same(first, anew())
    assert not caplog.records
    assert only_file(folder) == path


def test_a_file_larger_than_all_may_be_is_not_read(folder, monkeypatch, caplog):
    anew()
    monkeypatch.setattr(disk_cache, "_LARGEST", 100)
    assert anew().num_states == 126
    assert "larger than any" in caplog.text


def test_the_files_used_longest_ago_make_room(folder, monkeypatch):
    for number in range(2, 5):
        anew(KSubset(9, number))
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
    size = sum(path.stat().st_size for path in folder.iterdir())
    monkeypatch.setattr(disk_cache, "_LARGEST", size)
    oldest = min(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    before = set(folder.iterdir())
    anew(KSubset(9, 2))  # which is now the one used last
    anew(KSubset(9, 5))
    after = set(folder.iterdir())
    assert oldest in after
    assert sum(path.stat().st_size for path in after) <= size
    assert len(before - after) >= 1


@pytest.mark.parametrize("where", ["", "a file"])
def test_no_folder_is_no_failure(where, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setenv("MAPGRAD_CACHE_DIR", str(path) if where else "")
    assert anew().num_states == 126
    assert anew().num_states == 126
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_follows_the_platform(monkeypatch):
    monkeypatch.delenv("MAPGRAD_CACHE_DIR")
    home = Path.home()
    for platform, variable, folder in (
        ("linux", None, home / ".cache"),
        ("linux", "XDG_CACHE_HOME", Path("/elsewhere")),
        ("darwin", None, home / "Library" / "Caches"),
        ("win32", None, home / "AppData" / "Local"),
        ("win32", "LOCALAPPDATA", Path("/elsewhere")),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        if variable:
            monkeypatch.setenv(variable, "/elsewhere")
        assert disk_cache.folder_of("diagrams") == folder / "mapgrad" / "diagrams"


USE = """
import sys
import numpy as np
from mapgrad import Knapsack, disk_cache, exact
from mapgrad.exact import _diagram
_diagram._SLOW = -1.0
weights = np.random.default_rng(0).integers(1, 50, (2, 14))
for _ in range(20):
    _diagram._compiled.clear()
    print(exact.Diagram(Knapsack(weights, weights.sum(axis=1) // 2)).num_states)
    if sys.argv[1] == "remove":
        for path in disk_cache.folder_of("diagrams").iterdir():
            path.unlink(missing_ok=True)
"""


def test_processes_share_the_folder(folder):
    weights = np.random.default_rng(0).integers(1, 50, (2, 14))
    expected = exact.Diagram(Knapsack(weights, weights.sum(axis=1) // 2)).num_states
    command = [sys.executable, "-W", "error", "-c", USE]
    processes = [
        subprocess.Popen([*command, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for kind in ("keep", "remove")
    ]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.split() == [str(expected)] * 20
        assert not errors
    assert not list(folder.glob("*.part"))
