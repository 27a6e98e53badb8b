"""Losses under torch.compile, torch.vmap, torch.func, autocast and copies; second derivatives refused."""

import copy
import io
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import mapgrad
import mapgrad.losses
from mapgrad.losses import FenchelYoung
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)


def pooled(loss_class):
    """A loss over all states, which no call adds to."""

    def make(solver, **how):
        pool = StatePool(SUBSET)
        pool.add(SUBSET.states())
        return loss_class(solver, pool, **how)

    return make


LOSSES = {
    "SPO+": lambda solver, **how: mapgrad.losses.SPOPlus(solver, **how),
    "PG": lambda solver, **how: mapgrad.losses.DirectionalGradient(solver, **how),
    "SSVM": lambda solver, **how: mapgrad.losses.StructuredSVM(solver, **how),
    "perceptron": lambda solver, **how: FenchelYoung(solver, None, **how),
    "Fenchel-Young": lambda solver, **how: FenchelYoung(solver, samples=3, seed=2, **how),
    "quadratic": lambda solver, **how: FenchelYoung(solver, mapgrad.losses.Quadratic(), temperature=0.8, **how),
    "Gibbs": lambda solver, **how: FenchelYoung(solver, mapgrad.losses.Gibbs(), temperature=0.8, **how),
    "multiplicative": lambda solver, **how: FenchelYoung(solver, multiplicative=True, seed=2, **how),
    "CaVE": lambda solver, **how: mapgrad.losses.CaVE(solver, **how),
    "LAVA": lambda solver, **how: mapgrad.losses.LAVA(solver, **how),
    "NCE": pooled(mapgrad.losses.NoiseContrastive),
    "contrastive MAP": pooled(mapgrad.losses.MAPContrastive),
    "pointwise": pooled(mapgrad.losses.PointwiseRanking),
    "pairwise": pooled(mapgrad.losses.PairwiseRanking),
    "listwise": pooled(mapgrad.losses.ListwiseRanking),
}
TAKE_TRUE = (
    mapgrad.losses.SPOPlus,
    mapgrad.losses.DirectionalGradient,
    mapgrad.losses.PointwiseRanking,
    mapgrad.losses.PairwiseRanking,
    mapgrad.losses.ListwiseRanking,
)


@pytest.fixture(params=LOSSES)
def make(request):
    solver = mapgrad.get_solver("topk", SUBSET)
    return lambda **how: LOSSES[request.param](solver, **how)


@pytest.fixture
def pred(draw):
    return draw(4, 3, 6, dtype=torch.float32)


def target_of(loss, pred):
    """True utilities, or true states."""
    true = torch.randn(pred.shape, generator=torch.Generator().manual_seed(9)).to(pred.dtype)
    return true if isinstance(loss, TAKE_TRUE) else loss.solver(true)


