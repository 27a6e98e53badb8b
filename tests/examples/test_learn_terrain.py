"""The demo's core on one page: it learns, with the network and the estimator of the demo."""

import sys

import pytest

import mapgrad

pytest.importorskip("networkx")
learning = pytest.importorskip("mapgrad.demo._learning")
estimators = pytest.importorskip("mapgrad.demo._estimators")


def test_a_small_run_with_the_demos_network_and_estimator(load, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    example = load("learn_terrain")
    made = []

    class Noted(mapgrad.MAPLayer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(mapgrad, "MAPLayer", Noted)
    monkeypatch.setattr(sys, "argv", ["learn_terrain.py", "--crops", "40", "--epochs", "2"])
    example.main()
    straight, *epochs = (float(line.split()[-1].rstrip("%")) for line in capsys.readouterr().out.splitlines())
    assert len(epochs) == 2
    assert all(0 < regret <= 1.5 * straight for regret in epochs)
    assert repr(made[0].estimator) == repr(estimators.EstimatorName.IMLE.make(mapgrad.GridShortestPath(3, 3), 32))
    ours, theirs = (
        [parameter.shape for parameter in network.parameters()]
        for network in (example.CostNetwork(), learning.CostNetwork())
    )
    assert ours == theirs
