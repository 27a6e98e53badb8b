"""The programs of tests/data, read by `from_mps`: each engine proves the optimum that two engines found in the file."""

from pathlib import Path

import highspy
import numpy as np
import pytest
import torch

import mapgrad

FOLDER = Path(__file__).parent / "data"
OPTIMA = dict(line.split(" : ") for line in (FOLDER / "optima.txt").read_text().splitlines())
FILES = sorted((FOLDER / "programs").glob("*.mps"))


def native(path):
    """Return what HiGHS reads."""
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    assert engine.readModel(str(path)) == highspy.HighsStatus.kOk
    return engine.getLp()


def test_there_are_programs_of_all_kinds():
    texts = [path.read_text() for path in FILES]
    for word in ("OBJSENSE", "RANGES", "INTORG", " FR ", " MI ", " FX ", " BV ", " LO BND       X0        -"):
        assert any(word in text for text in texts), word


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["highs", "scipy.milp", "ortools.mip", "pulp.cbc", "pulp.highs"])
def test_optima_are_proved(path, name):
    program = mapgrad.IntegerProgram.from_mps(path)
    solutions = mapgrad.get_solver(name, program).solve(-torch.tensor(program.objective))
    assert solutions.status == mapgrad.Status.OPTIMAL
    assert program.contains(solutions.z)
    least = program.offset - float(solutions.objective)
    sense = -1 if "MAX" in path.read_text() else 1
    assert sense * least == pytest.approx(float(OPTIMA[path.stem]), rel=1e-9)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_read_as_highs_reads_them(path):
    program, lp = mapgrad.IntegerProgram.from_mps(path), native(path)
    sense = -1 if lp.sense_ == highspy.ObjSense.kMaximize else 1
    assert (sense * program.objective).tolist() == list(lp.col_cost_)
    assert sense * program.offset == lp.offset_
    assert program.lower.tolist() == list(lp.col_lower_)
    assert program.upper.tolist() == list(lp.col_upper_)
    assert program.integrality.tolist() == [kind == highspy.HighsVarType.kInteger for kind in lp.integrality_]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_hold_where_those_that_highs_reads_do(path):
    program, lp = mapgrad.IntegerProgram.from_mps(path), native(path)
    matrix = np.zeros((lp.num_row_, lp.num_col_))
    matrix[lp.a_matrix_.index_, np.repeat(np.arange(lp.num_col_), np.diff(lp.a_matrix_.start_))] = lp.a_matrix_.value_
    solution = mapgrad.get_solver("highs", program)(-torch.tensor(program.objective)).numpy()
    rng = np.random.default_rng(0)
    near = np.tile(solution, (400, 1))
    for point in near[1:]:
        columns = rng.integers(len(point), size=rng.integers(1, 4))
        point[columns] += rng.choice((-1.0, 1.0), size=len(columns))
    near = near[((near >= program.lower) & (near <= program.upper)).all(axis=1)]
    activity = near @ matrix.T
    held = ((activity >= np.array(lp.row_lower_) - 1e-7) & (activity <= np.array(lp.row_upper_) + 1e-7)).all(axis=1)
    assert 0 < held.sum() < len(held)
    assert program.contains_rows(near).tolist() == held.tolist()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_is_read_again(path, tmp_path):
    program = mapgrad.IntegerProgram.from_mps(path)
    program.to_mps(tmp_path / "again.mps")
    again = mapgrad.IntegerProgram.from_mps(tmp_path / "again.mps")
    assert again == program
    assert (again.objective.tolist(), again.offset) == (program.objective.tolist(), program.offset)
