"""MPS files are read as meant, or refused with the number of the line."""

from __future__ import annotations

import bz2
import gzip
import re
import warnings
from typing import TYPE_CHECKING

import highspy
import numpy as np
import pulp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mapgrad.errors import ProblemError
from mapgrad.problems import IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Read = Callable[[str], IntegerProgram]

BASE = """\
NAME base
ROWS
 N cost
 L c1
 G c2
COLUMNS
 x cost 1 c1 1
 x c2 2
 y cost 2 c1 3
 z c2 1
RHS
 rhs c1 8 c2 1
RANGES
 rng c1 3
BOUNDS
 UP bnd x 4
 LO bnd y -2
ENDATA
"""
LINES = BASE.splitlines()
CONTENT = {
    "matrix": [[1, 3, 0], [2, 0, 1]],
    "row_lower": [5, 1],
    "row_upper": [8, np.inf],
    "lower": [0, -2, 0],
    "upper": [4, np.inf, np.inf],
    "integrality": 0,
}
COSTS = [1, 2, 0]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(text: str) -> IntegerProgram:
        path = tmp_path / "file.mps"
        path.write_text(text)
        return IntegerProgram.from_mps(path)

    return read_text


def changed(*changes: tuple[str, str]) -> str:
    text = BASE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


RANGES, BOUNDS = " rng c1 3\n", " UP bnd x 4\n LO bnd y -2\n"
RHS = "RHS\n rhs c1 8 c2 1\n"


@pytest.mark.parametrize(
    ("changes", "content", "costs"),
    [
        ([], {}, COSTS),
        ([(f"{RHS}RANGES\n{RANGES}", f"RANGES\n{RANGES}{RHS}")], {}, COSTS),
        ([(RHS, ""), ("ENDATA\n", f"{RHS}ENDATA\n")], {}, COSTS),
        ([(" rhs c1", " c1"), (" rng", ""), ("UP bnd", "UP"), ("LO bnd", "LO")], {}, COSTS),
        ([("NAME base\n", "\n* a comment\n")], {}, COSTS),
        ([("NAME base", "\ufeffNAME a name with spaces")], {}, COSTS),
        ([("ENDATA\n", "ENDATA\n\nIMPORTANCES\nx 2\n")], {}, COSTS),
        ([("ENDATA\n", "ENDATA")], {}, COSTS),
        *(
            ([("NAME base\n", f"NAME base\n{sense}\n")], {}, [-1, -2, 0])
            for word in ("MAX", "MAXIMIZE", "MAXIMISE", "max", "Maximize")
            for sense in (f"OBJSENSE {word}", f"OBJSENSE\n    {word}", f"OBJSENSE\n{word}", f"*SENSE:{word}")
        ),
        ([("NAME base\n", "OBJSENSE MAX\nNAME base\n")], {}, [-1, -2, 0]),
        ([("COLUMNS\n", "OBJSENSE\n    MAXIMIZE\nCOLUMNS\n")], {}, [-1, -2, 0]),
        ([("ENDATA\n", "OBJSENSE MAX\nENDATA\n")], {}, [-1, -2, 0]),
        ([("NAME base\n", "NAME base\nOBJSENSE MINIMISE\n*SENSE:Minimize\n")], {}, COSTS),
        ([("NAME base\n", "*SENSE:see below\n")], {}, COSTS),
        ([(" G c2", " G c2\n N other"), (" z c2 1", " z c2 1 other 7")], {}, COSTS),
        ([("rng c1 3", "rng c1 -3")], {}, COSTS),
        ([("c1 8", "c1 1e30"), (RANGES, "")], {"row_lower": [-np.inf, 1], "row_upper": np.inf}, COSTS),
        ([("c2 1\nRANGES", "c2 -inf\nRANGES")], {"row_lower": [5, -np.inf]}, COSTS),
        ([("UP bnd x 4", "UP bnd x 1e20")], {"upper": np.inf}, COSTS),
        ([("UP bnd x 4", "FX bnd x 4")], {"lower": [4, -2, 0]}, COSTS),
        ([("UP bnd x 4", "FR bnd x")], {"lower": [-np.inf, -2, 0], "upper": np.inf}, COSTS),
        ([("UP bnd x 4", "MI bnd x\n PL bnd x 1e30")], {"lower": [-np.inf, -2, 0], "upper": np.inf}, COSTS),
        (
            [("UP bnd x 4", "MI bnd x -inf\n UP bnd x -4")],
            {"lower": [-np.inf, -2, 0], "upper": [-4, np.inf, np.inf]},
            COSTS,
        ),
        ([("UP bnd x 4", "UP bnd x -4\n LO bnd x -9")], {"lower": [-9, -2, 0], "upper": [-4, np.inf, np.inf]}, COSTS),
        ([("UP bnd x 4", "BV bnd x")], {"upper": [1, np.inf, np.inf], "integrality": [1, 0, 0]}, COSTS),
        ([("UP bnd x 4", "BV bnd x 1")], {"upper": [1, np.inf, np.inf], "integrality": [1, 0, 0]}, COSTS),
        ([("UP bnd x 4", "UI bnd x 4")], {"integrality": [1, 0, 0]}, COSTS),
        ([("LO bnd y", "LI bnd y")], {"integrality": [0, 1, 0]}, COSTS),
        (
            [(" z c2 1", " m 'MARKER' 'INTORG'\n z c2 1\n m 'MARKER' 'INTEND'")],
            {"integrality": [0, 0, 1], "upper": [4, np.inf, 1]},
            COSTS,
        ),
        (
            [(" z c2 1", " m 'MARKER' 'INTORG'\n z c2 1\n m 'MARKER' 'INTEND'"), (BOUNDS, BOUNDS + " PL bnd z\n")],
            {"integrality": [0, 0, 1]},
            COSTS,
        ),
    ],
)
def test_what_is_meant_is_read(read: Read, changes: list, content: dict, costs: list[float]) -> None:
    program = read(changed(*changes))
    assert program == IntegerProgram.from_rows(**{**CONTENT, **content})
    assert program.objective.tolist() == costs


