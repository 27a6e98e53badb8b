"""The GPU's kernel for k-subsets: on a device where there is one, and always on the CPU by Triton's interpreter."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product

import pytest
import torch

import mapgrad
from mapgrad.gradients._counter import counter_noise, mix
from mapgrad.gradients._quantiles import quantiles

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
KEY = mix(3, 4)

on_device = pytest.mark.skipif(
    not HAS_TRITON or not (IS_INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton and a CUDA device, or its interpreter: see test_all_of_this_by_the_interpreter",
)
on_cuda = pytest.mark.skipif(
    IS_INTERPRETED or not HAS_TRITON or not torch.cuda.is_available(), reason="needs Triton and a CUDA device"
)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning" if IS_INTERPRETED else "error")
"""NumPy warns of sums modulo 2⁶⁴."""

SIZES = [2, 5, 33] if IS_INTERPRETED else [2, 5, 33, 64, 1000, 1024, 2048, 4096, 5000, 32768]
LAWS = [mapgrad.Gumbel(), mapgrad.Centred(mapgrad.SumOfGamma(2.0))]
if not IS_INTERPRETED:
    LAWS += [mapgrad.Gaussian(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(100.0)]


@pytest.mark.skipif(not HAS_TRITON, reason="Triton isn't installed")
@pytest.mark.skipif(IS_INTERPRETED, reason="this is the interpreter")
def test_all_of_this_by_the_interpreter():
    if tuple(map(int, version("triton").split(".")[:2])) < (3, 8):
        pytest.skip("before Triton 3.8, the interpreter's minimum of NaN and a number is NaN; on a device it isn't")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, env={**mine, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def kernels():
    from mapgrad_topk import _triton

    return _triton


def expected(theta, k):
    order = theta.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return torch.zeros_like(theta).scatter_(-1, order, 1.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows_of(n):
    some = torch.rand(n, generator=torch.Generator().manual_seed(1))
    return {
        "normal": normal(3, n),
        "ties": torch.randint(-2, 3, (3, n), generator=torch.Generator().manual_seed(2)).float(),
        "zeros of both signs": torch.zeros(2, n).copysign(some - 0.5),
        "equal": torch.full((1, n), -1.5),
        "forbidden": normal(3, n).masked_fill(some < 0.6, -torch.inf),
        "all forbidden": torch.full((1, n), -torch.inf),
        "masked by a number": normal(3, n).masked_fill(some < 0.3, -1e9),
        "huge": normal(2, n) * 1e38,
        "subnormal": normal(2, n) * 1e-42,
        "of all sizes": normal(2, n) * torch.exp(40 * (some - 0.5)),
        "two heaps": normal(2, n) * 1e-3 + 100 * (some < 0.5),
        "sorted": torch.arange(n).float()[None],
    }


@on_device
@pytest.mark.parametrize("n", SIZES)
def test_the_largest_are_chosen_and_ties_go_by_index(n):
    for k in {1, n // 2, n - 1, n} - {0}:
        for name, theta in rows_of(n).items():
            found = kernels().largest(theta.to(DEVICE), k)
            assert torch.equal(found.cpu(), expected(theta, k)), (k, name)


@on_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes(dtype):
    theta = normal(4, 40).to(dtype)
    found = kernels().largest(theta.to(DEVICE), 7)
    assert found.dtype == dtype
    assert torch.equal(found.cpu(), expected(theta, 7))
    noise = noise_of(mapgrad.Gumbel(), None, samples=2)
    found = kernels().largest(theta[None, None].to(DEVICE), 7, noise)
    drawn = counter_noise(
        mapgrad.Gumbel(), KEY, (2, 4, 40), event_ndim=1, dtype=torch.float32, device=torch.device("cpu")
    )
    assert found.dtype == dtype
    assert torch.equal(found[0].cpu().float(), expected(theta.float() + drawn, 7))  # in bfloat16 half of all rows tie


def noise_of(law, ids, *, samples, temperature=1.0, first=0):
    table = quantiles(law, DEVICE)
    return mapgrad.CounterNoise(KEY, samples, temperature, table, None if ids is None else ids.to(DEVICE), first)


def assert_chosen(found, perturbed, k):
    """Compare states, but for entries that rounding may put on either side of the k-th place."""
    wanted = expected(perturbed, k)
    assert (found.sum(dim=-1) == k).all()
    wrong = found != wanted
    edge = perturbed.topk(k, dim=-1).values[..., -1:]
    near = (perturbed - edge).abs() <= 1e-6 * edge.abs().clamp(min=1)
    assert (near | ~wrong).all()
    assert wrong.double().mean() < 1e-4


@on_device
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize(("groups", "each", "samples"), [(1, 1, 1), (2, 1, 2), (1, 2, 2)])
def test_noise_is_that_of_the_counter(n, law, groups, each, samples):
    k = n // 3 + 1
    theta = normal(groups, each, 3, n)
    for ids in (None, torch.tensor([5, -3, 2**62])):
        first = 0 if ids is not None else 2**32 * 3
        rows = torch.arange(3) + first if ids is None else ids
        shape = (samples, 3, n)
        drawn = counter_noise(law, KEY, shape, event_ndim=1, dtype=torch.float32, device=torch.device("cpu"), rows=rows)
        noise = noise_of(law, ids, samples=samples, temperature=0.7, first=first)
        found = kernels().largest(theta.to(DEVICE), k, noise).cpu()
        assert found.shape == (groups, samples, 3, n)
        assert_chosen(found, theta + 0.7 * drawn, k)


@on_device
def test_noise_that_is_made_in_parts(monkeypatch):
    theta = normal(1, 1, 3, 75)
    noise = noise_of(mapgrad.Gumbel(), None, samples=2)
    whole = kernels().largest(theta.to(DEVICE), 5, noise)
    monkeypatch.setattr(kernels(), "_SHORT", 32)
    assert torch.equal(kernels().largest(theta.to(DEVICE), 5, noise), whole)


@on_device
def test_forbidden_entries_stay_out_whatever_the_noise():
    theta = normal(1, 1, 4, 50).masked_fill(torch.arange(50) % 3 == 0, -torch.inf)
    found = kernels().largest(theta.to(DEVICE), 30, noise_of(mapgrad.Gumbel(), None, samples=3)).cpu()
    assert (found.sum(dim=-1) == 30).all()
    assert not found[..., ::3].any()


@on_device
def test_no_rows_have_no_answers():
    assert kernels().largest(torch.zeros(0, 6, device=DEVICE), 2).shape == (0, 6)
    noise = noise_of(mapgrad.Gumbel(), None, samples=2)
    assert kernels().largest(torch.zeros(1, 1, 0, 6, device=DEVICE), 2, noise).shape == (1, 2, 0, 6)


@on_cuda
def test_more_than_two_to_the_31_entries():
    n, k = 4096, 7
    rows = 2**31 // n + 3
    theta = torch.randn(rows, n, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    last = theta[-2:].clone()
    z = kernels().largest(theta, k)
    del theta
    assert torch.equal(z[-2:].cpu(), expected(last.cpu(), k))
    assert z[-2:].sum() == 2 * k


@on_cuda
@pytest.mark.parametrize("n", [100, 1000, 20000])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_layer_finds_what_it_finds_without_the_kernel(n, samples, symmetric, monkeypatch):
    from mapgrad_topk import _topk

    found = []
    theta = normal(40, n).to(DEVICE)
    theta[:5, : n // 2] = -torch.inf
    for kernel in (_topk._kernels_on, lambda _: None):
        monkeypatch.setattr(_topk, "_kernels_on", kernel)
        solver = mapgrad.get_solver("topk", mapgrad.KSubset(n, n // 10))
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=samples, symmetric=symmetric), seed=0)
        leaf = theta.clone().requires_grad_()
        z = layer(leaf)
        (z * torch.linspace(-1, 1, n, device=DEVICE)).sum().backward()
        found.append((z.detach(), leaf.grad))
    (z, gradient), (wanted, wanted_gradient) = found
    assert (z - wanted).abs().sum() <= 1e-4 * wanted.sum()
    assert (gradient - wanted_gradient).norm() <= 1e-2 * wanted_gradient.norm()


@on_cuda
def test_a_large_step_fits_in_memory():
    rows, n, samples = 10_000, 1000, 16
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(n, 10)), mapgrad.IMLE(samples=samples), seed=0)
    theta = normal(rows, n).to(DEVICE).requires_grad_()
    weight = torch.linspace(-1, 1, n, device=DEVICE).expand(rows, n).contiguous()
    layer(theta).backward(weight)
    theta.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    layer(theta).backward(weight)
    assert torch.cuda.max_memory_allocated() - before < 16 * theta.nbytes  # all states would be as much, twice or more
    assert layer.last.z.shape == (samples, rows, n)


@on_cuda
def test_a_layer_holds_no_perturbed_rows():
    rows, n, samples = 1000, 1000, 32
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(n, 10)), mapgrad.IMLE(samples=samples), seed=0)
    theta = normal(rows, n).to(DEVICE)
    with torch.no_grad():
        layer(theta)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        layer(theta)
        layer.monitor.last = None
    z = 4 * samples * rows * n
    assert torch.cuda.max_memory_allocated() - before < 1.5 * z


@on_device
@pytest.mark.parametrize("n", [33] if IS_INTERPRETED else [n for n in SIZES if n <= 4096])
@pytest.mark.parametrize(
    ("samples", "dtype"),
    [(3, torch.float16), (1, torch.bfloat16), (3, torch.float32)]
    if IS_INTERPRETED
    else [*product([1, 3], [torch.float16, torch.bfloat16, torch.float32])],
)
def test_means_are_those_of_the_states(n, samples, dtype):
    rows = rows_of(n)
    each = 1 if IS_INTERPRETED else 2
    theta = torch.cat([rows[name][:each] for name in ("normal", "ties", "forbidden")]).to(dtype)
    less = theta.roll(1, dims=0)
    for k, ids in ((n // 2, None), (n - 1, torch.arange(len(theta)) * 7 - 3), (n, None)):
        noise = noise_of(mapgrad.Gumbel(), ids, samples=samples, temperature=0.5, first=9 if ids is None else 0)
        states, others = kernels().largest(torch.stack([theta, less])[:, None].to(DEVICE), k, noise)
        for other, difference in ((None, states), (less.to(DEVICE), states - others)):
            found = kernels().mean_of_largest(theta.to(DEVICE), k, noise, other)
            wanted = (difference.float().sum(dim=0) / samples).to(dtype)
            assert found.dtype == dtype
            if IS_INTERPRETED and dtype == torch.bfloat16:  # which the interpreter cuts to, where a device rounds
                torch.testing.assert_close(found, wanted)
            elif IS_INTERPRETED:
                assert torch.equal(found, wanted), k
            else:  # a compiler may round noise + θ once in one kernel and twice in the other
                assert (found != wanted).double().mean() < 1e-3, k


@on_device
def test_means_forbid_and_have_no_rows():
    theta = normal(4, 50).masked_fill(torch.arange(50) % 3 == 0, -torch.inf)
    noise = noise_of(mapgrad.Gumbel(), None, samples=3)
    found = kernels().mean_of_largest(theta.to(DEVICE), 30, noise).cpu()
    torch.testing.assert_close(found.sum(dim=-1), torch.full((4,), 30.0))
    assert not found[:, ::3].any()
    assert kernels().mean_of_largest(torch.zeros(0, 6, device=DEVICE), 2, noise).shape == (0, 6)
