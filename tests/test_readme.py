"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import torch

import mapgrad
from mapgrad import data, losses

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
PROSE = " ".join(TEXT.split())


def test_the_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    torch.manual_seed(0)
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["loss"] < 1
    assert names["solutions"].status.tolist() == [1] * 16
    best = (mapgrad.get_solver("scipy.milp", names["plan"])(names["prices"]) * names["prices"]).sum(1).mean()
    assert 0.8 * best < names["revenue"] <= best
    assert [state.sum() for state in names["states"]] == [2, 3, 3]
    assert names["theta"].grad.abs().sum() > 0


def test_the_first_example_is_short():
    first = re.search(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len([line for line in first[1].splitlines() if line.strip()]) <= 15


def noise(problem, estimator):
    law = estimator.noise_for(problem)
    return type(getattr(law, "noise", law))


def test_what_it_says_of_noise_by_default():
    assert (
        '`"auto"` means none for a function whose problem isn\'t known, and where noise would push costs below zero: '
        "on `GridShortestPath`, and on a `ShortestPath` whose graph has cycles. A graph without cycles, such as that "
        "of `ShortestPath.on_grid` and `ShortestPathTask`, may have such costs, and gets the noise that other problems "
        "get."
    ) in PROSE
    circle = mapgrad.ShortestPath(3, [(0, 1), (1, 0), (1, 2)], 0, 2)
    for problem in (None, mapgrad.GridShortestPath(3, 3), circle):
        for estimator in (mapgrad.TwoSided(), mapgrad.IMLE(), mapgrad.AdaptiveIMLE()):
            assert estimator.noise_for(problem) is None
    assert (
        "Noise: `Gaussian`, the default of `Pooled`, `TwoSided`, `MultiFidelity`, `Perturbed` and `Line`; "
        "`SumOfGamma(kappa)`, that of `IMLE` and `AdaptiveIMLE`"
    ) in PROSE
    for problem in (mapgrad.ShortestPath.on_grid(3, 3), data.ShortestPathTask().problem, mapgrad.KSubset(6, 2)):
        pooled = mapgrad.Pooled(problem), mapgrad.MultiFidelity(problem)
        for estimator in (*pooled, mapgrad.TwoSided(), mapgrad.Perturbed(), mapgrad.Line()):
            assert noise(problem, estimator) is mapgrad.Gaussian
        for estimator in (mapgrad.IMLE(), mapgrad.AdaptiveIMLE()):
            assert noise(problem, estimator) is mapgrad.SumOfGamma


def test_what_it_says_of_fenchel_young_by_default():
    assert "`FenchelYoung` smooths by noise" in PROSE
    none, some = (PROSE.index(text) for text in ("or by none, which is its default where", "it is `SumOfGamma` as for"))
    assert 0 < some - none < 250
    for problem, law in (
        (mapgrad.GridShortestPath(3, 3), type(None)),
        (mapgrad.ShortestPath.on_grid(3, 3), mapgrad.SumOfGamma),
    ):
        found = losses.FenchelYoung(mapgrad.get_solver("auto", problem)).noise
        assert type(getattr(found, "noise", found)) is law


def test_the_answers_to_pyepo_s_calls_run():
    task = data.ShortestPathTask()
    solver = mapgrad.get_solver("auto", task.problem)
    c = torch.rand(3, 40, generator=torch.Generator().manual_seed(0))
    names = {name: getattr(mapgrad, name) for name in mapgrad.__all__}
    names |= {"losses": losses, "solver": solver, "c": c, "z": solver(c), "pred": c + 1}
    (table,) = re.findall(r"^## If you come from PyEPO\n\n(.*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    calls = re.findall(
        r"`((?:MAPLayer|losses|[A-Z]\w+)[\w.]*\([^`]*)`",
        "\n".join(row.split(" | ", 1)[1] for row in table.splitlines()),
    )
    assert len(calls) > 15
    values = [eval(call, names) for call in calls if "get_solver" not in call]
    found = [value for value in values if isinstance(value, torch.Tensor)]
    assert len(found) >= 9
    assert all(value.ndim == 0 and value.isfinite() for value in found)


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (README.parent / target).exists(), target
