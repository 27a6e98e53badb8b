"""The gradient lab: its truth, its figures, and a table that it must find again."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.bench import LabEffort, Report, Setting, lab, lab_page, lab_plot, lab_tables
from mapgrad.bench._lab import run_lab
from mapgrad.bench._lab_cases import CASES, METHODS, SETTINGS, LabCase, Method
from mapgrad.bench._lab_page import lab_notes
from mapgrad.bench._lab_truth import truth_of
from mapgrad.exact import topk_marginals

SUBSET = mapgrad.KSubset(6, 2)
QUICK = LabEffort(rows=200, draws=20_000, count=2)
PLAIN = [Setting("τ = 1")]


class Zero(mapgrad.Estimator):
    """No gradient at all."""

    def __init__(self, samples):
        super().__init__(None, samples=samples, temperature=1.0)

    def gradient(self, forward, gradient):
        return torch.zeros_like(forward.theta)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def figures(estimators, problem=SUBSET, settings=PLAIN, **how):
    report = lab(problem, estimators, settings=settings, **{"budgets": [12], "effort": QUICK, **how})
    assert not lab_notes(report)
    return {row.name: row for row in report.rows}


def test_what_is_sampled_agrees_with_quadrature():
    noise = mapgrad.Gumbel()
    theta, slope = normal(6), normal(6, seed=1)
    same = mapgrad.IntegerProgram(A_eq=torch.ones(1, 6).numpy(), b_eq=[2])
    exact, sampled = (
        truth_of(
            mapgrad.get_solver("auto", problem), theta, slope, noise, 0.7, 50_000, torch.Generator().manual_seed(3)
        )
        for problem in (SUBSET, same)
    )
    values = [topk_marginals(theta + 1e-4 * way, 2, noise, 0.7) @ slope for way in (*torch.eye(6), *-torch.eye(6))]
    expected = (torch.stack(values[:6]) - torch.stack(values[6:])) / 2e-4
    torch.testing.assert_close(exact.gradient, expected, rtol=1e-5, atol=1e-7)
    assert exact.error == 0
    assert 0 < sampled.error < 0.05
    assert (sampled.gradient - expected).norm() < 2.5 * sampled.error * expected.norm()


def test_figures_of_estimators_whose_worth_is_known():
    theta, slope = normal(1, 6), normal(1, 6, seed=1)
    found = figures(
        {
            "slope": mapgrad.StraightThrough,
            "unbiased": mapgrad.Perturbed,
            "no gradient": Zero,
            "both": partial(mapgrad.IMLE, symmetric=True),
        },
        theta=theta,
        slope=slope,
    )
    truth = truth_of(mapgrad.get_solver("auto", SUBSET), theta[0], slope[0], mapgrad.Gaussian(), 1.0, 1, None).gradient
    straight, unbiased, zero = (found[name].extra for name in ("slope", "unbiased", "no gradient"))
    cosine = torch.cosine_similarity(slope[0], truth, dim=0).item()
    assert straight["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert straight["of the mean"] == pytest.approx(cosine, abs=1e-5)
    assert straight["length"] == pytest.approx(float(slope[0] @ truth / truth.square().sum()), rel=1e-5)
    assert straight["variance"] == pytest.approx(0, abs=1e-9)
    assert unbiased["of the mean"] > 0.98
    assert unbiased["length"] == pytest.approx(1, abs=0.15)
    assert unbiased["variance"] > 0.1
    assert [zero[name] for name in ("cosine", "of the mean", "length", "variance", "dead")] == [0, 0, 0, 0, 1]
    assert [row.size["S"] for row in found.values()] == [12, 12, 12, 4]
    assert [row.extra["calls"] for row in found.values()] == [12, 12, 12, 12]


def test_pools_hold_what_earlier_steps_found():
    pooled = partial(mapgrad.Pooled, derivative=True, draws=512)
    methods = {"earlier": Method(pooled), "own": Method(pooled, is_new=True), "calls": mapgrad.Pooled}
    found = figures(methods, budgets=[1])
    assert found["own"].extra["dead"] == 1  # a state alone
    assert found["earlier"].extra["cosine"] > 0.9
    assert found["calls"].extra["calls"] == 1  # as the pool knows nearly all


def without_time(report):
    return [(row.key, {**row.extra, "µs a row": 0}) for row in report.rows]


def test_equal_seeds_give_equal_figures():
    run = partial(lab, mapgrad.Assignment(3), None, budgets=[3], effort=LabEffort(4, 1000, 1))
    one, same, other = (run(seed=seed, settings=PLAIN) for seed in (5, 5, 6))
    assert [row.name for row in one.rows] == [*METHODS]
    assert without_time(one) == without_time(same) != without_time(other)


def test_offsets_are_added_where_the_problem_cant_see_them():
    report = lab(SUBSET, {"both": mapgrad.IMLE}, budgets=[12], effort=QUICK)
    cosines = {row.case.rpartition("; ")[2]: row.extra["cosine"] for row in report.rows}
    assert [*cosines] == [setting.name for setting in SETTINGS]
    for name in ("τ = 1, θ + 1000", "τ = 1, g + 10"):
        assert cosines[name] == pytest.approx(cosines["τ = 1"], abs=0.05)
    knapsack = mapgrad.Knapsack([[3, 2, 4, 1]], [5])
    report = lab(knapsack, {"both": mapgrad.IMLE}, budgets=[12], effort=QUICK)
    assert len(report.rows) == len(SETTINGS) - 2


def test_a_relative_temperature_is_the_same_for_all_scales():
    setting = [next(setting for setting in SETTINGS if setting.name == "τ = 1 scale of θ")]
    theta, slope = normal(1, 6), normal(1, 6, seed=1)
    small, large = (
        figures({"both": mapgrad.IMLE}, settings=setting, theta=scale * theta, slope=slope)["both"].extra
        for scale in (1, 512)
    )
    assert large["cosine"] == pytest.approx(small["cosine"], abs=1e-3)
    assert large["length"] == pytest.approx(small["length"], abs=1e-3)


def test_costs_that_noise_takes_out_of_the_domain():
    found = figures({"clipped": mapgrad.Perturbed, "Exact": mapgrad.Exact}, mapgrad.GridShortestPath(2, 3))
    assert found["clipped"].extra["of the mean"] > 0.9  # of the mean answer, clipped rows' too
    assert found["Exact"].extra["calls"] == 0


def test_a_sample_of_theta_is_priced_by_its_next_row():
    theta = normal(3, 6)
    one = figures({"x": mapgrad.StraightThrough}, theta=theta)["x"]
    other = figures({"x": mapgrad.StraightThrough}, theta=theta, slope=-theta.roll(-1, 0))["x"]
    assert {**one.extra, "µs a row": 0} == {**other.extra, "µs a row": 0}
    assert len(one.runs["cosine"]) == 3


def test_what_fails_is_named_as_the_user_names_it():
    class Fails(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if theta.argmax() == 0:
                raise RuntimeError("first")
            return np.eye(1, len(theta), theta.argmax())[0]

    theta = torch.tensor([[1.0, 0.9, 0.0]])
    settings, effort = [mapgrad.bench.Setting("τ = 1", 1.0)], LabEffort(rows=20, draws=200)
    report = lab(
        mapgrad.KSubset(3, 1), {"default": mapgrad.IMLE}, theta=theta, solver=Fails, settings=settings, effort=effort
    )
    assert all("Fails has no acceptable answer" in row.note for row in report.rows)
    assert not any("_Counter" in row.note for row in report.rows)


def test_what_cant_be_measured_is_said():
    report = lab(mapgrad.KSubset(3, 3), {"x": mapgrad.IMLE}, settings=PLAIN, effort=QUICK)
    assert "the noise changes no answer" in lab_notes(report)[0]
    with pytest.raises(mapgrad.MapgradError, match=r"nothing was measured: .*take a larger temperature"):
        lab_plot(report, Path("never.png"))
    methods = {"x": mapgrad.IMLE, "y": partial(mapgrad.Perturbed, baseline="none")}
    report = lab(SUBSET, methods, settings=PLAIN, effort=QUICK)
    assert "it can't be made: baseline must be" in lab_notes(report)[0]
    assert sum(not row.note for row in report.rows) == 3


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({"theta": normal(2, 5)}, r"theta must be \[N, 6\].*\(2, 5\)"),
        ({"theta": normal(0, 6)}, "with a row at least"),
        ({"slope": normal(6)}, r"slope must be \[N, 6\]"),
        ({"theta": normal(2, 6), "slope": normal(3, 6)}, "as many rows, got 2 and 3"),
        ({"slope": normal(3, 6)}, "slope needs theta"),
    ],
)
def test_wrong_rows_are_refused(rows, match):
    with pytest.raises(mapgrad.ShapeError, match=match):
        lab(SUBSET, {"x": mapgrad.IMLE}, **rows)


def test_tables_page_and_picture(tmp_path):
    cases = [CASES["assignment 4"], LabCase("subset", SUBSET, partial(lambda g, n: normal(n, 6)), budgets=(12, 24))]
    methods = {"a <b>": Method(mapgrad.IMLE), "exact": Method(mapgrad.Exact)}
    report = run_lab(cases, methods, SETTINGS[:2], effort=LabEffort(20, 2000, 1))
    report.write(tmp_path / "lab.json")
    assert Report.read(tmp_path / "lab.json") == report
    tables = lab_tables(report)
    assert [table.title for table in tables[:2]] == [
        "τ = 1: cosine of one gradient at 3 / 12 / 48 (12 / 24 on subset) solver calls a row × length of the mean",
        "τ = 1: means over 2 problems, of length and variance medians, 12 (24 on subset) solver calls a row",
    ]
    assert [len(table.rows) for table in tables] == [2] * 4
    assert tables[0].header == ["estimator", "assignment 4", "subset"]
    assert tables[0].rows[1][1].count("/") == 2
    lab_plot(report, tmp_path / "lab.png")
    assert (tmp_path / "lab.png").read_bytes().startswith(b"\x89PNG")
    lab_page(report, tmp_path / "lab.html")
    page = (tmp_path / "lab.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;" in page
    assert "<svg" in page
    assert 'href="http' not in page.replace("http://www.w3.org", "")
    with pytest.raises(mapgrad.MapgradError, match="can't be written"):
        lab_plot(report, tmp_path / "lab.nothing")


def test_what_the_lab_takes_for_estimators_gets_what_it_has_parameters_for():
    makers = {
        "no noise": partial(mapgrad.Blackbox, 2.0),
        "adaptive": mapgrad.AdaptiveIMLE,
        "a problem of its own": partial(mapgrad.Pooled, SUBSET),
    }
    found = figures(makers)
    assert [round(row.extra["calls"]) for row in found.values()] == [2, 12, 12]


class AsLongAsTheta(mapgrad.Target):
    """A step as long as θ, whatever the noise and the problem."""

    is_rowwise = True

    def forward(self, theta, gradient, context):
        dims = tuple(range(-context.event_ndim, 0))
        step = (theta.square().sum(dims, keepdim=True) / gradient.square().sum(dims, keepdim=True)).sqrt()
        return theta - step * gradient, step


METHODS_OF_OLD = {
    "straight-through": METHODS["StraightThrough"],
    "perturbed": METHODS["Perturbed"],
    "one side": Method(partial(mapgrad.IMLE, target=AsLongAsTheta(), symmetric=False)),
    "both sides": Method(partial(mapgrad.IMLE, target=AsLongAsTheta(), symmetric=True)),
    "line": METHODS["Line, depth 0"],
    "pool of earlier steps": METHODS["Pooled, derivative"],
}
"""What the earlier table has, with steps as long as θ, which `RelativeStep` no longer takes."""

EARLIER = json.loads((Path(__file__).parent / "earlier_gradients.json").read_text(encoding="utf-8"))
"""θ and the loss's gradients of an earlier, independent program, and the cosines of one gradient that it found."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLIER)
def test_an_independent_program_found_the_same(name):
    case, earlier = CASES[name], EARLIER[name]
    rows = {key: torch.tensor(earlier[key]).double().view(-1, *case.problem.shape) for key in ("theta", "slope")}
    report = run_lab([replace(case, **rows)], METHODS_OF_OLD, PLAIN)
    for method, cosines in earlier["cosines"].items():
        found = [row.extra["cosine"] for row in report.rows if row.name == method]
        if method == "line":  # which projects the loss's gradient now, as that program didn't
            cosines = [max(pair) for pair in zip(found, cosines, strict=True)]
        assert found == pytest.approx(cosines, abs=0.05), method
