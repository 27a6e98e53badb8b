import pytest
import torch

import mapgrad
from mapgrad.demo import _learning as learning
from mapgrad.demo._terrain import CELLS, CROP_PIXELS


def network(seed=0):
    torch.manual_seed(seed)
    return learning.CostNetwork()


def lessons(count=6, seed=0):
    """Return lessons whose costs can be read off the images: dark cells are dear."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, CELLS, CELLS, generator=generator) < 0.4
    minutes = 1 + 20 * rough + torch.rand(count, CELLS, CELLS, generator=generator)
    pixels = CROP_PIXELS // CELLS
    images = (1 - minutes / 22).repeat_interleave(pixels, 1).repeat_interleave(pixels, 2)[:, None]
    solver = mapgrad.get_solver("auto", mapgrad.GridShortestPath(CELLS, CELLS))
    return learning.Lessons(images, minutes, solver(-minutes)), solver


def test_costs_are_positive_with_mean_one_and_depend_on_the_image():
    costs = network()(torch.rand(3, 1, CROP_PIXELS, CROP_PIXELS, generator=torch.Generator().manual_seed(0)))
    assert costs.shape == (3, CELLS, CELLS)
    assert (costs > 0).all()
    assert costs.mean((1, 2)).tolist() == pytest.approx([1, 1, 1])
    assert not torch.allclose(costs[0], costs[1], rtol=1e-4)


def test_the_expert_s_own_routes_have_no_regret():
    data, _ = lessons()
    score = learning.Score.of(data.routes, data)
    assert (score.mean_regret, score.optimal, score.nearly_optimal) == (0, 1, 1)


def test_scores_by_hand():
    minutes = torch.ones(2, CELLS, CELLS)
    best = learning.straight_routes(minutes)
    detour = best.clone()
    detour[1, 0, 1] = 1  # 13 cells instead of 12
    score = learning.Score.of(detour, learning.Lessons(minutes, minutes, best))
    assert score.regret.tolist() == pytest.approx([0, 1 / 12])
    assert (score.optimal, score.nearly_optimal) == (0.5, 0.5)


def test_straight_routes_are_routes():
    problem = mapgrad.GridShortestPath(CELLS, CELLS)
    straight = learning.straight_routes(torch.zeros(2, CELLS, CELLS))
    assert problem.contains(straight).all()
    assert straight.sum((1, 2)).tolist() == [CELLS, CELLS]


def test_route_loss_counts_cells_and_cost_loss_vanishes_at_the_truth():
    data, solver = lessons()
    layer = mapgrad.MAPLayer(solver, minimize=True)
    truth = lambda images: data.minutes / data.minutes.mean((1, 2), keepdim=True)  # noqa: E731 (a network's stand-in)
    flat = lambda images: torch.ones_like(data.minutes)  # noqa: E731
    assert learning.route_loss(truth, layer, data) == 0
    expected = (data.routes != solver(-torch.ones_like(data.minutes))).sum((1, 2)).double().mean()
    assert float(learning.route_loss(flat, layer, data)) == pytest.approx(float(expected))
    assert float(learning.cost_loss(truth, data)) == pytest.approx(0, abs=1e-10)
    assert learning.cost_loss(flat, data) > 0.1


@pytest.mark.parametrize(
    "estimator",
    [mapgrad.IMLE(), mapgrad.AdaptiveIMLE(), mapgrad.Blackbox(8), mapgrad.StraightThrough()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_routes_alone_teach_every_estimator_the_costs(estimator):
    data, solver = lessons(48)
    unseen, _ = lessons(32, seed=1)
    layer = mapgrad.MAPLayer(solver, estimator, minimize=True)
    model = network()
    before = learning.Score.of(learning.plan(model, layer, unseen.images), unseen).mean_regret
    schedule = learning.Schedule(epochs=2, batch=8)
    average, steps = network(), []
    losses = list(
        learning.train(
            model,
            average,
            data,
            lambda part: learning.route_loss(model, layer, part),
            schedule,
            torch.Generator().manual_seed(0),
            lambda: steps.append(None),
        )
    )
    after = learning.Score.of(learning.plan(model, layer, unseen.images), unseen).mean_regret
    assert len(losses) == 2
    assert len(steps) == 2 * learning.num_steps(48, schedule) == 12
    assert losses[1] < losses[0]
    assert after < 0.5 * before


def test_training_is_a_function_of_the_seeds():
    data, _ = lessons(20)

    def run():
        model = network()
        generator = torch.Generator().manual_seed(3)
        schedule = learning.Schedule(epochs=2, batch=8)
        average = network()
        loss = lambda part: learning.cost_loss(model, part)  # noqa: E731
        losses = list(learning.train(model, average, data, loss, schedule, generator, lambda: None))
        return losses, average(data.images)

    (losses, costs), (again, same) = run(), run()
    assert losses == again
    assert torch.equal(costs, same)


def test_planning_leaves_the_layer_as_it_was():
    data, solver = lessons(2)
    layer = mapgrad.MAPLayer(solver, minimize=True)
    learning.plan(network(), layer, data.images)
    assert layer.training
    learning.plan(network(), layer.eval(), data.images)
    assert not layer.training


def test_an_average_follows_its_network_step_by_step():
    data, _ = lessons(8)
    model, average = network(), network(1)
    before = [parameter.clone() for parameter in average.parameters()]
    schedule = learning.Schedule(epochs=1, batch=8)
    loss = lambda part: learning.cost_loss(model, part)  # noqa: E731
    list(learning.train(model, average, data, loss, schedule, torch.Generator().manual_seed(0), lambda: None))
    for old, followed, parameter in zip(before, average.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(followed, old + 0.005 * (parameter - old))
