"""Noise is a function of (seed, step, row id, sample), whatever else is in the batch and however it is solved."""

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
OTHERS = [mapgrad.KSubset(6, k) for k in (1, 3, 4)]


class Drawn:
    """A law that can only draw, as a user writes one."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


LAWS = {"gumbel": mapgrad.Gumbel(), "sum of gamma": mapgrad.SumOfGamma(2.0), "drawn": Drawn()}
IDS = torch.tensor([7, -3, 2**40, 0, 7, 11, 2**62, 5])


def make_layer(law, *, samples=3, seed=5, reduction="none", solver="topk", problem=SUBSET, **options):
    estimator = mapgrad.IMLE(LAWS[law], mapgrad.Step(2.0), samples=samples)
    return mapgrad.MAPLayer(mapgrad.get_solver(solver, problem, **options), estimator, reduction=reduction, seed=seed)


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(layer, theta, **how):
    """States [S, *batch, 6] and θ's gradient of the coming step."""
    leaf = theta.clone().requires_grad_()
    z = layer(leaf, **how)
    (z * torch.arange(6.0)).sum().backward()
    return z.detach(), leaf.grad


def assert_equal(found, expected):
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("law", LAWS)
def test_a_row_goes_with_its_id(law):
    theta = random_theta(8, 6)
    z, gradient = step(make_layer(law), theta, rows=IDS)
    assert gradient.abs().sum() > 0
    order = torch.tensor([5, 0, 7, 3, 1, 6, 2, 4])
    assert_equal(step(make_layer(law), theta[order], rows=IDS[order]), (z[:, order], gradient[order]))
    shaped = step(make_layer(law), theta.reshape(2, 4, 6), rows=IDS.reshape(2, 4))
    assert_equal(shaped, (z.reshape(3, 2, 4, 6), gradient.reshape(2, 4, 6)))
    single = step(make_layer(law), theta[2], rows=IDS[2])
    assert_equal(single, (z[:, 2], gradient[2]))
    assert_equal(step(make_layer(law), theta, rows=IDS.tolist()), (z, gradient))


@pytest.mark.parametrize("law", LAWS)
def test_equal_ids_have_equal_noise_and_others_another(law):
    z, _ = step(make_layer(law, samples=40), torch.zeros(8, 6), rows=IDS)
    assert torch.equal(z[:, 0], z[:, 4])
    assert len({tuple(z[:, row].flatten().tolist()) for row in range(8)}) == 7
    assert len(z[:, 0].unique(dim=0)) > 5


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("ids", [IDS, None], ids=["ids", "places"])
def test_split_batches_are_the_whole_batch(law, ids):
    theta = random_theta(8, 6)
    ids = torch.arange(8) if ids is None else ids
    whole = step(make_layer(law), theta, rows=ids)
    parts = [step(make_layer(law), theta[rows], rows=ids[rows]) for rows in (slice(3), slice(3, 4), slice(4, 8))]
    assert_equal((torch.cat([z for z, _ in parts], 1), torch.cat([gradient for _, gradient in parts])), whole)


@pytest.mark.parametrize("law", LAWS)
def test_by_default_a_rows_place_is_its_id(law):
    theta = random_theta(8, 6)
    z, gradient = step(make_layer(law), theta)
    assert_equal(step(make_layer(law), theta, rows=range(8)), (z, gradient))
    assert_equal(step(make_layer(law), theta[:3]), (z[:, :3], gradient[:3]))
    assert_equal(step(make_layer(law), theta, problems=[SUBSET] * 8), (z, gradient))


@pytest.mark.parametrize("law", LAWS)
def test_a_sample_is_the_same_among_fewer(law):
    theta = random_theta(8, 6)
    z, _ = step(make_layer(law, samples=5), theta)
    assert torch.equal(step(make_layer(law, samples=2), theta)[0], z[:2])


