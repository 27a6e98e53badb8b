"""Losses over a pool of states: what feeds it, what it is worth, and that it is one object for many."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

import mapgrad
import mapgrad.losses
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
STATES = SUBSET.states()
SOLVER = mapgrad.get_solver("topk", SUBSET)
CONTRASTIVE = (mapgrad.losses.NoiseContrastive, mapgrad.losses.MAPContrastive)
RANKING = (mapgrad.losses.PointwiseRanking, mapgrad.losses.PairwiseRanking, mapgrad.losses.ListwiseRanking)
laws = settings(max_examples=40, deadline=None)
vectors = st.lists(st.integers(-3, 3), min_size=6, max_size=6).map(lambda row: torch.tensor(row, dtype=torch.float64))
pools = st.lists(st.integers(0, 14), min_size=1, max_size=15, unique=True)


def pool_of(places=range(15)):
    pool = StatePool(SUBSET)
    for place in places:  # one by one, so that their order is that of `places`, backwards
        pool.add(STATES[place])
    return pool


def value_and_gradient(loss, pred, target):
    pred = pred.clone().requires_grad_()
    value = loss(pred, target)
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    return value.detach(), gradient


@pytest.fixture(params=[*CONTRASTIVE, *RANKING, mapgrad.losses.LAVA])
def loss_class(request):
    return request.param


def target_of(loss_class, true):
    return true if loss_class in RANKING else SOLVER(true)


@pytest.mark.parametrize("loss_class", [*CONTRASTIVE, *RANKING])
@laws
@given(places=pools, pred=vectors, true=vectors, data=st.data())
def test_the_order_of_the_pool_does_not_matter(loss_class, places, pred, true, data):
    found = [
        value_and_gradient(loss_class(SOLVER, pool_of(order)).eval(), pred, target_of(loss_class, true))
        for order in (places, data.draw(st.permutations(places)))
    ]
    if loss_class is mapgrad.losses.MAPContrastive:  # any of equally good states gives a subgradient
        found = [value for value, _ in found]
    torch.testing.assert_close(*found)


@laws
@given(places=pools, pred=vectors, true=vectors, scale=st.sampled_from([0.25, 2.0, 64.0]))
def test_scale(places, pred, true, scale):
    z_true = SOLVER(true)
    for loss_class in CONTRASTIVE:
        (value, gradient), (scaled, same) = (
            value_and_gradient(loss_class(SOLVER, pool_of(places)).eval(), each, z_true)
            for each in (pred, scale * pred)
        )
        torch.testing.assert_close(scaled, scale * value)
        torch.testing.assert_close(same, gradient)
    pairs = [(pred, true, 1.0), (scale * pred, scale * true, scale)]
    pointwise = [mapgrad.losses.PointwiseRanking(SOLVER, pool_of(places))(each, goal) for each, goal, _ in pairs]
    torch.testing.assert_close(pointwise[1], scale**2 * pointwise[0])
    pairwise = [
        mapgrad.losses.PairwiseRanking(SOLVER, pool_of(places), margin=factor)(each, goal)
        for each, goal, factor in pairs
    ]
    torch.testing.assert_close(pairwise[1], scale * pairwise[0])
    listwise = [
        mapgrad.losses.ListwiseRanking(SOLVER, pool_of(places), temperature=factor)(each, goal)
        for each, goal, factor in pairs
    ]
    torch.testing.assert_close(listwise[1], listwise[0])


@laws
@given(places=pools, pred=vectors, true=vectors)
def test_contrastive_map_over_all_states_is_the_perceptron_and_with_costs_the_structured_hinge(places, pred, true):
    z_true = SOLVER(true)
    part = mapgrad.losses.MAPContrastive(SOLVER, pool_of(places))
    whole = mapgrad.losses.MAPContrastive(SOLVER, pool_of())
    plain = mapgrad.losses.FenchelYoung(SOLVER, None)(pred, z_true)
    hinge = mapgrad.losses.StructuredSVM(SOLVER)(pred, z_true, -true)
    torch.testing.assert_close(whole(pred, z_true), plain)
    torch.testing.assert_close(whole(pred, z_true, true), hinge)
    assert part.eval()(pred, z_true) >= 0
    assert part.eval()(pred, z_true) <= plain
    assert part.train()(pred, z_true) == plain  # the solver's answer is in the pool now


def test_values_that_must_be_zero(draw):
    true = draw(20, 6)
    z_true = SOLVER(true)
    for loss in (
        mapgrad.losses.MAPContrastive(SOLVER, pool_of()),
        mapgrad.losses.LAVA(SOLVER, margin=0.0),
        mapgrad.losses.NoiseContrastive(SOLVER, solve_ratio=0.0, reduction="none"),
    ):
        rows = range(1) if isinstance(loss, mapgrad.losses.NoiseContrastive) else slice(None)
        value, gradient = value_and_gradient(loss, true[rows], z_true[rows])
        torch.testing.assert_close(value, torch.zeros_like(value))
        assert not gradient.any()
    for loss in (mapgrad.losses.PointwiseRanking(SOLVER, pool_of()), mapgrad.losses.PairwiseRanking(SOLVER, pool_of())):
        value, gradient = value_and_gradient(loss, true, true)
        assert value == 0
        assert not gradient.any()
    listwise = mapgrad.losses.ListwiseRanking(SOLVER, pool_of(), temperature=0.5, reduction="none")
    value, gradient = value_and_gradient(listwise, true, true)
    entropy = torch.distributions.Categorical(logits=true @ STATES.T / 0.5).entropy()
    torch.testing.assert_close(value, entropy)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    other = listwise(draw(20, 6, seed=1), true)
    assert (other > entropy).all()


def test_a_pairwise_margin_spares_states_that_are_as_good():
    true = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    loss = mapgrad.losses.PairwiseRanking(SOLVER, pool_of([0, 1, 5]), margin=1.0).eval()
    assert (loss.pool.states @ true).tolist() == [2, 2, 2]
    assert loss(torch.zeros(6), true) == 0


def test_what_feeds_the_pool(loss_class, draw):
    pred, true = draw(8, 6), draw(8, 6, seed=1)
    if loss_class is mapgrad.losses.LAVA:
        solver = mapgrad.get_solver("scipy.assignment", mapgrad.Assignment(2, 3))
        pred, true = pred.reshape(8, 2, 3), true.reshape(8, 2, 3)
        target, ratios, how = solver(true), (), {}
    else:
        solver, target, ratios, how = SOLVER, target_of(loss_class, true), (0.0, 1.0), {"solve_ratio": 0.0}
    loss = loss_class(solver, **how)
    with pytest.raises(mapgrad.ProblemError, match=r"0 states, has none for rows 0, 1.*train with the loss first"):
        loss.eval()(pred, target)
    assert len(loss.pool) == 0
    loss.train()(pred, target)
    assert loss.pool.contains(solver(true)).all()
    count = len(loss.pool)
    loss.eval()(-pred, target)
    assert len(loss.pool) == count
    for ratio in ratios:
        loss = loss_class(solver, solve_ratio=ratio)
        before = solver.stats["rows"]
        loss(pred, target)
        solved = solver.stats["rows"] - before - (8 if loss_class in RANKING else 0)
        assert solved == 8 * ratio
        assert loss.pool.contains(solver(pred)).all() == (ratio == 1)


def test_the_share_of_solved_rows(draw):
    loss = mapgrad.losses.NoiseContrastive(SOLVER, solve_ratio=0.3)
    z_true = SOLVER(draw(2000, 6))
    torch.manual_seed(0)
    before = SOLVER.stats["rows"]
    loss(draw(2000, 6, seed=1), z_true)
    share = (SOLVER.stats["rows"] - before) / 2000
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_one_pool_serves_several_losses(draw):
    pool = StatePool(SUBSET)
    losses = torch.nn.ModuleDict(
        {"nce": mapgrad.losses.NoiseContrastive(SOLVER, pool), "rank": mapgrad.losses.ListwiseRanking(SOLVER, pool)}
    )
    losses["nce"](draw(5, 6), SOLVER(draw(5, 6, seed=1)))
    count = len(pool)
    assert count > 0
    copied = copy.deepcopy(losses)
    assert copied["rank"].pool is copied["nce"].pool is not pool
    losses["rank"](draw(5, 6, seed=2), draw(5, 6, seed=3))
    assert len(pool) > count == len(copied["rank"].pool)
    fresh = torch.nn.ModuleDict({"nce": mapgrad.losses.NoiseContrastive(SOLVER)})
    fresh.load_state_dict({key: value for key, value in losses.state_dict().items() if key.startswith("nce.")})
    assert torch.equal(fresh["nce"].pool.states, pool.states)


@pytest.mark.parametrize("loss_class", [*CONTRASTIVE, *RANKING])
def test_the_solution_is_the_best_of_the_pool(loss_class, draw):
    pred = draw(2, 7, 6)
    for ratio in (0.0, 1.0):
        loss = loss_class(SOLVER, pool_of([3]), solve_ratio=ratio, minimize=True, return_solution=True)
        z = loss(pred, target_of(loss_class, draw(2, 7, 6, seed=1)))[1]
        assert z.dtype == pred.dtype
        torch.testing.assert_close((-pred * z).sum(-1), loss.pool.best(-pred)[0])
        assert ratio == 0 or torch.equal(z, SOLVER(-pred))


@pytest.mark.parametrize("loss_class", [*CONTRASTIVE, *RANKING])
def test_large_pools_are_scored_in_blocks(loss_class, draw, monkeypatch):
    pred, true = draw(9, 6), draw(9, 6, seed=1)
    how = {"reduction": "none", "return_solution": True}
    whole = loss_class(SOLVER, pool_of(), **how)(pred, target_of(loss_class, true))
    monkeypatch.setattr("mapgrad.losses._pooled._BLOCK", 40)
    torch.testing.assert_close(loss_class(SOLVER, pool_of(), **how)(pred, target_of(loss_class, true)), whole)


@pytest.mark.parametrize("loss_class", [*CONTRASTIVE, *RANKING])
def test_forbidden_states_do_not_count(loss_class, draw):
    pred, true = draw(5, 6), draw(5, 6, seed=1)
    hidden, kept = torch.arange(6) == 3, [0, 1, 2, 4, 5]
    smaller = mapgrad.get_solver("topk", mapgrad.KSubset(5, 2))
    pool = StatePool(smaller.problem)
    pool.add(smaller.problem.states())
    z_true = smaller(true[:, kept])
    target = true[:, kept] if loss_class in RANKING else z_true
    expected, slope = value_and_gradient(loss_class(smaller, pool), pred[:, kept], target)
    masked = pred.masked_fill(hidden, -torch.inf)
    target = torch.zeros(5, 6, dtype=pred.dtype)
    target[:, kept] = true[:, kept] if loss_class in RANKING else z_true
    target = target.masked_fill(hidden, -torch.inf) if loss_class in RANKING else target
    found, gradient = value_and_gradient(loss_class(SOLVER, pool_of()), masked, target)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[:, kept], slope)
    assert not gradient[:, 3].any()
    if loss_class in CONTRASTIVE:
        target[2] = STATES[(STATES[:, 3] == 1).nonzero()[0, 0]]
        with pytest.raises(mapgrad.ProblemError, match=r"pred forbids in row 2 \(1 of 5\)"):
            loss_class(SOLVER, pool_of())(masked, target)


def test_predictions_outside_of_the_domain_bring_candidates(draw):
    with mapgrad.get_solver("networkx.shortest_path", mapgrad.GridShortestPath(3, 3)) as solver:
        pred, true = draw(4, 3, 3), draw(4, 3, 3, seed=1).abs()
        loss = mapgrad.losses.NoiseContrastive(solver, minimize=True)
        assert loss(pred, solver(-true)).isfinite()
        assert loss.pool.contains(solver(-pred)).all()
        with pytest.raises(mapgrad.DomainError, match="PairwiseRanking solves true"):
            mapgrad.losses.PairwiseRanking(solver, minimize=True)(pred, -true)
    with mapgrad.get_solver("networkx.shortest_path", mapgrad.GridShortestPath(3, 3), domain="raise") as solver:
        loss = mapgrad.losses.NoiseContrastive(solver, minimize=True)
        with pytest.raises(mapgrad.DomainError, match=r"rows 1, 3"):
            loss(true - torch.tensor([0.0, 9, 0, 9])[:, None, None], solver(-true))


def test_states_that_are_none_never_enter_the_pool(loss_class, draw):
    if loss_class is mapgrad.losses.LAVA:
        pytest.skip("LAVA needs no pool for k-subsets")
    pool, pred = pool_of([0]), draw(3, 6)
    wrong = STATES[:3].clone()
    wrong[1] = 0.5
    arguments = (pred, pred, wrong) if loss_class in RANKING else (pred, wrong)
    with pytest.raises(mapgrad.ProblemError, match=r"z_true must hold states of .* row 1"):
        loss_class(SOLVER, pool)(*arguments)
    pred[2, 1] = torch.nan
    for training in (True, False):
        with pytest.raises(mapgrad.NonFiniteError, match="solves pred") as caught:
            loss_class(SOLVER, pool, solve_ratio=0.0).train(training)(pred, STATES[:3])
        assert caught.value.rows == (2,)
    assert len(pool) == 1


def test_problems_of_rows_are_refused_with_advice(loss_class, draw):
    with pytest.raises(TypeError, match=rf"{loss_class.__name__} compares .*problems=: make a loss for each problem"):
        loss_class(SOLVER)(draw(2, 6), STATES[:2], problems=[SUBSET, SUBSET])


def micro_batches(loss_class, run, *, sets_back=False, steps=3):
    """Gradients of steps of two micro-batches, what they fed to the pool, and how many rows were solved."""
    torch.manual_seed(0)
    with mapgrad.get_solver("topk", SUBSET) as solver:
        loss, head, found = loss_class(solver, solve_ratio=0.7), torch.nn.Linear(6, 6), []
        for step in range(steps):
            head.zero_grad()
            total = torch.zeros(())
            for number in (2 * step, 2 * step + 1):
                if sets_back:
                    torch.manual_seed(0)
                x = torch.randn(3, 6, generator=torch.Generator().manual_seed(number)).requires_grad_()
                true = torch.randn(3, 6, generator=torch.Generator().manual_seed(100 + number))
                targets = (true, SOLVER(true)) if loss_class in RANKING else (SOLVER(true),)
                total = total + run(lambda x, targets=targets: loss(head(x), *targets), x)
            total.backward()
            found.append(head.weight.grad.clone())
        return [*found, loss.pool.states, torch.tensor(solver.stats["rows"]), torch.rand(2)]


@pytest.mark.parametrize("loss_class", [*CONTRASTIVE, *RANKING])
@pytest.mark.parametrize("sets_back", [False, True])
def test_what_a_checkpoint_repeats_sees_the_pool_as_it_was(loss_class, sets_back):
    expected = micro_batches(loss_class, lambda function, x: function(x), sets_back=sets_back)
    assert all(gradient.any() for gradient in expected[:3])
    for use_reentrant in (False, True):
        run = partial(checkpoint, use_reentrant=use_reentrant)
        assert all(map(torch.equal, micro_batches(loss_class, run, sets_back=sets_back), expected))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_what_a_compiled_checkpoint_repeats_sees_the_pool_as_it_was():
    torch._dynamo.reset()
    loss_class = mapgrad.losses.NoiseContrastive
    calls = {
        "plain": lambda function, x: torch.compile(function, fullgraph=True, backend="aot_eager")(x),
        "checkpoint": lambda function, x: torch.compile(
            lambda y: checkpoint(function, y, use_reentrant=False), fullgraph=True, backend="aot_eager_decomp_partition"
        )(x),
    }
    expected, found = (micro_batches(loss_class, run, steps=1) for run in calls.values())
    assert expected[0].any()
    assert all(map(torch.equal, found[:3], expected[:3]))


def test_a_checkpoint_that_does_not_restore_the_generator_is_refused(draw):
    loss = mapgrad.losses.NoiseContrastive(SOLVER)
    pred = draw(3, 6).requires_grad_()
    value = checkpoint(loss, pred, STATES[:3].double(), use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(RuntimeError, match="leave preserve_rng_state=True"):
        value.backward()


def test_bad_arguments(loss_class):
    with pytest.raises(ValueError, match=r"the pool is for KSubset\(n=6, k=3\), and the solver for KSubset"):
        loss_class(SOLVER, StatePool(mapgrad.KSubset(6, 3)))
    with pytest.raises(TypeError, match=r"must be a mapgrad\.pool\.StatePool or None, got Tensor"):
        loss_class(SOLVER, STATES)
    with pytest.raises(ValueError, match=r"needs to know the problem.*get_solver"):
        loss_class(lambda theta: theta)
    if loss_class is not mapgrad.losses.LAVA:
        with pytest.raises(ValueError, match=r"a probability, from 0 to 1, got 1\.5"):
            loss_class(SOLVER, solve_ratio=1.5)
    for option, value in {"margin": -1.0, "temperature": 0.0}.items():
        if hasattr(loss_class(SOLVER), option):
            with pytest.raises(ValueError, match=option):
                loss_class(SOLVER, **{option: value})


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_what_all_states_hold_hides_no_worse_state(offset):
    problem = mapgrad.KSubset(4, 2)
    pool = mapgrad.pool.StatePool(problem)
    pool.add(mapgrad.exact.enumerate_states(problem))
    pred = (torch.tensor([[1.0, 2, 3, 4]], dtype=torch.float64) + offset).requires_grad_()
    true = torch.tensor([[4.0, 3, 2, 1]], dtype=torch.float64) + offset
    loss = mapgrad.losses.PairwiseRanking(mapgrad.get_solver("topk", problem), pool)(pred, true)
    loss.backward()
    assert loss.item() == pytest.approx(2.4)
    torch.testing.assert_close(pred.grad, torch.tensor([[-0.6, -0.6, 0.6, 0.6]], dtype=torch.float64))
