import threading
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import stats

from mapgrad.gradients import Gaussian, Gumbel, Laplace, Logistic, SumOfGamma, _counter
from mapgrad.gradients._counter import counter_noise, mix

LAWS = [Gumbel(), Gaussian(), Logistic(), Laplace(), SumOfGamma(1), SumOfGamma(10)]
CPU = torch.device("cpu")


class Uniform:
    """The uniform law on (0, 1), as any object with quantiles."""

    @staticmethod
    def icdf(u):
        return u

    def __repr__(self):
        return "Uniform()"


def draw(noise, *shape, key=5, event_ndim=1, dtype=torch.float64, **how):
    return counter_noise(noise, key, shape, event_ndim=event_ndim, dtype=dtype, device=CPU, **how)


def exact(key, sample, row, entry):
    """SplitMix64 in Python's integers."""

    def scramble(bits):
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    golden = 0x9E3779B97F4A7C15
    start = scramble((key + (sample + 1) * 0xD1342543DE82EF95 + (row + 1) * golden) % 2**64)
    bits = scramble((start + (entry + 1) * golden) % 2**64)
    return (2 * (bits >> 12) + 1) / 2**53


@pytest.mark.parametrize("shape", [(1, 1, 5), (3, 2, 4), (2, 40, 3)])
def test_uniforms_are_those_of_splitmix64(shape):
    rows = torch.tensor([-(2**63), -1, 0, 2**62, 7] * 8)[: shape[1]]
    u = draw(Uniform(), *shape, key=2**64 - 3, rows=rows, first_sample=2)
    truth = [exact(2**64 - 3, s + 2, int(rows[b]), e) for s, b, e in np.ndindex(shape)]
    assert u.flatten().tolist() == truth


def test_splitmix64_is_the_published_one():
    # the first numbers of Vigna's splitmix64.c with seed 1234567
    golden = 0x9E3779B97F4A7C15
    numbers = [_counter._scrambled((1234567 + step * golden) % 2**64) for step in (1, 2, 3)]
    assert numbers == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("noise", [*LAWS, Uniform()], ids=repr)
def test_a_row_has_the_same_noise_in_any_batch(noise):
    whole = draw(noise, 3, 50, 7)
    assert torch.equal(draw(noise, 3, 20, 7), whole[:, :20])
    assert torch.equal(draw(noise, 3, 30, 7, rows=torch.arange(20, 50)), whole[:, 20:])
    assert torch.equal(draw(noise, 3, 5, 10, 7), whole.reshape(3, 5, 10, 7))
    assert torch.equal(draw(noise, 3, 50, 7, 1, event_ndim=2), whole.unsqueeze(-1))
    ids = torch.tensor([[4, 4, 49], [0, 30, 4]])
    assert torch.equal(draw(noise, 3, 2, 3, 7, rows=ids), whole[:, ids])
    assert torch.equal(draw(noise, 3, 7, event_ndim=1, rows=torch.tensor(0)), whole[:, 0])
    assert torch.equal(draw(noise, 3, 50, 5), whole[..., :5])


@pytest.mark.parametrize("noise", LAWS, ids=repr)
def test_samples_can_be_drawn_in_parts(noise):
    whole = draw(noise, 6, 4, 9)
    assert torch.equal(torch.cat([draw(noise, 2, 4, 9), draw(noise, 4, 4, 9, first_sample=2)]), whole)


@pytest.mark.parametrize("noise", LAWS, ids=repr)
@pytest.mark.parametrize("shape", [(5, 4, 3), (2, 3, 50), (1, 2, 1000), (30, 1, 1), (1, 300, 1)])
def test_noise_does_not_depend_on_the_size_of_a_block(noise, shape, monkeypatch):
    whole = draw(noise, *shape)
    for block in (1, 7, 16, 61, 200):
        monkeypatch.setattr(_counter, "_BLOCK", block)
        assert torch.equal(draw(noise, *shape), whole)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 2, 1000), (30, 1, 1), (2, 0, 3)])
@pytest.mark.parametrize("block", [13, 1 << 18])
def test_torch_and_numpy_make_the_same_uniforms(shape, block, monkeypatch):
    monkeypatch.setattr(_counter, "_BLOCK_ELSEWHERE", block)
    ids = torch.arange(shape[1]) * 2**58 - 9
    for rows in (None, ids):
        result = torch.empty(shape, dtype=torch.float64)
        _counter._fill_elsewhere(result.view(-1), Uniform(), 2**64 - 9, shape, rows, 3)
        assert torch.equal(result, draw(Uniform(), *shape, key=2**64 - 9, rows=rows, first_sample=3))


