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


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_no_answer_is_wrong(name, package):
    pytest.importorskip(package)
    report = fuzz_solver(name, 300)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == 0, str(report)
    assert report.total(Verdict.ERROR) <= 1, str(report)
    assert report.total(Verdict.RIGHT) >= 60


def test_every_engine_of_integer_programs_is_tried():
    takes = [info.name for info in mapgrad.list_solvers() if mapgrad.IntegerProgram in info.accepts]
    assert sorted(takes) == sorted([*PACKAGES, "diagram", "search"])


def test_diagrams_are_right_about_the_few_programs_of_0_1_variables():
    report = fuzz_solver("diagram", 300)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == report.total(Verdict.ERROR) == 0, str(report)
    assert report.total(Verdict.RIGHT) >= 10


def test_search_is_right_about_the_programs_of_integers_that_it_takes():
    for problem in (mapgrad.KSubset(2, 1), mapgrad.Knapsack([[1, 1]], [1])):
        mapgrad.get_solver("search", problem)(torch.zeros(1, 2))  # which compiles, in no row's time
    report = fuzz_solver("search", 300)
    assert report.total(Verdict.WRONG) == report.total(Verdict.SLOW) == report.total(Verdict.ERROR) == 0, str(report)
    assert report.total(Verdict.RIGHT) >= 40
