"""The example of uncertain weights: learning by cost beats least squares, and an infeasible draw packs nothing."""

import pytest
import torch


@pytest.fixture
def example(load):
    return load("uncertain_weights")


def test_draws_below_zero_are_infeasible_and_others_fit(example):
    torch.manual_seed(0)
    values, (train, _, _) = example.data(0)
    features = train[0][:6]
    law = example.law(lambda x: torch.ones(len(x), example.ITEMS), torch.zeros(example.ITEMS), features, values)
    drawn, found = law.sample((2,))
    below = (drawn < 0).any(-1)
    assert 0 < below.sum() < below.numel()
    assert torch.equal(found.mask, ~below)
    assert ((found.z * drawn).sum(-1)[~below] <= example.CAPACITY + 1e-4).all()


@pytest.mark.slow
def test_packings_cost_less_than_by_least_squares(example, capsys):
    found = example.main(seeds=2)
    assert all(learnt < fitted for fitted, learnt in found)
    assert sum(fitted - learnt for fitted, learnt in found) > 2
    assert capsys.readouterr().out.count("by least squares") == 2