@pytest.mark.parametrize("noise", LAWS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_noise_is_rounded_last(noise, dtype):
    assert torch.equal(draw(noise, 2, 30, 11, dtype=dtype), draw(noise, 2, 30, 11).to(dtype))


@pytest.mark.parametrize("noise", LAWS, ids=repr)
def test_threads_draw_the_same(noise):
    whole, drawn = draw(noise, 2, 10, 5000), {}
    threads = [
        threading.Thread(target=lambda row=row: drawn.update({row: draw(noise, 2, 1, 5000, rows=torch.tensor([row]))}))
        for row in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.cat([drawn[row] for row in range(10)], dim=1), whole)


@pytest.mark.parametrize("noise", LAWS, ids=repr)
def test_noise_follows_its_law(noise):
    x = draw(noise, 4, 50, 500)
    assert stats.kstest(np.asarray(noise.cdf(x)).ravel(), "uniform").pvalue > 0.01
    squares = (x - noise.mean).square()
    assert abs(float(x.mean()) - noise.mean) < 4 * float(x.std()) / x.numel() ** 0.5
    assert abs(float(squares.mean()) - noise.variance) < 4 * float(squares.std()) / x.numel() ** 0.5


def test_uniforms_are_uniform_in_every_bit():
    u = np.asarray(draw(Uniform(), 4, 100, 500)).ravel()
    assert u.min() > 0
    assert u.max() < 1
    bits = (u * 2**53).astype(np.uint64)
    assert (bits & np.uint64(1)).all()
    for place in range(1, 53):
        ones = int((bits >> np.uint64(place) & np.uint64(1)).sum())
        assert abs(ones - u.size / 2) < 5 * u.size**0.5 / 2


def test_rows_samples_entries_and_keys_are_independent():
    def correlation(one, other):
        return abs(float((one * other).mean())) * one.numel() ** 0.5

    def normal(key, rows=None):
        return draw(Gaussian(), 20, 100, 50, key=key, rows=rows)

    x = normal(mix(0, 0))
    for shift in (1, 2, 3, 16):
        for dim in range(3):
            one, other = (x.narrow(dim, start, x.shape[dim] - shift) for start in (0, shift))
            assert correlation(one, other) < 5
            assert correlation(one.square() - 1, other.square() - 1) < 5 * 2
    for other in (normal(mix(0, 1)), normal(mix(1, 0)), normal(1), normal(2), normal(0, torch.arange(100) << 50)):
        assert correlation(x, other) < 5
    above, below = torch.triu_indices(50, 50, offset=1)
    assert correlation(x[:, above, below], x[:, below, above]) < 5
    assert x.unique().numel() == x.numel()


def test_mixed_keys_differ_and_fit_in_int64():
    pairs = [(seed, step) for seed in (0, 1, 2, -1, 2**63, 2**64 - 2) for step in (0, 1, 2, 1000, -1)]
    keys = [mix(*pair) for pair in pairs]
    assert len({*keys}) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)
    assert mix(1, 2) != mix(2, 1)
    assert mix(2**64 + 1, 2**64 + 2) == mix(1, 2)


def test_a_law_without_quantiles_gets_a_generator():
    class Coin:
        def sample(self, shape, *, generator, dtype, device):
            return torch.rand(shape, generator=generator, dtype=dtype, device=device).round()

    for noise in (SumOfGamma(2.0, terms=5), Coin()):
        first = draw(noise, 3, 4, 50)
        assert torch.equal(first, draw(noise, 3, 4, 50))
        assert not torch.equal(first, draw(noise, 3, 4, 50, key=6))
        assert not torch.equal(first, draw(noise, 3, 4, 50, first_sample=3))


def test_nothing_is_drawn_for_empty_batches():
    for shape in ((0, 2, 3), (2, 0, 3), (2, 3, 0)):
        assert draw(Gumbel(), *shape).shape == shape


@pytest.mark.parametrize("noise", [Gumbel(), SumOfGamma(10)], ids=repr)
@pytest.mark.parametrize("shape", [(1, 2, 1_000_000), (1, 200_000, 10), (200_000, 1, 10), (1, 2_000_000, 1)])
def test_little_memory_is_needed_besides_the_result(noise, shape):
    draw(noise, 1, 1, 1)
    tracemalloc.start()
    draw(noise, *shape, dtype=torch.float32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * np.prod(shape) + 4e6
