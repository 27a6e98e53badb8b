"""LP files are read as HiGHS reads them, after checks that it doesn't make."""

from __future__ import annotations

import bz2
import gzip
import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mapgrad.errors import MissingDependencyError, ProblemError
from mapgrad.problems import IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = """\
\\ a comment, with 1,5 and nan
Minimize
 obj: 2 x + 3 y + 4
Subject To
 c1: x + y >= 1
 c2: x - 2.5e-1 y <= 5
Bounds
 x <= 4
Generals
 y
End
"""
CONTENT = {
    "matrix": [[1, 1], [1, -0.25]],
    "row_lower": [1, -np.inf],
    "row_upper": [np.inf, 5],
    "upper": [4, np.inf],
    "integrality": [0, 1],
}
WIDE = {"upper": [4, np.inf, np.inf], "integrality": [0, 1, 0]}


def changed(old: str, new: str) -> str:
    assert BASE.count(old) == 1, old
    return BASE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "content", "costs"),
    [
        ("Minimize", "Minimize", {}, [2, 3]),
        ("Minimize", "MAXIMISE", {}, [-2, -3]),
        ("Minimize", "max", {}, [-2, -3]),
        ("2 x", "2x", {}, [2, 3]),
        ("Subject To", "st", {}, [2, 3]),
        ("c1", "c_1,2(a)", {}, [2, 3]),
        ("x <= 4", "-inf <= x <= 4", {"lower": [-np.inf, 0]}, [2, 3]),
        ("x <= 4", "x free", {"lower": [-np.inf, 0], "upper": np.inf}, [2, 3]),
        ("End", "Semi\nEnd", {}, [2, 3]),
        ("End", "Semi\n x\nEnd", {"semicontinuous": [1, 0]}, [2, 3]),
        ("End", "Semi-continuous\n x y\nEnd", {"semicontinuous": 1}, [2, 3]),
        ("Generals\n y", "Binary\n y", {"upper": [4, 1]}, [2, 3]),
        ("2 x + 3 y", "2 x + 3 y + 0 infra", {"matrix": [[1, 1, 0], [1, -0.25, 0]], **WIDE}, [2, 3, 0]),
    ],
)
def test_what_is_meant_is_read(tmp_path: Path, old: str, new: str, content: dict, costs: list[float]) -> None:
    (tmp_path / "a.lp").write_text(changed(old, new))
    program = IntegerProgram.from_lp(tmp_path / "a.lp")
    assert program == IntegerProgram.from_rows(**{**CONTENT, **content})
    assert program.objective.tolist() == costs
    assert abs(program.offset) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2 x", "1,5 x", r"a.lp, line 3: expected a number or a name, got '1,5'"),
        ("2 x", "1.5.2 x", r"a.lp, line 3: expected a number or a name, got '1.5.2'"),
        ("2 x", "1_0 x", r"a.lp, line 3: expected a number or a name, got '1_0'"),
        ("2 x", "nan x", r"a.lp, line 3: expected a number or a name, got 'nan'"),
        ("y >= 1", "y >= NaN", r"a.lp, line 5: expected a number or a name, got 'NaN'"),
        ("x <= 4", "x <= 4,5", r"a.lp, line 8: expected a number or a name, got '4,5'"),
        (" x <= 4", " q <= 4", r"a.lp, line 8: no row and no objective has 'q'; put 0 q into the objective"),
        (" x <= 4", " c1 <= 4", r"a.lp, line 8: no row and no objective has 'c1'"),
        ("\n y\n", "\n Y\n", r"a.lp, line 10: no row and no objective has 'Y'"),
        ("c2:", "c1:", r"a.lp, line 6: row 'c1' is declared a second time"),
        ("x + y", "x + x + y", r"HiGHS would change the program in .*a.lp: a row must have a variable once"),
        ("x + y", "x + 1e-13 y", r"HiGHS would change the program in .*a.lp: .*coefficients be 0 or at least 1e-12"),
        ("2 x", "0x10 x", r"HiGHS can't read .*a.lp: it must be a program in LP format"),
        ("End\n", "", r"HiGHS can't read .*a.lp: it must be a program in LP format"),
        ("3 y", "[x^2]/2", r"a.lp has a quadratic objective: only linear ones can be read"),
        (
            "End",
            "SOS1\n s: x:1 y:2\nEnd",
            r"a.lp, line 11: special ordered sets in LP files aren't read: write the pro",
        ),
        (
            "c2: x",
            "c2: y = 1 -> x",
            r"a.lp, line 6: indicator rows in LP files aren't read: write the program as an MPS",
        ),
        ("x <= 4", "x <= -4", r"a.lp holds no program: no number lies within the bounds of variable 0"),
        ("c1", "c\0", r"a.lp, line 5: the text has a NUL byte"),
    ],
)
def test_what_is_malformed_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "a.lp").write_text(changed(old, new))
    with pytest.raises(ProblemError, match=message):
        IntegerProgram.from_lp(tmp_path / "a.lp")


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_files_are_read_within_limits(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.lp{suffix}"
    path.write_bytes(pack(BASE.encode()))
    assert IntegerProgram.from_lp(path, max_bytes=len(BASE)) == IntegerProgram.from_rows(**CONTENT)
    with pytest.raises(ProblemError, match=re.escape(f"unpacks to more than max_bytes={len(BASE) - 1}")):
        IntegerProgram.from_lp(path, max_bytes=len(BASE) - 1)
    path.write_bytes(pack(b"\\" * (2**20 + 1) + BASE.encode()))
    with pytest.raises(ProblemError, match=r"line 1: a line of more than 1048576 bytes isn't read"):
        IntegerProgram.from_lp(path)
    path.write_bytes(pack(changed("c1", "cé").encode("latin-1")))
    with pytest.raises(ProblemError, match=r"line 5: the text isn't UTF-8"):
        IntegerProgram.from_lp(path)
    if suffix:
        path.write_bytes(pack(BASE.encode())[:-1])
        with pytest.raises(ProblemError, match=r"the file can't be unpacked beyond this line"):
            IntegerProgram.from_lp(path)


def test_other_names_and_a_missing_engine_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProblemError, match=r"the name of an LP file must end in .lp, .lp.gz or .lp.bz2, got 'a.mps'"):
        IntegerProgram.from_lp(tmp_path / "a.mps")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a.lp to read a program from"):
        IntegerProgram.from_lp(tmp_path / "a.lp")
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(MissingDependencyError, match=r"reading LP files needs highspy: pip install 'mapgrad\[highs\]'"):
        IntegerProgram.from_lp(tmp_path / "a.lp")


def test_the_engine_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.lp").write_text(BASE)
    IntegerProgram.from_lp(tmp_path / "a.lp")
    assert capfd.readouterr() == ("", "")
