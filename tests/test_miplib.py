"""MIPLIB 3 through `from_mps`: each engine proves the optima that the library lists.

``pytest -m slow tests/test_miplib.py`` has the instances that take an engine longer than a second or two.
"""

import highspy
import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.batching import _hand_over

OPTIMA = {
    "air03": 340160,
    "air05": 26374,
    "bell3a": 878430.316,
    "bell5": 8966406.49152,
    "blend2": 7.598985,
    "cap6000": -2451377,
    "dcmulti": 188182,
    "enigma": 0,
    "fixnet6": 3983,
    "flugpl": 1201500,
    "khb05250": 106940226,
    "l152lav": 4722,
    "lseu": 1120,
    "misc03": 3360,
    "misc07": 2810,
    "mod010": 6548,
    "p0033": 3089,
    "p0282": 258411,
    "p0548": 8691,
    "p2756": 3124,
    "pk1": 11,
    "pp08a": 7350,
    "rgn": 82.19999924,
    "stein27": 18,
    "stein45": 30,
    "vpm1": 20,
    "vpm2": 13.75,
}
QUICK = {
    "enigma",
    "flugpl",
    "khb05250",
    "lseu",
    "misc03",
    "p0033",
    "p0282",
    "p0548",
    "rgn",
    "stein27",
    "vpm1",
}
NOT_WITHIN_A_MINUTE = {("highs", "pk1"), ("ortools.mip", "pk1")}


def cases():
    for solver in ("highs", "ortools.mip", "pulp.cbc"):
        for name in OPTIMA:
            if (solver, name) not in NOT_WITHIN_A_MINUTE:
                yield pytest.param(solver, name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("solver", "name"), [*cases()])
def test_listed_optima_are_proved(data, solver, name):
    program = mapgrad.IntegerProgram.from_mps(data("miplib3") / f"{name}.mps.gz")
    solutions = mapgrad.get_solver(solver, program).solve(-torch.tensor(program.objective))
    assert solutions.status == mapgrad.Status.OPTIMAL
    assert program.contains(solutions.z)
    assert program.offset - float(solutions.objective) == pytest.approx(OPTIMA[name], rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("name", ["lseu", "p0033", "p0282", "p0548", "stein27"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_search_proves_small_ones_and_hands_others_over(data, name, alone, monkeypatch):
    if alone:
        if name == "p0548":
            pytest.skip("the search alone takes longer than a minute")
        monkeypatch.setattr(_hand_over, "successor_of", lambda *_: None)
    program = mapgrad.IntegerProgram.from_mps(data("miplib3") / f"{name}.mps.gz")
    solutions = mapgrad.get_solver("search", program).solve(-torch.tensor(program.objective))
    assert solutions.status == mapgrad.Status.OPTIMAL
    assert program.contains(solutions.z)
    assert program.offset - float(solutions.objective) == pytest.approx(OPTIMA[name], rel=1e-9, abs=1e-6)
    if alone or name == "p0548":
        assert solutions.stats["handed_over"] == (not alone)


def test_files_are_read_as_highs_reads_them(data):
    for path in sorted(data("miplib3").glob("*.mps.gz")):
        program = mapgrad.IntegerProgram.from_mps(path)
        engine = highspy.Highs()
        engine.setOptionValue("output_flag", False)
        assert engine.readModel(str(path)) == highspy.HighsStatus.kOk
        lp = engine.getLp()
        columns = np.repeat(np.arange(lp.num_col_), np.diff(lp.a_matrix_.start_))
        shape = lp.num_row_, lp.num_col_
        matrix = mapgrad.problems.SparseRows.from_entries(lp.a_matrix_.index_, columns, lp.a_matrix_.value_, shape)
        assert program.matrix == matrix, path
        assert program.row_lower.tolist() == list(lp.row_lower_), path
        assert program.row_upper.tolist() == list(lp.row_upper_), path
        assert program.lower.tolist() == list(lp.col_lower_), path
        assert program.upper.tolist() == list(lp.col_upper_), path
        kinds = [kind == highspy.HighsVarType.kInteger for kind in lp.integrality_]
        assert program.integrality.tolist() == kinds, path
        assert program.objective.tolist() == list(lp.col_cost_), path
        assert program.offset == lp.offset_, path
