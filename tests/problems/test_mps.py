from __future__ import annotations

import bz2
import gzip
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mapgrad.errors import ProblemError
from mapgrad.problems import IntegerProgram, TravelingSalesman

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Maximise = Callable[[IntegerProgram, np.ndarray], tuple[float, np.ndarray] | None]

EXAMPLE = """\
NAME          example
{sense}ROWS
 N  profit
 L  most
 G  least
 E  exact
 L  between
 N  unused
COLUMNS
    MARKER    'MARKER'      'INTORG'
    x         profit    1.5         most      1
    x         least     2
    y         profit    2           exact     1
    v         between   -1
    MARKER    'MARKER'      'INTEND'
    w         profit    -1          most      1
    w         unused    4           between   0.1
RHS
    R         profit    5           most      4
    R         least     1           exact     1
    R         between   7
RANGES
    R         between   5
    R         least     3
BOUNDS
 UP B         y         4.5
 LO B         v         -3
 PL B         v
 MI B         w
ENDATA
"""
PACK = {".mps": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
CONTENT = {
    "matrix": [[1, 0, 0, 1], [2, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0.1]],
    "row_lower": [-np.inf, 1, 1, 2],
    "row_upper": [4, 4, 1, 7],
    "lower": [0, 0, -3, -np.inf],
    "upper": [1, 4, np.inf, np.inf],
    "integrality": [1, 1, 1, 0],
}


@pytest.fixture
def example(tmp_path: Path) -> IntegerProgram:
    path = tmp_path / "example.mps"
    path.write_text(EXAMPLE.format(sense=""))
    return IntegerProgram.from_mps(path)


@pytest.mark.parametrize(("sense", "sign"), [("", 1), ("OBJSENSE\n    MIN\n", 1), ("OBJSENSE\n    MAX\n", -1)])
@pytest.mark.parametrize("name", ["example.mps", "example.mps.gz", "example.mps.bz2"])
def test_a_file_becomes_a_program_to_be_minimised(tmp_path: Path, name: str, sense: str, sign: int) -> None:
    path, text = tmp_path / name, EXAMPLE.format(sense=sense).encode()
    path.write_bytes(PACK[path.suffix](text))
    for program in (IntegerProgram.from_mps(path), IntegerProgram.from_mps(str(path))):
        assert program == IntegerProgram.from_rows(**CONTENT)
        assert program.shape == (4,)
        assert program.objective.tolist() == [sign * 1.5, sign * 2, 0, -sign]
        assert program.offset == sign * -5
        with pytest.raises(ValueError, match="read-only"):
            program.objective[0] = 0


@pytest.mark.parametrize("name", ["again.mps", "again.mps.gz", "again.mps.bz2"])
def test_what_was_read_and_written_is_read_again(example: IntegerProgram, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    example.to_mps(path)
    assert path.read_bytes()[:2] == {".mps": b"NA", ".gz": b"\x1f\x8b", ".bz2": b"BZ"}[path.suffix]
    for again in (IntegerProgram.from_mps(path), pickle.loads(pickle.dumps(example))):
        assert again == example
        assert again.digest == example.digest
        assert again.objective.tolist() == example.objective.tolist()
        assert again.offset == example.offset


number = st.floats(-1e19, 1e19)


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_program_comes_back_exactly(tmp_path: Path, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))

    row = st.lists(number, min_size=n + 2, max_size=n + 2)
    rows = np.array(data.draw(st.lists(row, max_size=4))).reshape(-1, n + 2)
    sides = np.sort(rows[:, n:], axis=1)
    sides[:, 0] = np.where(data.draw(st.booleans()), sides[:, 1], sides[:, 0])
    open_side = data.draw(st.sampled_from([None, 0, 1]))
    if open_side is not None:
        sides[::2, open_side] = (-np.inf, np.inf)[open_side]
    ends = st.sampled_from([-np.inf, -3.7, -1, 0, 1, 1 / 3, 5, 1e6, np.inf])
    pairs = [sorted(data.draw(st.tuples(ends, ends))) for _ in range(n)]
    lower = [-np.inf if low == np.inf else low for low, _ in pairs]
    upper = [np.inf if high == -np.inf else high for _, high in pairs]
    integrality = [
        data.draw(st.booleans()) and np.ceil(low) <= np.floor(high) for low, high in zip(lower, upper, strict=True)
    ]
    program = IntegerProgram.from_rows(rows[:, :n], *sides.T, lower=lower, upper=upper, integrality=integrality)
    assume(
        all(
            high - (high - low) == low or low + (high - low) == high
            for low, high in sides
            if abs(low) + abs(high) < np.inf
        )
    )
    program.to_mps(tmp_path / "program.mps")
    again = IntegerProgram.from_mps(tmp_path / "program.mps")
    assert again == program
    assert again.objective.tolist() == [0] * n
    assert again.offset == 0


def test_sides_that_no_range_says_exactly_become_two_rows(tmp_path: Path) -> None:
    low, high = -2.5, 2.0**53 - 1
    IntegerProgram.from_rows([[1, 2]], [low], [high]).to_mps(tmp_path / "two.mps")
    again = IntegerProgram.from_mps(tmp_path / "two.mps")
    assert (again.row_lower.tolist(), again.row_upper.tolist()) == ([-np.inf, low], [high, np.inf])
    assert again.matrix.toarray().tolist() == [[1, 2]] * 2


def test_a_file_holds_the_full_form(tmp_path: Path) -> None:
    program = TravelingSalesman(5).to_ilp()
    program.to_mps(tmp_path / "tour.mps")
    assert IntegerProgram.from_mps(tmp_path / "tour.mps") == program.full() != program


def test_costs_of_a_file_have_its_optimum(example: IntegerProgram, maximise: Maximise) -> None:
    """By hand: x must be 1 and y too, w is at most 4 - x = 3, and v = -2 or -3 keeps .1 w - v between 2 and 7."""
    best, x = maximise(example, -example.objective)
    assert best == pytest.approx(-0.5)
    assert x[[0, 1, 3]].tolist() == pytest.approx([1, 1, 3])


@pytest.mark.parametrize(
    "arguments",
    [{"A_ub": [[1, 1]], "b_ub": [1e21]}, {"lower": [0, 0], "upper": [1, 1e25], "integrality": 0}],
    ids=["right side", "bound"],
)
def test_what_would_be_read_as_infinite_is_not_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = tmp_path / "program.mps"
    with pytest.raises(
        ProblemError, match=r"has the bound or right side 1e\+2[15], but in MPS files numbers from 1e\+20"
    ):
        IntegerProgram(**arguments).to_mps(path)
    assert not path.exists()


def test_missing_files_and_other_formats_are_refused(tmp_path: Path, example: IntegerProgram) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere.mps.gz to read a program from"):
        IntegerProgram.from_mps(tmp_path / "nowhere.mps.gz")
    for act in (IntegerProgram.from_mps, example.to_mps):
        with pytest.raises(
            ProblemError, match=r"the name of an MPS file must end in .mps, .mps.gz or .mps.bz2, got 'a.lp'"
        ):
            act(tmp_path / "a.lp")


def test_no_engine_is_needed(tmp_path: Path, example: IntegerProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    example.to_mps(tmp_path / "a.mps")
    assert IntegerProgram.from_mps(tmp_path / "a.mps") == example


def test_a_row_is_the_files_objective(tmp_path):
    program = IntegerProgram(A_ub=[[1, 2, 3]], b_ub=[4], lower=[0, -1, 0], decision=[2, 1], fixed=[0.5], shape=(2, 1))
    program.to_mps(tmp_path / "row.mps", [[2.0], [-np.inf]])
    again = IntegerProgram.from_mps(tmp_path / "row.mps")
    assert again.objective.tolist() == [-0.5, 0.0, -2.0]
    assert (again.lower.tolist(), again.upper.tolist()) == ([0, 0, 0], [1, 0, 1])
    assert again.matrix == program.matrix
    for wrong in ([2.0, 1.0], [[2.0], [np.nan]], [[np.inf], [1.0]]):
        with pytest.raises(ProblemError, match=r"theta must be one row of shape \(2, 1\), of numbers or −inf"):
            program.to_mps(tmp_path / "row.mps", wrong)