def value_and_gradient(loss, pred, target):
    leaf = pred.clone().requires_grad_()
    value = loss(leaf, target)
    value.sum().backward()
    return value.detach(), leaf.grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_equals_eager(make, pred, reduction):
    torch._dynamo.reset()
    target = target_of(make(), pred)
    expected = value_and_gradient(make(reduction=reduction), pred, target)
    compiled = torch.compile(make(reduction=reduction), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(value_and_gradient(compiled, pred, target), expected)
    torch._dynamo.reset()


def test_func_grad_and_vmap_equal_a_loop(make, pred):
    loss = make()
    target = target_of(loss, pred)
    gradient = torch.func.grad(lambda pred, target: make()(pred, target))
    whole = gradient(pred, target)
    torch.testing.assert_close(whole, value_and_gradient(make(), pred, target)[1])
    expected = torch.stack([gradient(*each) for each in zip(pred, target, strict=True)])
    assert expected.any()
    mapped = torch.vmap(gradient, randomness="same")(pred, target)
    torch.testing.assert_close(mapped, expected)
    mapped = torch.vmap(gradient, in_dims=(1, 0), out_dims=1, randomness="same")(pred.movedim(0, 1), target)
    torch.testing.assert_close(mapped, expected.movedim(0, 1))
    nested = torch.vmap(torch.vmap(make(reduction="none"), randomness="same"), randomness="same")(pred, target)
    assert nested.shape == (4, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_gradient_and_batches_of_any_size(make, pred):
    torch._dynamo.reset()
    target = target_of(make(), pred)
    loss = make()  # kept while its results are used
    compiled = torch.compile(torch.func.grad(loss), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pred, target), value_and_gradient(make(), pred, target)[1])
    torch._dynamo.reset()
    loss, compiled = make(), torch.compile(make(), fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (slice(4), slice(2), slice(1, 4)):
        expected = value_and_gradient(loss, pred[rows], target[rows])
        torch.testing.assert_close(value_and_gradient(compiled, pred[rows], target[rows]), expected)
    torch._dynamo.reset()


def test_vmap_of_one_argument_alone_and_jacobians(make, pred):
    target = target_of(make(), pred)
    for of_pred, of_target in ((0, None), (None, 0)):
        one, other = (each if dim == 0 else each[0] for each, dim in ((pred, of_pred), (target, of_target)))
        how = {"in_dims": (of_pred, of_target), "randomness": "same"}
        expected = [
            value_and_gradient(make(), *((one, other[row]) if of_pred is None else (one[row], other)))
            for row in range(4)
        ]
        found = torch.vmap(make(), **how)(one, other), torch.vmap(torch.func.grad(make()), **how)(one, other)
        for each, wanted in zip(found, zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(each, torch.stack(wanted))
    jacobian = torch.func.jacrev(make(reduction="none"))(pred[0], target[0])
    leaf = pred[0].clone().requires_grad_()
    values = make(reduction="none")(leaf, target[0])
    expected = torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values])
    torch.testing.assert_close(jacobian, expected)


@pytest.mark.parametrize("is_reentrant", [True, False])
def test_a_checkpoint_changes_nothing(make, pred, is_reentrant):
    def train(is_checked):
        torch.manual_seed(0)
        loss, head, found = make(), torch.nn.Linear(6, 6), []
        target = target_of(loss, pred)
        for number in range(3):
            leaf = (pred + number).requires_grad_()

            def run(rows):
                return loss(head(rows), target)

            value = checkpoint(run, leaf, use_reentrant=is_reentrant) if is_checked else run(leaf)
            value.backward()
            found += [value.detach(), leaf.grad, head.weight.grad.clone()]
        return [*found, *loss.state_dict().values()]

    assert all(map(torch.equal, train(is_checked=True), train(is_checked=False)))


def test_state_dict(make, pred):
    loss, other, file = make(), make(), io.BytesIO()
    target = target_of(loss, pred)
    loss(pred, target)
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(pred, target), loss(pred, target))


def test_second_derivatives_are_refused(make, pred):
    loss = make()
    target = target_of(loss, pred)
    pred.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(pred, target), pred, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.sum(), pred, allow_unused=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.func.jacrev(torch.func.jacrev(lambda row: loss(row, target[0, 0])))(pred[0, 0].detach())
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.func.grad(lambda x: torch.func.grad(loss)(x, target).sum())(pred)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(make, pred, dtype):
    narrow = pred.to(dtype)
    target = target_of(make(), narrow.float())
    value, gradient = value_and_gradient(make(), narrow, target)
    expected, wide = value_and_gradient(make(), narrow.float(), target)
    assert value.dtype == torch.float32
    assert value == expected
    assert torch.equal(gradient, wide.to(dtype))


def test_autocast(make):
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 6)
    x = torch.randn(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pred = head(x)
        loss = make()(pred, target_of(make(), pred.float()))
    assert pred.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert head.weight.grad.isfinite().all()
    assert head.weight.grad.any()


def test_autocast_makes_no_loss_less_precise(make, pred):
    target = target_of(make(), pred)
    expected = value_and_gradient(make(), pred, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradient(make(), pred, target)
    torch.testing.assert_close(found, expected)


def test_copies(make, pred):
    loss = make()
    target = target_of(loss, pred)
    loss(pred, target)
    copies = [copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))]
    expected = loss(pred, target)
    assert all(each(pred, target) == expected for each in copies)


def test_train_and_eval_are_the_same(make, pred):
    target = target_of(make(), pred)
    torch.testing.assert_close(make().eval()(pred, target), make().train()(pred, target))


def test_neither_argument_is_written_to(make, pred):
    target = target_of(make(), pred)
    before = pred.clone(), target.clone()
    make(minimize=True)(pred, target)
    assert torch.equal(pred, before[0])
    assert torch.equal(target, before[1])
