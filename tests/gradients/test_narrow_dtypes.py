"""Models in float16 and bfloat16: adaptive state stays exact, gradients saturate."""

import copy
import io

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
NARROW = [torch.float16, torch.bfloat16]


def layer_of(estimator, **options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=0, **options)


def train(layer, dtype, steps=20):
    for number in range(steps):
        theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(number)).bfloat16().to(dtype).requires_grad_()
        (layer(theta) * torch.arange(6.0).to(dtype)).sum().backward()
    return layer.stats["beta"]


@pytest.mark.parametrize("dtype", NARROW)
def test_beta_adapts_as_in_float32(dtype):
    expected = train(layer_of(mapgrad.AdaptiveIMLE(mapgrad.Gumbel())), torch.float32)
    layer = layer_of(mapgrad.AdaptiveIMLE(mapgrad.Gumbel())).to(dtype)
    assert train(layer, dtype) == expected != 1.0
    buffers = dict(layer.named_buffers())
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32}
    copied = copy.deepcopy(layer).to(dtype)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in copied.named_buffers())


def test_wider_buffers_and_other_devices():
    target = mapgrad.AdaptiveStep().double()
    assert target.beta.dtype == torch.float64
    assert target.half().beta.dtype == torch.float64
    assert target.to("meta", torch.bfloat16).beta.device.type == "meta"
    assert mapgrad.AdaptiveStep().to("meta").to_empty(device="cpu").beta.device.type == "cpu"


@pytest.mark.parametrize("assign", [False, True])
def test_beta_is_saved_and_loaded(assign):
    layer = layer_of(mapgrad.AdaptiveIMLE(mapgrad.Gumbel())).bfloat16()
    train(layer, torch.bfloat16)
    torch.save(layer.state_dict(), file := io.BytesIO())
    file.seek(0)
    state = torch.load(file)
    other = layer_of(mapgrad.AdaptiveIMLE(mapgrad.Gumbel())).bfloat16()
    other.load_state_dict(state, assign=assign)
    assert train(other, torch.bfloat16) == train(layer, torch.bfloat16)
    narrow = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
    other.load_state_dict(narrow, assign=assign)
    assert {buffer.dtype for buffer in other.buffers()} == {torch.float32}


CALLS = {
    "layer": lambda layer, theta: layer(theta),
    "problems": lambda layer, theta: layer(theta, problems=[SUBSET, mapgrad.KSubset(6, 3)] * 2),
    "vmap": lambda layer, theta: torch.vmap(layer, randomness="different")(theta[:, None])[:, 0],
    "compile": lambda layer, theta: torch.compile(layer, fullgraph=True, backend="aot_eager")(theta),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("call", CALLS)
def test_a_gradient_beyond_float16_saturates(call):
    torch._dynamo.reset()
    theta = (1e-5 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))).half()
    upstream = torch.arange(6.0).expand(4, 6).clone()
    upstream[2, 3] = torch.nan
    layer = layer_of(mapgrad.IMLE(None))

    def gradient(dtype):
        leaf = theta.to(dtype).requires_grad_()
        CALLS[call](layer, leaf).backward(upstream.to(dtype))
        return leaf.grad

    expected, found = gradient(torch.float32), gradient(torch.float16)
    largest = torch.finfo(torch.float16).max
    assert expected[0].abs().max() > largest
    assert torch.equal(found[[0, 1, 3]], expected[[0, 1, 3]].clamp(-largest, largest).half())
    assert found[2].isnan().all()
