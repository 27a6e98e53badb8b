"""Callbacks of a layer: when they are called, with what, and what becomes of what they raise."""

import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
THETA = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


class FakeSummaryWriter:
    """TensorBoard's interface, as far as scalars go; it can be neither copied nor pickled, as the true one."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.scalars.append((tag, float(scalar_value), global_step))

    def __reduce__(self):
        raise TypeError("a writer has an open file")


def make(**options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=2), seed=0, **options)


def train(layer, count, call=None):
    for _ in range(count):
        leaf = THETA.clone().requires_grad_()
        ((layer if call is None else call)(leaf) * torch.arange(6.0)).sum().backward()


def test_a_writer_gets_every_statistic_by_name_and_step():
    layer, writer = make(), FakeSummaryWriter()

    def log(step, stats):
        for name, value in stats.items():
            writer.add_scalar(f"layer/{name}", value, step)

    layer.add_callback(log, every=3)
    train(layer, 7)
    assert {step for *_, step in writer.scalars} == {3, 6}
    at_end = {tag for tag, _, step in writer.scalars if step == 6}
    assert at_end == {f"layer/{name}" for name in layer.stats}
    assert {"layer/sparsity", "layer/snr", "layer/lam", "layer/dead", "layer/improvable"} <= at_end


def test_passes_in_eval_mode_and_repeated_ones_do_not_count():
    layer, steps = make(), []
    layer.add_callback(lambda step, stats: steps.append(step), every=1)
    layer.eval()(THETA)
    layer.train()
    leaf = THETA.clone().requires_grad_()
    checkpoint(layer, leaf, use_reentrant=False).sum().backward()
    assert steps == [1]
    layer.submit(THETA).result()
    assert steps == [1, 2]
    pair = mapgrad.MAPLayer(mapgrad.get_solver("topk", None))
    pair.add_callback(lambda step, stats: steps.append(-step), every=1)
    pair(THETA, problems=[SUBSET, mapgrad.KSubset(6, 3)] * 4)
    assert steps == [1, 2, -1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_compiled_and_mapped_layers_call_them_too():
    layer, steps = make(), []
    layer.add_callback(lambda step, stats: steps.append(step), every=2)
    train(layer, 4, torch.compile(layer, fullgraph=True, backend="aot_eager"))
    assert steps == [2, 4]
    torch.func.vmap(layer, randomness="different")(THETA)
    torch.func.grad(lambda theta: layer(theta).sum())(THETA)
    assert steps == [2, 4, 6]


def test_a_handle_removes_its_callback_alone():
    layer, seen = make(), []
    first = layer.add_callback(lambda step, stats: seen.append("first"), every=1)
    with layer.add_callback(lambda step, stats: seen.append("second"), every=1):
        layer(THETA)
    layer(THETA)
    first.remove()
    layer(THETA)
    assert seen == ["first", "second", "first"]


def test_what_a_callback_raises_comes_out_and_the_next_call_goes_on():
    layer, steps = make(), []

    def fail(step, stats):
        steps.append(step)
        if step == 2:
            raise OSError("the disk is full")

    layer.add_callback(fail, every=1)
    train(layer, 1)
    with pytest.raises(OSError, match="the disk is full"):
        train(layer, 1)
    train(layer, 1)
    assert steps == [1, 2, 3]


def test_copies_have_none():
    layer, writer = make(), FakeSummaryWriter()
    layer.add_callback(lambda step, stats: writer.add_scalar("dead", stats["dead"], step), every=1)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        train(twin, 1)
    assert not writer.scalars
    train(layer, 1)
    assert writer.scalars == [("dead", 0.0, 1)]


def test_callbacks_change_no_number():
    plain, told = make(), make()
    told.add_callback(lambda step, stats: None, every=1)
    for _ in range(3):
        assert torch.equal(plain(THETA), told(THETA))


@pytest.mark.parametrize(
    ("callback", "every", "error"), [("log", 1, TypeError), (print, 0, ValueError), (print, 1.0, TypeError)]
)
def test_refusals(callback, every, error):
    with pytest.raises(error, match="must be"):
        make().add_callback(callback, every=every)
