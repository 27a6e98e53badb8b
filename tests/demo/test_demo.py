"""The parts of the demo; its command is tested with the command line."""

import torch

import mapgrad
from mapgrad.demo import EstimatorName, _demo, _plot
from mapgrad.demo import _learning as learning


def test_the_crops_shown_are_quartiles_among_the_harder_half():
    learnt = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    straight = torch.tensor([0.0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    score, line = (learning.Score(regret) for regret in (learnt, straight))
    assert _plot._quartiles(score, line) == [7, 5, 2]
    line = learning.Score(torch.tensor([0.0, 0, 0, 0, 0.5, 1, 1, 1, 1, 1]))
    assert _plot._quartiles(score, line) == [8, 7, 5]


def test_the_steps_of_a_route_are_drawn_once():
    route = torch.zeros(3, 3)
    route[0, 0] = route[1, 1] = route[1, 2] = route[2, 2] = 1
    steps = {frozenset(step) for step in _plot._steps(_plot._array(route))}
    joined = {frozenset({(0, 0), (1, 1)}), frozenset({(1, 1), (2, 1)}), frozenset({(2, 1), (2, 2)})}
    assert steps - {frozenset({(1, 1), (2, 2)})} == joined


def test_the_network_starts_from_the_seed_and_leaves_torch_s_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = (_demo._network(2, torch.device("cpu")) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_every_estimator_has_a_label_and_an_object():
    labels = {name.label for name in EstimatorName}
    assert len(labels) == len(EstimatorName)
    objects = [name.make(mapgrad.GridShortestPath(3, 3), 32) for name in EstimatorName]
    assert all(isinstance(each, mapgrad.Estimator) for each in objects)
