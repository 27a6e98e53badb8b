"""The noise of Fenchel–Young losses is a layer's: by seed, step, row and sample."""

import pytest
import torch

import mapgrad
import mapgrad.losses

SUBSET = mapgrad.KSubset(6, 2)


class Drawn:
    """A law that must be drawn, and can't be given again from uniforms."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


NOISES = {"auto": "auto", "gumbel": mapgrad.Gumbel(), "drawn": Drawn()}


@pytest.fixture(params=NOISES)
def noise(request):
    return NOISES[request.param]


def make_loss(noise, **options):
    options = {"samples": 3, "temperature": 0.8, "seed": 4, "return_solution": True} | options
    return mapgrad.losses.FenchelYoung(mapgrad.get_solver("topk", SUBSET), noise, **options)


def make_layer(noise, seed=4, **options):
    estimator = mapgrad.IMLE(noise, samples=3, temperature=0.8)
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=seed, **options)


@pytest.mark.parametrize("minimize", [False, True])
def test_states_and_gradient_are_those_of_a_layer(noise, draw, minimize):
    loss, layer = make_loss(noise, minimize=minimize, reduction="sum"), make_layer(noise, minimize=minimize)
    for step in range(3):
        pred = draw(5, 6, seed=step).requires_grad_()
        z_true = loss.solver(draw(5, 6, seed=10 + step))
        value, z = loss(pred, z_true)
        expected = layer(pred.detach())
        assert torch.equal(z, expected)
        sign = -1 if minimize else 1
        torch.testing.assert_close(torch.autograd.grad(value, pred)[0], sign * (expected - z_true))


def test_multiplicative_states_are_those_of_the_estimator(draw):
    solver = mapgrad.get_solver("topk", SUBSET)
    estimator = mapgrad.Perturbed(mapgrad.Gaussian(), samples=3, temperature=0.8, multiplicative=True)
    layer = mapgrad.MAPLayer(solver, estimator, seed=4)
    pred = draw(5, 6)
    assert torch.equal(make_loss("auto", multiplicative=True)(pred, solver(pred))[1], layer(pred))


def test_a_seed_gives_the_same_steps(noise, draw):
    pred, z_true = draw(5, 6), make_loss(noise).solver(draw(5, 6, seed=1))
    loss, again = make_loss(noise), make_loss(noise)
    first, second = loss(pred, z_true)[0], loss(pred, z_true)[0]
    assert first != second
    assert again(pred, z_true)[0] == first
    other = make_loss(noise)
    other.load_state_dict(again.state_dict())
    assert other(pred, z_true)[0] == second
    assert make_loss(noise, seed=5)(pred, z_true)[0] != first


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("kind", ["one problem", "problems of rows", "compiled"])
def test_validation_takes_no_step(noise, draw, kind):
    if kind == "compiled" and isinstance(noise, Drawn):
        pytest.skip("one kind of noise is enough to compile")
    problems = {"problems": [SUBSET] * 5} if kind == "problems of rows" else {}
    pred, z_true = draw(5, 6), make_loss(noise).solver(draw(5, 6, seed=1))
    loss, straight = make_loss(noise), make_loss(noise)
    call = torch.compile(loss, backend="aot_eager", fullgraph=True) if kind == "compiled" else loss
    for _ in range(2):
        loss.eval()
        validated = [call(pred, z_true, **problems)[0] for _ in range(2)]
        loss.train()
        value = call(pred, z_true, **problems)[0]
        torch.testing.assert_close(value, straight(pred, z_true, **problems)[0])
        assert validated == [value, value]


def test_torch_seed_without_a_seed(draw):
    pred, z_true = draw(5, 6), make_loss("auto").solver(draw(5, 6, seed=1))
    torch.manual_seed(3)
    first = make_loss("auto", seed=None)(pred, z_true)[0]
    torch.manual_seed(3)
    assert make_loss("auto", seed=None)(pred, z_true)[0] == first
    assert make_loss("auto", seed=None).state_dict()["_extra_state"].numel() == 0


def test_a_state_of_another_module_is_refused():
    with pytest.raises(ValueError, match="another module's"):
        make_loss("auto").set_extra_state(torch.tensor([1.0, 2.0]))


def test_ids_of_rows(noise, draw):
    pred, z_true = draw(5, 6), make_loss(noise).solver(draw(5, 6, seed=1))
    ids, order = torch.tensor([7, 3, 2**40, -1, 5]), [3, 0, 4, 1, 2]
    value, z = make_loss(noise, reduction="none")(pred, z_true, rows=ids)
    shuffled, others = make_loss(noise, reduction="none")(pred[order], z_true[order], rows=ids[order])
    assert torch.equal(shuffled, value[order])
    assert torch.equal(others, z[order])
    assert torch.equal(z, make_layer(noise)(pred, rows=ids))


def test_vmap_heeds_randomness(draw):
    pred = torch.zeros(20, 6).double()
    loss = make_loss("auto", reduction="none")
    z_true = loss.solver(draw(20, 6))
    z = torch.vmap(loss, randomness="different")(pred, z_true)[1]
    assert len(z.unique(dim=0)) > 8
    z = torch.vmap(loss, randomness="same")(pred, z_true)[1]
    assert len(z.unique(dim=0)) == 1
    with pytest.raises(RuntimeError, match="randomness='error'"):
        torch.vmap(loss)(pred, z_true)
    ids = torch.arange(20).reshape(20, 1)
    rows = torch.vmap(lambda *row: loss(row[0][None], row[1][None], rows=row[2])[1], randomness="same")
    assert len(rows(pred, z_true, ids).unique(dim=0)) > 8


def test_no_noise_where_a_domain_would_refuse_it(draw):
    grid = mapgrad.GridShortestPath(3, 3)
    with mapgrad.get_solver("networkx.shortest_path", grid) as solver:
        costs = draw(4, 3, 3).abs().requires_grad_()
        z_true = solver(-draw(4, 3, 3, seed=1).abs())
        plain = mapgrad.losses.FenchelYoung(solver, minimize=True)
        assert plain.noise is None
        assert plain(costs, z_true) == mapgrad.losses.FenchelYoung(solver, None, minimize=True)(costs, z_true)
        loss = mapgrad.losses.FenchelYoung(solver, minimize=True, multiplicative=True, samples=4, seed=0)
        value = loss(costs, z_true)
        assert value > 0
        value.backward()
        assert costs.grad.any()
        with pytest.raises(mapgrad.DomainError, match="multiplicative"):
            mapgrad.losses.FenchelYoung(solver, mapgrad.Gaussian(), minimize=True, temperature=9.0)(costs, z_true)


def test_a_function_is_called_once_a_sample_with_whole_batches(draw):
    seen = []

    def top2(theta):
        seen.append(tuple(theta.shape))
        return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)

    pred = draw(5, 6)
    loss = mapgrad.losses.FenchelYoung(top2, mapgrad.Gumbel(), samples=3, reduction="none", seed=4)
    z_true = top2(draw(5, 6, seed=1))
    seen.clear()
    value = loss(pred, z_true)
    assert seen == [(5, 6)] * 3
    assert torch.equal(value, make_loss(mapgrad.Gumbel(), temperature=1.0, reduction="none")(pred, z_true)[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"smoothing": Drawn(), "multiplicative": True}, TypeError, "log_mgf"),
        ({"smoothing": mapgrad.Gumbel(), "multiplicative": True, "temperature": 1.0}, ValueError, "finite mean"),
        ({"smoothing": "gumbel"}, TypeError, "smoothing must be"),
        ({"samples": 0}, ValueError, "samples"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"seed": 1.5}, TypeError, "seed"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        mapgrad.losses.FenchelYoung(mapgrad.get_solver("topk", SUBSET), **options)