@pytest.mark.parametrize(("width", "sides"), [(2, (7, 9)), (-2, (5, 7)), ("1e30", (7, np.inf)), (0, (7, 7))])
def test_a_range_of_an_equation_has_a_sign(read: Read, width: float, sides: tuple[float, float]) -> None:
    program = read(changed((" G c2", " E c2"), ("c2 1\nRANGES", "c2 7\nRANGES"), (RANGES, f" rng c2 {width}\n")))
    assert program.matrix.row(1)[1].tolist() == [2, 1]
    assert (program.row_lower[1], program.row_upper[1]) == sides


@pytest.mark.parametrize("sign", [1, -1])
def test_the_objectives_right_side_is_minus_its_constant(read: Read, sign: int) -> None:
    sense = "OBJSENSE MAX\n" if sign < 0 else ""
    assert read(changed(("ROWS\n", f"{sense}ROWS\n"), (RHS, f"{RHS} rhs cost -5\n"))).offset == sign * 5


@pytest.mark.parametrize("kind", ["UP", "UI"])
def test_a_negative_upper_bound_alone_opens_the_lower_one_with_a_warning(read: Read, kind: str) -> None:
    with pytest.warns(
        UserWarning, match=r"file.mps, line 16: column 'x' has a negative upper bound and no lower one"
    ) as seen:
        program = read(changed(("UP bnd x 4", f"{kind} bnd x -4")))
    assert seen[0].filename == __file__
    assert program.lower.tolist() == [-np.inf, -2, 0]
    assert program.upper.tolist() == [-4, np.inf, np.inf]


