"""Reports: what is written is read, what differs beyond its spread is found, what has several sizes is drawn."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mapgrad
from mapgrad.bench import Estimate, Report, Row, Spread, compare, plot
from mapgrad.bench._plot import curves

numbers = st.floats(1e-6, 1e6)
spreads = st.builds(lambda values: Spread.of(values), st.lists(numbers, min_size=1, max_size=5))
rows = st.builds(
    Row,
    case=st.text(max_size=5),
    name=st.text(max_size=5),
    size=st.dictionaries(st.sampled_from("BSn"), st.integers(1, 10**6)),
    value=st.none() | spreads,
    unit=st.sampled_from(["", "µs a row"]),
    ratio=st.none() | spreads,
    against=st.text(max_size=5),
    extra=st.dictionaries(st.text(max_size=5), numbers | st.builds(Estimate, numbers, numbers)),
    note=st.text(max_size=5),
    judged=st.booleans(),
    runs=st.dictionaries(st.text(max_size=5), st.lists(numbers)),
)


def report_of(*rows, suite="step", **changes):
    machine = {"cpu": "a CPU", "quiet": True}
    return replace(Report(suite, "A title", list(rows), machine, {"mapgrad": "1"}, {"θ": 0}), **changes)


def row(name, median, *, size=None, spread=0.01, **changes):
    ratio = Spread(median, median * (1 - spread), median * (1 + spread))
    return replace(Row("case", name, size or {}, value=ratio, unit="µs", ratio=ratio, against="a loop"), **changes)


def test_a_report_that_cant_be_written_says_so(tmp_path):
    with pytest.raises(mapgrad.MapgradError, match="can't be written"):
        Report("road", "", [], {}, {}, {}).write(tmp_path / "nowhere" / "file.json")


@given(st.lists(rows, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("reports") / "report.json"
    report = report_of(*found)
    report.write(path)
    assert Report.read(path) == report


def test_an_estimate_is_a_mean_and_its_standard_error():
    assert Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Estimate(3.0, pytest.approx(0.5**0.5))
    assert Estimate.of_differences([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == Estimate(1.0, 0.0)
    header, cells = report_of(Row("case", "name", extra={"gain": Estimate(2.0, 0.125), "calls": 7})).table()
    assert header == ["case", "measured", "gain", "calls"]
    assert cells == [["case", "name", "2.00 ± 0.12", "7"]]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 0, "rows": []}', "\x00"])
def test_what_isnt_a_report_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(mapgrad.MapgradError, match=r"report\.json"):
        Report.read(path)
    with pytest.raises(mapgrad.MapgradError, match=r"nowhere\.json can't be read: No such file or directory"):
        Report.read(tmp_path / "nowhere.json")


def test_a_table_has_no_empty_columns():
    header, cells = report_of(Row("case", "name", note="not installed"), row("other", 2.0)).table()
    assert header == ["case", "measured", "median ± quartiles", "ratio", "of", "note"]
    assert cells == [
        ["case", "name", "–", "", "", "not installed"],
        ["case", "other", "2 ± 1% µs", "2 ± 1% ×", "a loop", ""],
    ]


def test_a_regression_is_flagged_and_nothing_else():
    before = report_of(
        row("worse", 1.0),
        row("worse, within the spread", 1.0, spread=0.3),
        row("a little worse", 1.0),
        row("better", 1.0),
        row("the same", 1.0),
        row("a peer", 1.0, judged=False),
        row("gone", 1.0),
        row("sized", 1.0, size={"B": 1}),
    )
    now = report_of(
        row("worse", 1.2),
        row("worse, within the spread", 1.2, spread=0.3),
        row("a little worse", 1.05),
        row("better", 0.5),
        row("the same", 1.0),
        row("a peer", 9.0, judged=False),
        row("new", 9.0),
        row("sized", 9.0, size={"B": 2}),
    )
    changes = compare(before, now)
    assert [change.key for change in changes if change.is_regression] == ["case; worse; µs"]
    assert len(changes) == 5
    assert not any(change.is_regression for change in compare(now, now))


def test_reports_that_cant_be_compared_are_refused():
    with pytest.raises(mapgrad.MapgradError, match="of suite 'road', this one of 'step'"):
        compare(report_of(suite="road"), report_of())
    with pytest.raises(mapgrad.MapgradError, match="no figure in common"):
        compare(report_of(row("one", 1.0)), report_of(row("other", 1.0)))


def test_a_curve_has_rows_that_differ_in_one_size():
    sizes = [{"B": 32, "n": n} for n in (100, 10)] + [{"B": 8, "n": 10}]
    report = report_of(
        *(row("ours", 1.0, size=size) for size in sizes),
        *(row("peer", 9.0, size=size) for size in sizes),
        row("no sizes", 1.0),
        Row("case", "not measured", sizes[0]),
        Row("case", "not measured", sizes[1]),
    )
    found = curves(report, "n")
    assert [label for label, _ in found] == ["case, ours, B = 32", "case, peer, B = 32"]
    assert [each.size["n"] for each in found["case, ours, B = 32", "µs"]] == [10, 100]
    assert [label for label, _ in curves(report, "B")] == ["case, ours, n = 10", "case, peer, n = 10"]
    assert curves(report, "S") == {}


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_curves_are_drawn(tmp_path, name):
    report = report_of(*(row(who, 1.0, size={"n": n}) for who in ("ours", "peer") for n in (10, 100)))
    plot(report, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 5000


def test_a_plot_that_cant_be_drawn_says_why(tmp_path, monkeypatch):
    one = report_of(row("ours", 1.0, size={"n": 10}))
    with pytest.raises(mapgrad.MapgradError, match="no figure for several sizes"):
        plot(one, tmp_path / "curves.png")
    two = report_of(*(row("ours", 1.0, size={"n": n}) for n in (10, 100)))
    with pytest.raises(mapgrad.MapgradError, match=r"curves\.txt can't be written"):
        plot(two, tmp_path / "curves.txt")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(mapgrad.MissingDependencyError, match=r"mapgrad\[plot\]"):
        plot(two, Path("curves.png"))
