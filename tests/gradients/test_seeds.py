"""Seeds: a stream for each layer of a model, and what state_dict does to them."""

import pytest
import torch
from torch import nn

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)


def make_layer(seed=None):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=20), seed=seed)


def draw(layer):
    return layer(torch.zeros(4, 6))


class Model(nn.Module):
    def __init__(self, *, extra=False):
        super().__init__()
        if extra:
            self.before = make_layer()
        self.one = make_layer()
        self.block = nn.Sequential(nn.Linear(6, 6), make_layer())
        if extra:
            self.block.append(make_layer())


def test_two_layers_with_one_seed_draw_the_same_and_seed_layers_is_the_remedy():
    model = Model()
    assert torch.equal(draw(make_layer(3)), draw(make_layer(3)))
    assert mapgrad.seed_layers(model, 3) == 2
    assert not torch.equal(draw(model.one), draw(model.block[1]))


def test_a_layers_stream_is_a_function_of_seed_and_path():
    def streams(seed, **options):
        model = Model(**options)
        count = mapgrad.seed_layers(model, seed)
        assert count == len([module for module in model.modules() if isinstance(module, mapgrad.MAPLayer)])
        return {name: draw(layer) for name, layer in model.named_modules() if isinstance(layer, mapgrad.MAPLayer)}

    streams_of_two, again, streams_of_four = streams(7), streams(7), streams(7, extra=True)
    assert len(streams_of_four) == 4
    for name, z in streams_of_two.items():
        assert torch.equal(again[name], z)
        assert torch.equal(streams_of_four[name], z)
        assert not torch.equal(streams(8)[name], z)
    assert len({tuple(z.flatten().tolist()) for z in streams_of_four.values()}) == 4


def test_seeded_layers_start_anew():
    model = nn.Sequential(make_layer(1))
    mapgrad.seed_layers(model, 0)
    first, second = draw(model[0]), draw(model[0])
    assert not torch.equal(first, second)
    mapgrad.seed_layers(model, 0)
    assert torch.equal(draw(model[0]), first)


def test_a_layer_is_a_model_and_a_shared_one_is_seeded_once():
    layer = make_layer()
    assert mapgrad.seed_layers(layer, 0) == 1
    alone = draw(layer)
    assert mapgrad.seed_layers(nn.ModuleDict({"a": layer, "b": layer}), 0) == 1
    assert not torch.equal(draw(layer), alone)
    assert mapgrad.seed_layers(nn.Linear(2, 2), 0) == 0


@pytest.mark.parametrize("seed", [None, 1.0, True, "0"])
def test_a_seed_is_an_int(seed):
    with pytest.raises(TypeError, match="seed must be an int, got"):
        mapgrad.seed_layers(make_layer(), seed)


def test_loading_never_seeds_a_layer_without_a_seed():
    saved = make_layer(3)
    draw(saved)
    layer = make_layer()
    layer.load_state_dict(saved.state_dict())
    assert layer.keys.seed is None
    assert layer.state_dict()["_extra_state"].numel() == 0
    assert not torch.equal(draw(layer), draw(layer))
    torch.manual_seed(0)
    expected = draw(layer)
    torch.manual_seed(0)
    assert torch.equal(draw(layer), expected)


def test_a_seeded_layer_keeps_its_seed_where_the_saved_one_had_none():
    layer = make_layer(3)
    draw(layer)
    layer.load_state_dict(make_layer().state_dict())
    assert (layer.keys.seed, layer.keys.step) == (3, 1)


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, 2**63 + 5, 2**64 - 1, -(2**63)])
def test_a_seeded_layer_goes_on_with_the_saved_stream(seed):
    saved = make_layer(seed)
    draw(saved)
    layer = make_layer(11)
    layer.load_state_dict(saved.state_dict())
    assert layer.keys.step == 1
    assert torch.equal(draw(layer), draw(saved))


def test_ranks_stay_in_step_where_the_problems_of_one_get_no_noise():
    # a problem whose domain would clip noise has none by noise="auto"
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 1), (0, 3)]  # with a circle
    paths = mapgrad.ShortestPath(4, edges, 0, 3)
    solver = mapgrad.get_solver("highs", None)
    theta = -torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([3, 5])
    direct, pair = torch.eye(6, dtype=torch.float64)[[5, 5]], torch.tensor([[1.0, 1, 0, 0, 0, 0]] * 2).double()
    layers = [mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=3), reduction="none", seed=1) for _ in range(2)]
    losses = [mapgrad.losses.FenchelYoung(solver, samples=3, seed=1) for _ in range(2)]
    for first, true, layer, loss in zip((paths, SUBSET), (direct, pair), layers, losses, strict=True):
        layer(theta, problems=[first] * 2, rows=ids)
        loss(theta, true, problems=[first] * 2, rows=ids)
    assert torch.equal(*(layer(theta, problems=[SUBSET] * 2, rows=ids) for layer in layers))
    assert torch.equal(*(loss(theta, pair, problems=[SUBSET] * 2, rows=ids) for loss in losses))
    assert all(module.keys.step == 2 for module in layers + losses)