@pytest.mark.parametrize("law", LAWS)
def test_other_rows_problems_change_nothing(law):
    theta = random_theta(8, 6)
    z, gradient = step(make_layer(law), theta, rows=IDS)
    for places in ([0, 3, 5], [1, 2, 7], [6]):
        problems = [SUBSET if row in places else OTHERS[row % 3] for row in range(8)]
        found = step(make_layer(law, problem=None), theta, problems=problems, rows=IDS)
        assert_equal((found[0][:, places], found[1][places]), (z[:, places], gradient[places]))


def test_rows_of_other_shapes_change_nothing():
    rows = [random_theta(6), random_theta(4, seed=1), random_theta(6, seed=2)]
    problems = [SUBSET, mapgrad.KSubset(4, 2), SUBSET]
    found = make_layer("gumbel", problem=None)(rows, problems=problems, rows=[9, 10, 11])
    alone = make_layer("gumbel")(torch.stack(rows[::2]), rows=[9, 11])
    assert_equal(found[::2], alone.unbind(1))


@pytest.mark.parametrize("law", LAWS)
def test_workers_change_nothing(law):
    theta = random_theta(12, 6)
    expected = step(make_layer(law, solver="highs"), theta, rows=range(100, 112))
    assert expected[1].abs().sum() > 0
    for workers in (1, 2, 3):
        layer = make_layer(law, solver="highs", workers=workers)
        with layer.solver:
            assert_equal(step(layer, theta, rows=range(100, 112)), expected)


@pytest.mark.parametrize("law", LAWS)
def test_evaluation_takes_ids_and_draws_nothing(law):
    layer = make_layer(law).eval()
    theta = random_theta(8, 6)
    assert torch.equal(layer(theta, rows=IDS), layer(theta))
    with pytest.raises(mapgrad.ShapeError, match="one id for each row"):
        layer(theta, rows=IDS[:3])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_mapped_ids_are_those_of_the_whole_batch(law, randomness):
    theta, ids = random_theta(2, 4, 6), IDS.reshape(2, 4)
    z, gradient = step(make_layer(law), theta, rows=ids)
    layer = make_layer(law)

    def mapped(rows, numbers):
        return layer(rows, rows=numbers)

    leaf = theta.clone().requires_grad_()
    found = torch.vmap(mapped, randomness=randomness)(leaf, ids)
    (found * torch.arange(6.0)).sum().backward()
    assert torch.equal(found, z.movedim(1, 0))
    assert torch.equal(leaf.grad, gradient)
    layer = make_layer(law)
    assert torch.equal(torch.vmap(mapped, (1, -1), randomness=randomness)(theta.movedim(0, 1), ids.T), found)
    nested = make_layer(law)
    assert torch.equal(
        torch.vmap(torch.vmap(lambda row, number: nested(row, rows=number), randomness=randomness), randomness="same")(
            theta, ids
        ),
        z.movedim(0, 2),
    )


@pytest.mark.parametrize("law", LAWS)
def test_ids_that_are_not_mapped_heed_randomness(law):
    theta = random_theta(1, 4, 6).expand(3, 4, 6)

    def draw(randomness, ids):
        layer = make_layer(law, samples=20)
        return torch.vmap(lambda rows: layer(rows, rows=ids), randomness=randomness)(theta)

    same, different = draw("same", IDS[:4]), draw("different", IDS[:4])
    assert torch.equal(same, same[:1].expand_as(same))
    assert torch.equal(same[0], make_layer(law, samples=20)(theta[0], rows=IDS[:4]))
    assert len({tuple(element.flatten().tolist()) for element in different}) == 3
    flipped = draw("different", IDS[:4].flip(0))
    assert not torch.equal(flipped, different)
    with pytest.raises(RuntimeError, match="randomness='different'"):
        draw("error", IDS[:4])


@pytest.mark.parametrize("law", LAWS)
def test_one_theta_with_many_ids(law):
    theta = random_theta(4, 6)
    ids = torch.stack([IDS[:4], IDS[4:]])
    layer = make_layer(law)
    found = torch.vmap(lambda numbers: layer(theta, rows=numbers), randomness="same")(ids)
    assert torch.equal(found, torch.stack([make_layer(law)(theta, rows=numbers) for numbers in ids]))


