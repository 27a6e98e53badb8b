"""Every engine on random programs whose optimum is known without it."""

import pytest
import torch

import mapgrad
from mapgrad.testing import Verdict, fuzz_solver

PACKAGES = {
    "highs": "highspy",
    "scipy.milp": "scipy",
    "ortools.mip": "ortools",
    "ortools.cp_sat": "ortools",
    "pulp.cbc": "pulp",
    "pulp.highs": "pulp",
}


each_count = pytest.mark.parametrize("count", [90, pytest.param(300, marks=pytest.mark.slow)])


@each_count
@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_no_answer_is_wrong(name, package, count):
    pytest.importorskip(package)
    report = fuzz_solver(name, count)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == 0, str(report)
    assert report.total(Verdict.ERROR) <= 1, str(report)
    assert report.total(Verdict.RIGHT) >= count // 5


def test_every_engine_of_integer_programs_is_tried():
    takes = [info.name for info in mapgrad.list_solvers() if mapgrad.IntegerProgram in info.accepts]
    assert sorted(takes) == sorted([*PACKAGES, "diagram", "search"])


@each_count
def test_diagrams_are_right_about_the_few_programs_of_0_1_variables(count):
    report = fuzz_solver("diagram", count)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == report.total(Verdict.ERROR) == 0, str(report)
    assert report.total(Verdict.RIGHT) >= count // 30


@each_count
def test_search_is_right_about_the_programs_of_integers_that_it_takes(count):
    integers = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[3], lower=-1, upper=3)
    for problem in (mapgrad.KSubset(2, 1), mapgrad.Knapsack([[1, 1]], [1]), integers):
        mapgrad.get_solver("search", problem)(torch.zeros(1, 2))  # which compiles, in no row's time
    report = fuzz_solver("search", count)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == report.total(Verdict.ERROR) == 0, str(report)
    assert report.total(Verdict.RIGHT) >= count // 8
