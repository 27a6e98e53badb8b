"""The facility-location example: the depots that open are the best ones, by trying all sets of them."""

from itertools import product

import pytest
import torch


@pytest.fixture
def example(load):
    return load("facility_location")


def best_depots(costs, opening):
    """Return the depots that serve customers [customers, depots] at the least cost, bool [depots]."""
    sets = torch.tensor([*product((False, True), repeat=len(opening))][1:])
    delivered = costs.double().expand(len(sets), *costs.shape).masked_fill(~sets[:, None], torch.inf)
    return sets[(delivered.amin(dim=2).sum(dim=1) + sets.double() @ torch.tensor(opening).double()).argmin()]


def test_the_depots_that_open_are_the_best_ones(example):
    costs = 2 * torch.rand(5, 4, *example.problem.shape, generator=torch.Generator().manual_seed(0))
    best = torch.stack([best_depots(each, example.OPENING) for each in costs.flatten(0, 1)]).unflatten(0, (5, 4))
    assert len(best.flatten(0, 1).unique(dim=0)) > 4
    solutions = example.solver.solve(-costs)
    assert torch.equal(example.depots(solutions), best)
    example.layer.eval()(costs)
    assert torch.equal(example.depots(example.layer.last), best)
    example.layer.train()(costs)  # perturbed
    z = example.layer.last.z
    assert torch.equal(example.depots(example.layer.last), z.amax(dim=-2).bool())


def test_a_network_learns_which_depots_open(example, capsys):
    before, after = example.main(epochs=5)
    assert after > before + 0.2
    assert f"on {before:.0%} of the new days, trained on {after:.0%}" in capsys.readouterr().out
