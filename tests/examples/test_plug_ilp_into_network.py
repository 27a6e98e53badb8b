"""The predict-then-optimise example: its program, its data, and a small run of the whole."""

from __future__ import annotations

import zipfile
from itertools import groupby, product

import numpy as np
import pytest
import torch

import mapgrad

FEATURES = (
    "HolidayFlag", "DayOfWeek", "WeekOfYear", "Month", "PeriodOfDay", "ForecastWindProduction", "SystemLoadEA", "SMPEA",
)  # fmt: skip


@pytest.fixture
def example(load, monkeypatch):
    monkeypatch.delenv("MAPGRAD_DATA", raising=False)
    return load("plug_ilp_into_network")


def runs(schedule):
    """Return the first hour and the length of each time on."""
    hour = 0
    for on, group in groupby(schedule):
        length = len(list(group))
        if on:
            yield hour, length
        hour += length


def test_schedules_are_those_that_the_text_allows(example, monkeypatch):
    monkeypatch.setattr(example, "HOURS", 8)
    monkeypatch.setattr(example, "RUNNING", 4)
    monkeypatch.setattr(example, "AT_LEAST", 3)
    allowed = {
        schedule
        for schedule in product((0, 1), repeat=8)
        if sum(schedule) >= 4
        and len(list(runs(schedule))) <= 2
        # a start in the evening has fewer hours of the day left
        and all(length >= min(3, 8 - start) for start, length in runs(schedule))
    }
    states = {tuple(state) for state in example.machine().states().int().tolist()}
    assert states == allowed


def test_synthetic_prices_are_the_published_polynomial(example):
    days = example.synthetic_days(50, np.random.default_rng(3), degree=4, width=0.0)
    rng = np.random.default_rng(3)
    mixing, features = rng.integers(0, 2, (24, 5)), rng.standard_normal((50, 5))
    for day, hour in ((0, 0), (7, 23), (49, 11)):
        inner = sum(mixing[hour, i] * features[day, i] for i in range(5)) / 5**0.5 + 3
        assert days.prices[day, hour].item() == pytest.approx(inner**4 / 3.5**4 + 1, rel=1e-5)

    noisy = example.synthetic_days(50, np.random.default_rng(3), degree=4, width=0.5).prices / days.prices
    assert 0.5 <= noisy.min() < 0.52
    assert 1.48 < noisy.max() <= 1.5


def write_market(path, days):
    """Write an archive as the data's source has it; each day is 48 prices, None for a gap."""
    columns = ["#DateTime", "Holiday", *[name for name in FEATURES if name != "SMPEA"], "SMPEA", "SMPEP2"]
    lines = [" ".join(columns)]
    for number, prices in enumerate(days):
        for period, price in enumerate(prices):
            values = [0, number, 44, 11, period, 300.5, 3000 + period, 50]
            lines.append(
                f'"tue {number}/11/2011 00:00" "" {" ".join(map(str, values))}   {"NaN" if price is None else price}'
            )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/prices2013.dat", "\n".join(lines) + "\n")


def test_market_days_are_hours_without_gaps(example, tmp_path):
    rising = [float(period) for period in range(48)]
    write_market(tmp_path / "prices.zip", [rising, [*rising[:-1], None], rising[::-1]])
    days = example.market_days(tmp_path / "prices.zip")
    assert days.features.shape == (2, 24, 8)
    assert days.prices[0].tolist() == [2 * hour + 0.5 for hour in range(24)]
    assert days.prices[1].tolist() == [2 * hour + 0.5 for hour in range(24)][::-1]
    assert days.features[1, 2].tolist() == [0, 2, 44, 11, 4.5, 300.5, 3004.5, 50]


def test_the_folder_with_data_is_used(example, tmp_path, monkeypatch):
    (tmp_path / "semo_energy").mkdir()
    rng = np.random.default_rng(0)
    write_market(tmp_path / "semo_energy" / "ICON_data.zip", rng.uniform(20, 90, (8, 48)).tolist())
    monkeypatch.setenv("MAPGRAD_DATA", str(tmp_path))
    name, train, test = example.split_days(6, seed=0)
    assert name == "SEMO prices"
    assert train.prices.shape == (6, 24)
    assert test.features.shape == (2, 24, 8)


def test_least_squares_is_the_closed_form(example):
    torch.manual_seed(0)
    _, train, _ = example.split_days(60, seed=0)
    with torch.no_grad():
        fitted = example.least_squares(train)(train.features)
    design = torch.cat((train.features, torch.ones(60, 1)), dim=1)
    torch.testing.assert_close(fitted, design @ torch.linalg.lstsq(design, train.prices).solution, atol=2e-3, rtol=0)


@pytest.mark.parametrize("estimator", [mapgrad.IMLE(), mapgrad.Blackbox(8.0)], ids=["imle", "blackbox"])
def test_training_lowers_what_the_schedules_cost(example, estimator):
    torch.manual_seed(0)
    _, train, _ = example.split_days(60, seed=0)
    network = example.least_squares(train)
    solver = mapgrad.get_solver("ortools.cp_sat", example.machine())

    def cost():
        return example.costs(solver, network(train.features), train).mean()

    best, before = example.costs(solver, train.prices, train).mean(), cost()
    example.train_through(mapgrad.MAPLayer(solver, estimator, minimize=True), network, train, epochs=3)
    assert cost() - best < 0.9 * (before - best)


def test_a_small_run(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(example, "TEST_DAYS", 20)
    output = tmp_path / "regret.png"
    arguments = ["--epochs", "1", "--days", "40", "--solvers", "highs", "ortools.cp_sat", "--output", str(output)]
    found = example.main(arguments)
    methods = ("two-stage", "I-MLE", "black-box")
    assert set(found) == set(product(methods, ("highs", "ortools.cp_sat")))
    for method in methods:
        torch.testing.assert_close(found[method, "highs"], found[method, "ortools.cp_sat"], atol=1e-3, rtol=0)
    assert min(float(regret.min()) for regret in found.values()) >= -1e-3
    for method in methods[1:]:
        assert not torch.equal(found[method, "highs"], found["two-stage", "highs"])
    assert output.stat().st_size > 10_000
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "synthetic prices: 40 days to train on, 20 to test on"
    assert table[-1] == f"saved {output}"
    assert len(table) == 9
