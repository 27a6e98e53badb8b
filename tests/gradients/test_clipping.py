"""Rows that are clipped into a domain are counted for each direction; a layer says once that nearly all are."""

import warnings

import pytest
import torch

import mapgrad

GRID = mapgrad.GridShortestPath(3, 4)
PATH = mapgrad.ShortestPath(3, [(0, 1), (1, 2), (0, 2)], 0, 2, directed=False)
STEPS = 60


def costs_for(problem, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, *problem.shape, generator=generator) + 0.1


def layer_of(problem, estimator=None, **options):
    estimator = mapgrad.IMLE(None, mapgrad.Step(5.0)) if estimator is None else estimator
    return mapgrad.MAPLayer(mapgrad.get_solver("scipy.shortest_path", problem), estimator, **options)


def texts_of(call, times=STEPS):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            call()
    return [str(each.message) for each in caught if "clipped" in str(each.message)]


@pytest.mark.parametrize("problem", [GRID, PATH], ids=["grid", "graph"])
@pytest.mark.parametrize("transform", [lambda layer: layer, torch.vmap], ids=["eager", "vmap"])
def test_n3_minimize_forgotten(problem, transform):
    layer = layer_of(problem)
    costs = costs_for(problem, 5, 2)
    (text,) = texts_of(lambda: transform(layer)(costs), 4 * STEPS)  # once
    assert text.startswith("nearly all rows of the last 50 forward passes were clipped into their problem's domain")
    assert type(problem).__name__ in text
    assert "minimize=True forgotten?" in text
    assert layer.stats["clipped"] == 4 * STEPS * 10
    assert layer.stats["clipped_backward"] == 0


def test_the_right_layer_stays_silent_though_its_steps_leave_the_domain():
    layer = layer_of(GRID, minimize=True)
    costs = costs_for(GRID, 6).requires_grad_()

    def step():
        (layer(costs) * 3.0).sum().backward()  # a step along +1 makes all costs negative
        (-layer(costs) * 3.0).sum().backward()

    assert not texts_of(step)
    assert layer.stats["clipped"] == 0
    assert layer.stats["clipped_backward"] == STEPS * 6
    assert layer.solver.stats["clipped"] == STEPS * 6


def test_a_minority_of_rows_says_nothing():
    layer = layer_of(GRID, minimize=True)
    costs = costs_for(GRID, 10)
    costs[0, 0, 0] = -1.0
    assert not texts_of(lambda: layer(costs))
    assert layer.stats["clipped"] == STEPS


def test_negative_costs_are_told_so():
    layer = layer_of(GRID, minimize=True)
    (text,) = texts_of(lambda: layer(-costs_for(GRID, 3)))
    assert "costs ≥ 0" in text
    assert "minimize=True forgotten" not in text


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), mapgrad.Gaussian()])
def test_g12_a_noise_that_clips_paths(noise):
    layer = layer_of(GRID, mapgrad.IMLE(noise, samples=2), minimize=True)
    (text,) = texts_of(lambda: layer(costs_for(GRID, 8)))
    assert f"the noise {noise!r} pushes θ out: take noise=None, or a smaller temperature" in text
    assert layer.stats["clipped"] > 0.95 * STEPS * 8 * 2
    assert not texts_of(lambda: layer_of(GRID, minimize=True)(costs_for(GRID, 8)))


def test_noise_isnt_blamed_for_a_forgotten_flag():
    layer = layer_of(GRID, mapgrad.IMLE(mapgrad.Gumbel(), temperature=0.01))
    (text,) = texts_of(lambda: layer(costs_for(GRID, 8)))
    assert "minimize=True forgotten?" in text


def test_many_problems_in_a_step_are_one_pass():
    problems = [GRID, PATH]
    layer = mapgrad.MAPLayer(mapgrad.get_solver("scipy.shortest_path", None), mapgrad.IMLE(None))
    theta = [costs_for(problem) for problem in problems]
    assert not texts_of(lambda: layer(theta, problems=problems), 49)
    (text,) = texts_of(lambda: layer(theta, problems=problems), 1)
    assert "minimize=True forgotten?" in text
    assert layer.stats["clipped"] == 100


@pytest.mark.parametrize("last", [[GRID], [mapgrad.KSubset(4, 2)]], ids=["inside", "another problem"])
def test_the_last_pass_neednt_be_a_clipped_one(last):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", None), mapgrad.IMLE(None))
    costs = costs_for(GRID, 4)
    assert not texts_of(lambda: layer(costs, problems=[GRID] * 4), 49)
    theta = [-costs_for(problem) for problem in last]
    (text,) = texts_of(lambda: layer(theta, problems=last), 1)
    assert "nearly all rows" in text


def test_unbounded_domains_are_never_clipped():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(5, 2)))
    assert not texts_of(lambda: layer(torch.randn(4, 5)))
    assert layer.stats["clipped"] == layer.stats["clipped_backward"] == 0