MISREAD = [  # those of other programs that HiGHS 1.16 makes of them, and their like
    (" z c2 1", " z c9 1", 10, "there is no row 'c9'"),
    (" y cost 2 c1 3", " y cost 2 c9 3", 9, "there is no row 'c9'"),
    ("rhs c1 8", "rhs c9 8", 12, "there is no row 'c9'"),
    ("rng c1 3", "rng c9 3", 14, "there is no row 'c9'"),
    ("UP bnd x 4", "UP bnd q 4", 16, "there is no column 'q'"),
    ("UP bnd x 4", "UP bnd x", 16, "there is no column 'bnd'"),
    (" x c2 2", " x c1 2", 8, "the entry of column 'x' in row 'c1' is given a second time"),
    (" x c2 2", " x cost 1", 8, "the entry of column 'x' in row 'cost' is given a second time"),
    (" x cost 1 c1 1", " x c1 1 c1 1", 7, "the entry of column 'x' in row 'c1' is given a second time"),
    ("rhs c1 8 c2 1", "rhs c1 8 c1 1", 12, "the right side of row 'c1' is given a second time"),
    ("rng c1 3", "rng c1 3 c1 3", 14, "the range of row 'c1' is given a second time"),
    ("LO bnd y -2", "UP bnd x 5", 17, "the upper bound of column 'x' is given a second time"),
    ("LO bnd y -2", "FX bnd x 5", 17, "the upper bound of column 'x' is given a second time"),
    ("LO bnd y -2", "LO bnd y -2\n MI bnd y", 18, "the lower bound of column 'y' is given a second time"),
    (" G c2", " G c1", 5, "row 'c1' is declared a second time"),
    (" G c2", " G c2\n N cost", 6, "row 'cost' is declared a second time"),
    (" z c2 1", " x cost 5", 10, "column 'x' comes again, after others or a marker"),
    (" x c2 2", " m 'MARKER' 'INTORG'\n x c2 2", 9, "column 'x' comes again, after others or a marker"),
    ("c1 8", "c1 1,5", 12, "expected a number, got '1,5'"),
    (" z c2 1", " z c2 1,5", 10, "expected a finite number, got '1,5'"),
    (" z c2 1", " z cost nan", 10, "expected a finite number, got 'nan'"),
    (" z c2 1", " z c2 inf", 10, "expected a finite number, got 'inf'"),
    (" z c2 1", " z c2 1_0", 10, "expected a finite number, got '1_0'"),
    (" z c2 1", " z c2 1.5x", 10, "expected a finite number, got '1.5x'"),
    (" z c2 1", " z c2 0x1", 10, "expected a finite number, got '0x1'"),
    (" z c2 1", " z c2 1.5D3", 10, "expected a finite number, got '1.5D3'"),
    ("UP bnd x 4", "UP bnd x nan", 16, "expected a number, got 'nan'"),
    ("rng c1 3", "rng c1 3..", 14, "expected a number, got '3..'"),
    (" rhs c1 8 c2 1", " rhs c1 8\n other c2 1", 13, "RHS has a second set, 'other' after 'rhs': one can be read"),
    ("LO bnd y", "LO y", 17, "BOUNDS has a second set, '' after 'bnd'"),
    ("UP bnd x 4", "LO bnd x inf", 16, "the lower bound of column 'x' can't be inf"),
    ("UP bnd x 4", "UP bnd x -1e20", 16, "the upper bound of column 'x' can't be -inf"),
    ("UP bnd x 4", "FX bnd x inf", 16, "the lower bound of column 'x' can't be inf"),
    ("UP bnd x 4", "UP bnd x 4\n LO bnd x 5", 17, "no number lies within the bounds of column 'x', 5.0 and 4.0"),
    ("UP bnd x 4", "LI bnd x .2\n UP bnd x .7", 17, "no integer lies within the bounds of column 'x', 0.2 and 0.7"),
    ("UP bnd x 4", "FR bnd x 4", 16, "bound type FR has no number, got 4.0"),
    ("UP bnd x 4", "XX bnd x 4", 16, "must be one of LO, UP, FX, LI, UI, SC, SI, FR, MI, PL, BV, got 'XX'"),
    ("UP bnd x 4", "SC bnd x 0", 16, "SC 0 means 0 to some and no bound to others: write FX or 1e30"),
    ("UP bnd x 4", "SC bnd x 4\n UP bnd x 4", 17, "the upper bound of column 'x' is given a second time"),
    (
        "LO bnd y -2",
        "LO bnd y -2\n SC bnd y 5",
        18,
        "column 'y' is semi-continuous: its lower bound must be at least 0",
    ),
    ("UP bnd x 4", "UP bnd my x 4", 16, "got 5 words; names with spaces aren't read"),
    (" z c2 1", " my z c2 1", 10, "got 4 words; names with spaces aren't read"),
    (" G c2", " G c 2", 5, "ROWS expects a type and a name, got 3 words; names with spaces aren't read"),
    ("c1 8", "c1 -inf", 12, "row 'c1' of type L can't have side -inf"),
    ("c2 1\nRANGES", "c2 inf\nRANGES", 12, "row 'c2' of type G can't have side inf"),
    ("rng c1 3", "rng cost 3", 14, "row 'cost' is of type N: it can't have a range"),
    ("c1 8", "c1 inf", 14, "a row whose right side is infinite can't have a range"),
    (" G c2", " X c2", 5, "the type of a row must be N, L, G or E, got 'X'"),
    (" N cost\n", "", 5, "ROWS has no row of type N, the objective"),
    (" z c2 1", " m 'MARKER' 'INTORG'\n z c2 1", 12, "COLUMNS ends without the marker 'INTEND'"),
    (" z c2 1", " m 'MARKER' 'INTEND'\n z c2 1", 10, "marker 'INTEND' comes without INTORG"),
    (" z c2 1", " m 'MARKER' 'SOSORG'\n z c2 1", 10, "a marker must be 'INTORG' or 'INTEND', got \"'SOSORG'\""),
    ("NAME base\n", "OBJSENSE\n", 2, "OBJSENSE ends without MAX or MIN"),
    ("NAME base\n", "OBJSENSE LARGE\n", 1, "the sense of the objective must be MAX or MIN, got 'LARGE'"),
    ("NAME base\n", "OBJSENSE MAX\n MIN\n", 2, "the sense of the objective is given a second time, and not as before"),
    ("NAME base\n", "*SENSE:Maximize\nOBJSENSE MIN\n", 2, "is given a second time, and not as before"),
    ("NAME base\n", "NAME base\n x\n", 2, "NAME has no lines of data, got 'x'"),
    ("NAME base\n", " x\n", 1, "no section has begun, got 'x'"),
    (" G c2", " G c2\nNAME base", 6, "section NAME comes a second time"),
    ("NAME base\nROWS\n N cost\n", "ROWS\n N cost\nNAME base\n", 3, "NAME must come before ROWS"),
    ("RANGES\n", "RHS\n", 13, "section RHS comes a second time"),
    ("COLUMNS\n", f"{RHS}COLUMNS\n", 6, "section RHS must come after COLUMNS"),
    (RHS, "RHS c1 8\n", 11, "section RHS must begin with this word alone, got 'c1' behind it"),
    ("NAME base\nROWS\n N cost\n L c1\n G c2\n", "", 1, "section COLUMNS must come after ROWS"),
    (" x cost 1 c1 1\n x c2 2\n y cost 2 c1 3\n z c2 1\n", "", 7, "COLUMNS has no column"),
    ("RANGES\n", "QUADOBJ\n", 13, "'QUADOBJ' begins in the first column but isn't a section that is read"),
    ("BOUNDS\n", "SETS\n", 15, "'SETS' begins in the first column but isn't a section that is read"),
    ("BOUNDS\n", "SOS\n", 16, "a set must begin with S1 or S2, got 'UP'"),
    *(
        ("ENDATA\n", f"{section}\n{lines}\nENDATA\n", line, message)
        for section, lines, line, message in (
            ("SOS", " S1 SOS a b", 19, "SOS expects S1 or S2, and a name with or without SOS before it, got 4 words"),
            (
                "SOS",
                " S1 a\n x",
                20,
                "SOS expects a column and its weight, with or without SOS before them, got 1 word",
            ),
            ("SOS", " S1 a\n q 1", 20, "there is no column 'q'"),
            ("SOS", " S1 a\n x nan", 20, "expected a finite number, got 'nan'"),
            ("SOS", " S1 a\n x 1\n x 2", 21, "the weight of column 'x' is given a second time"),
            ("SOS", " S2 a\n x 1\n y 1", 21, "the weight 1.0 is there twice, and leaves the order of a set of"),
            ("INDICATORS", " IF c1 x", 19, "INDICATORS expects IF, a row, a column, and 0 or 1, got 3 words"),
            ("INDICATORS", " IF c9 x 1", 19, "there is no row 'c9'"),
            ("INDICATORS", " IF c1 q 1", 19, "there is no column 'q'"),
            ("INDICATORS", " IF cost x 1", 19, "row 'cost' is of type N: it can't depend on a column"),
            ("INDICATORS", " IF c1 x 2", 19, "the value of column 'x' must be 0 or 1, got '2'"),
            ("INDICATORS", " IF c1 x 1", 19, "column 'x' must be integer with bounds 0 and 1"),
            ("INDICATORS", " IF c1 x 1\n IF c1 y 1", 20, "the condition of row 'c1' is given a second time"),
        )
    ),
    (" UP bnd x 4", "UP bnd x 4", 16, "lines of data begin with a space"),
    (" LO bnd y -2\nENDATA\n", "ENDATA\n LO bnd y -2\n", 18, "ENDATA has no lines of data, got 'LO'"),
    (BOUNDS + "ENDATA\n", "ENDATA\nBOUNDS\n", 17, "something follows ENDATA"),
    ("ENDATA\n", "", 17, "the file ends without ENDATA: a part of it may be missing"),
    ("ENDATA", "ENDAT", 18, "'ENDAT' begins in the first column"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), MISREAD)