@pytest.mark.parametrize("law", LAWS)
def test_jacobians_of_rows_with_ids(law):
    theta = random_theta(3, 6)
    layers = [make_layer(law, reduction="mean") for _ in range(2)]
    leaf = theta.clone().requires_grad_()
    z = layers[0](leaf, rows=IDS[:3])
    loop = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in z.flatten()]
    expected = torch.stack(loop).reshape(3, 6, 3, 6)
    assert expected.abs().sum() > 0
    assert torch.equal(torch.func.jacrev(lambda rows: layers[1](rows, rows=IDS[:3]))(theta), expected)
    mapped = make_layer(law, reduction="mean")
    both = torch.vmap(
        torch.func.jacrev(lambda rows, ids: mapped(rows, rows=ids)), randomness="different", in_dims=(0, 0)
    )(theta.expand(2, 3, 6), IDS[:3].expand(2, 3))
    assert torch.equal(both, expected.expand_as(both))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("law", LAWS)
def test_compiled_with_ids(law):
    torch._dynamo.reset()
    eager, layer = make_layer(law), make_layer(law)
    compiled = torch.compile(lambda theta, rows: layer(theta, rows=rows), fullgraph=True, backend="aot_eager")
    for number in range(2):
        theta = random_theta(8, 6, seed=number)
        assert_equal(step(compiled, theta, rows=IDS + number), step(eager, theta, rows=IDS + number))
    with pytest.raises(Exception, match=r"rows must be a tensor under torch\.compile"):
        compiled(theta, IDS.tolist())


def test_samples_of_rows_with_ids():
    layer = make_layer("gumbel")
    assert torch.equal(layer.sample(torch.zeros(8, 6), 3, rows=IDS), make_layer("gumbel")(torch.zeros(8, 6), rows=IDS))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (IDS[:5], mapgrad.ShapeError, r"one id for each row of the batch, \(8,\), got shape \(5,\)"),
        (IDS.reshape(2, 4), mapgrad.ShapeError, r"got shape \(2, 4\)"),
        (3, mapgrad.ShapeError, r"got shape \(\)"),
        (IDS.double(), TypeError, "rows must be integers.*float64"),
        ([0.5] * 8, TypeError, "rows must be integers.*float32"),
        (IDS > 0, TypeError, "rows must be integers.*bool"),
        ("abcdefgh", TypeError, "tensor or a sequence of integers, one for each row, got str"),
        ([2**70] * 8, TypeError, "tensor or a sequence of integers"),
        ([[1, 2], [3]], TypeError, "tensor or a sequence of integers"),
    ],
)
@pytest.mark.parametrize("problems", [None, [SUBSET] * 8])
def test_what_ids_can_not_be(rows, error, message, problems):
    with pytest.raises(error, match=message):
        make_layer("gumbel")(torch.zeros(8, 6), problems=problems, rows=rows)


def test_no_rows_need_no_ids():
    layer = make_layer("gumbel")
    assert layer(torch.zeros(0, 6), rows=[]).shape == (3, 0, 6)
    assert layer(torch.zeros(0, 6), problems=[], rows=[]).shape[-1] == 6
    assert make_layer("drawn")(torch.zeros(0, 6)).shape == (3, 0, 6)


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), None])
def test_a_batch_without_rows_is_a_step_as_one_with_rows_is(noise):
    solver, theta = mapgrad.get_solver("topk", None), torch.zeros(4, 6)
    for module, *more in (
        (mapgrad.MAPLayer(solver, mapgrad.IMLE(noise), seed=5),),
        (mapgrad.losses.FenchelYoung(solver, noise, seed=5), torch.zeros(4, 6)),
    ):
        first = module.get_extra_state()
        module(theta[:0], *(each[:0] for each in more), problems=[])
        assert int(module.get_extra_state()[1] - first[1]) == int(noise is not None)