def test_what_is_malformed_is_refused_by_line(read: Read, old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(ProblemError, match=rf"file.mps, line {line}: .*{re.escape(message)}"):
        read(changed((old, new)))


def test_an_empty_file_ends_in_its_first_line(read: Read) -> None:
    with pytest.raises(ProblemError, match=r"file\.mps, line 1: the file ends without ENDATA"):
        read("")


def test_line_ends_of_windows_and_tabs_are_read(read: Read) -> None:
    assert read(BASE.replace("\n", "\r\n").replace(" ", "\t")) == IntegerProgram.from_rows(**CONTENT)


def test_limits_on_bytes_and_lines_hold_for_what_is_unpacked(tmp_path: Path) -> None:
    text = changed(("NAME base\n", "NAME base\n" + "* a comment\n" * 50_000)).encode()
    for name, pack in ((".mps", bytes), (".mps.gz", gzip.compress), (".mps.bz2", bz2.compress)):
        path = tmp_path / f"large{name}"
        path.write_bytes(pack(text))
        assert IntegerProgram.from_mps(path, max_bytes=len(text)) == IntegerProgram.from_rows(**CONTENT)
        with pytest.raises(
            ProblemError, match=rf"large{name}, line \d+: the file unpacks to more than max_bytes={len(text) - 1}"
        ):
            IntegerProgram.from_mps(path, max_bytes=len(text) - 1)
        path.write_bytes(pack(b"*" + b" " * 2**20 + b"\n" + text))
        with pytest.raises(ProblemError, match=r"line 1: a line of more than 1048576 bytes isn't read"):
            IntegerProgram.from_mps(path)
    with pytest.raises(ProblemError, match="max_bytes must be an integer ≥ 1, got 0"):
        IntegerProgram.from_mps(path, max_bytes=0)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_broken_packing_is_refused(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"broken.mps{suffix}"
    whole = pack(BASE.encode())
    flipped = bytearray(whole)
    flipped[-6] ^= 255
    for content in (whole[:-1], whole[: len(whole) // 2], bytes(flipped), BASE.encode()):
        path.write_bytes(content)
        with pytest.raises(
            ProblemError, match=rf"broken.mps{suffix}, line \d+: the file can't be unpacked beyond this"
        ):
            IntegerProgram.from_mps(path)


JUNK = ["1,5", "nan", "NaN", "1.5x", "--3", "1_0", "0x1", "1e", "1.2.3", "one", "1e+", "1 5", "٣"]


def mutations(text: str) -> st.SearchStrategy[str]:
    """Files that are broken, or still mean the same; a line that goes missing as a whole would mean something else."""
    lines = text.splitlines(keepends=True)
    data = [number for number, line in enumerate(lines) if line.startswith(" ")]

    @st.composite
    def mutate(draw: st.DrawFn) -> str:
        kind = draw(st.sampled_from(["cut", "twice", "word", "junk", "name", "case", "section"]))
        if kind == "cut":
            return text[: draw(st.integers(0, len(text) - 1))]
        number = draw(st.integers(0, len(lines) - 1) if kind == "twice" else st.sampled_from(data))
        line, changed_lines = lines[number], list(lines)
        words = line.split()
        place = draw(st.integers(0, len(words) - 1))
        if kind == "twice":
            changed_lines.insert(draw(st.integers(number + 1, len(lines))), line)
        elif kind == "section":
            changed_lines[number] = line.lstrip(" ")
        elif kind == "word":
            del words[place]
        elif kind == "junk":
            assume(re.fullmatch(r"-?(\d.*|inf)", words[place]))
            words[place] = draw(st.sampled_from(JUNK))
        else:
            assume(re.fullmatch(r"r\d+|cost|c\d+", words[place]) and not (place == 0 and len(words) in (3, 5)))
            words[place] = "unknown" if kind == "name" else words[place].upper()
        if kind not in ("twice", "section"):
            changed_lines[number] = f" {' '.join(words)}\n"
        return "".join(changed_lines)

    return mutate()


number = st.sampled_from([-2.5, -1, 0, 1, 1 / 3, 7, 1e10])


@st.composite
def programs(draw: st.DrawFn) -> IntegerProgram:
    n = draw(st.integers(1, 4))
    row = st.lists(number, min_size=n, max_size=n)
    rows = np.array(draw(st.lists(row, max_size=4))).reshape(-1, n)
    ends = st.sampled_from([-np.inf, -3, 0.25, 1, 5, np.inf])
    sides = [sorted(draw(st.tuples(ends, ends))) for _ in rows]
    pairs = [sorted(draw(st.tuples(*2 * [st.sampled_from([-np.inf, -3, 0, 1, 5, np.inf])]))) for _ in range(n)]
    lower = [-np.inf if low == np.inf else low for low, _ in pairs]
    return IntegerProgram.from_rows(
        rows,
        [-np.inf if low == np.inf else low for low, _ in sides],
        [np.inf if high == -np.inf else high for _, high in sides],
        lower=lower,
        upper=[np.inf if high == -np.inf else high for _, high in pairs],
        integrality=draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)),
    )


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_is_read_as_another_program(tmp_path: Path, read: Read, data: st.DataObject) -> None:
    program = data.draw(programs())
    program.to_mps(tmp_path / "whole.mps")
    text = data.draw(mutations((tmp_path / "whole.mps").read_text()))
    try:
        assert read(text) == program
    except ProblemError as error:
        assert re.search(r"file.mps, line \d+: ", str(error))  # noqa: PT017 (an error is allowed, not demanded)


@given(programs(), st.sampled_from(["x", "a_name_too_long_for_fixed_format_"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_highs_writes_in_either_format_is_read(tmp_path: Path, program: IntegerProgram, prefix: str) -> None:
    """HiGHS chooses the format by the length of names; it forgets that a variable is integer where no row has it."""
    touched = np.zeros(program.num_vars, dtype=bool)
    touched[program.matrix.indices] = True
    assume(touched.all())
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    for column in range(program.num_vars):
        engine.addVar(program.lower[column], program.upper[column])
        engine.passColName(column, f"{prefix}{column}")
        if program.integrality[column]:
            engine.changeColIntegrality(column, highspy.HighsVarType.kInteger)
    for row, (low, high) in enumerate(zip(program.row_lower, program.row_upper, strict=True)):
        columns, values = program.matrix.row(row)
        engine.addRow(low, high, len(columns), columns.astype(np.int32), values)
        engine.passRowName(row, f"row{row}")
    engine.writeModel(str(tmp_path / "highs.mps"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert IntegerProgram.from_mps(tmp_path / "highs.mps") == program


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PuLP's, of what its version 4 will spell otherwise
@pytest.mark.parametrize("with_objsense", [False, True])
@pytest.mark.parametrize("sense", [pulp.LpMinimize, pulp.LpMaximize])
def test_what_pulp_writes_keeps_its_sense(tmp_path: Path, with_objsense: bool, sense: int) -> None:
    """PuLP says the sense in a comment by default."""
    model, x, y = pulp.LpProblem("model", sense), pulp.LpVariable("x", 0, 4, "Integer"), pulp.LpVariable("y", None, -1)
    model += 2 * x + y
    model += x - 3 * y <= 7
    model.writeMPS(tmp_path / "pulp.mps", with_objsense=with_objsense)
    program = IntegerProgram.from_mps(tmp_path / "pulp.mps")
    assert program == IntegerProgram(A_ub=[[1, -3]], b_ub=[7], lower=[0, -np.inf], upper=[4, -1], integrality=[1, 0])
    assert program.objective.tolist() == [2 * sense, sense]
