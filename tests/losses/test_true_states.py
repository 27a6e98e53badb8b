"""True states that aren't states are refused when they are first seen, and a warning tells of those that are beaten."""

import warnings

import pytest
import torch

import mapgrad
from mapgrad import losses
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
STATES = SUBSET.states()
ROWS = 4
PASS_VALUES = {
    "SPO+": losses.SPOPlus,
    "pointwise": losses.PointwiseRanking,
    "pairwise": losses.PairwiseRanking,
    "listwise": losses.ListwiseRanking,
}
PASS_STATES = {
    "Fenchel-Young": lambda solver, **how: losses.FenchelYoung(solver, seed=0, samples=2, **how),
    "perceptron": lambda solver, **how: losses.FenchelYoung(solver, None, **how),
    "quadratic": lambda solver, **how: losses.FenchelYoung(solver, losses.Quadratic(), **how),
    "Gibbs": lambda solver, **how: losses.FenchelYoung(solver, losses.Gibbs(), **how),
    "SSVM": losses.StructuredSVM,
    "CaVE": losses.CaVE,
    "LAVA": losses.LAVA,
    "NCE": losses.NoiseContrastive,
    "contrastive MAP": losses.MAPContrastive,
}
NAMES = [*PASS_VALUES, *PASS_STATES, "regret", "normalized_regret", "Regret"]


@pytest.fixture
def solver():
    return mapgrad.get_solver("topk", SUBSET)


def caller(name, solver, **how):
    """Return a function of predictions, true values and true states."""
    if name in PASS_VALUES:
        return PASS_VALUES[name](solver, **how)
    if name in PASS_STATES:
        loss = PASS_STATES[name](solver, **how)
        return lambda pred, true, z_true: loss(pred, z_true)
    if name == "Regret":
        return losses.Regret(solver, **how).update
    return lambda pred, true, z_true: getattr(losses, name)(solver, pred, true, z_true, **how)


def others(*batch):
    """Return what isn't states, but for θ > 0 is worth less than the best state: a loss of it isn't negative."""
    return {
        "nothing": torch.zeros(*batch, 6),
        "one less": STATES[0].float().expand(*batch, 6) * (torch.arange(6) != 0),
        "a mean": STATES.float().mean(dim=0).expand(*batch, 6),
        "costs": torch.full((*batch, 6), 0.01),
    }


@pytest.mark.parametrize("kind", others())
@pytest.mark.parametrize("name", NAMES)
def test_other_rows_are_refused_by_their_numbers(name, kind, solver, draw):
    call, pred = caller(name, solver), draw(2, 2, 6).abs().float()
    z_true = solver(pred)
    call(pred, pred, z_true)
    z_true[1] = others(2)[kind]
    with pytest.raises(mapgrad.ProblemError, match=r"KSubset\(n=6, k=2\), but rows 2 .*3 .*\(2 of 4\) aren't"):
        call(pred, pred, z_true)
    call(pred, pred, solver(pred))


@pytest.mark.parametrize("name", ["quadratic", "Gibbs", "CaVE", "NCE", "contrastive MAP", "listwise"])
def test_ops_look_under_maps(name, solver, draw):
    pred = draw(ROWS, 6)
    loss = {**PASS_VALUES, **PASS_STATES}[name](solver)
    arguments = [pred][: name in PASS_VALUES]
    assert torch.vmap(loss)(pred, *arguments, solver(pred)).isfinite().all()
    with pytest.raises(mapgrad.ProblemError, match="z_true must hold states"):
        torch.vmap(loss)(pred, *arguments, others(ROWS)["one less"].double())


@pytest.mark.parametrize("name", ["SPO+", "perceptron", "SSVM", "regret"])
def test_problems_of_rows(name, draw):
    problems = [mapgrad.KSubset(6, 1 + row % 2) for row in range(ROWS)]
    loss = mapgrad.get_solver("topk", None)
    pred = draw(ROWS, 6)
    z_true = loss(pred, problems)
    if name == "regret":

        def call(z_true):
            return losses.regret(loss, pred, pred, z_true, problems=problems)

    else:
        made = {**PASS_VALUES, **PASS_STATES}[name](loss)

        def call(z_true):
            return made(pred, *[pred][: name in PASS_VALUES], z_true, problems=problems)

    call(z_true)
    with pytest.raises(mapgrad.ProblemError, match=r"states of KSubset\(n=6, k=1\), but rows 0, 1, 2, 3 \(4 of 4\)"):
        call(z_true.roll(1, dims=0))


LOOKED_AT = []


class Watched(mapgrad.KSubset):
    """Says how many rows it is asked about, and can't tell of those whose first entry is chosen."""

    def are_states(self, z):
        LOOKED_AT.append(len(z))
        if (z[:, 0] == 1).any():
            raise mapgrad.UndecidedError("the step budget ran out")
        return super().are_states(z)


@pytest.fixture
def watched(solver):
    LOOKED_AT.clear()
    return losses.FenchelYoung(mapgrad.get_solver(lambda theta: solver(theta), Watched(6, 2)), None)


@pytest.mark.parametrize("most", [2, 1 << 16])
def test_each_state_is_looked_at_once(watched, draw, monkeypatch, most):
    monkeypatch.setattr("mapgrad.losses._true_states._MOST", most)
    z_true = STATES[STATES[:, 0] == 0]
    for rows in (z_true, z_true.flip(0), z_true[:3].repeat(2, 1), z_true[-1:]):
        watched(draw(*rows.shape), rows)
    assert [len(z_true)] == LOOKED_AT
    with pytest.raises(mapgrad.ProblemError, match=r"row 1 \(1 of 3\)"):
        watched(draw(3, 6), z_true[:3] * torch.tensor([1.0, 0.0, 1.0])[:, None])
    assert [len(z_true), 1] == LOOKED_AT
    watched(draw(*z_true.shape), z_true)
    assert LOOKED_AT[2:] == ([] if most > 2 else [len(z_true) - 2])  # but for the two that came last


def test_what_cannot_be_told_is_no_mistake_and_the_others_are_judged(watched, draw):
    assert watched(draw(len(STATES), 6), STATES) >= 0
    wrong = STATES.clone()
    wrong[-2:] = 0
    with pytest.raises(mapgrad.ProblemError, match=r"rows 13, 14 \(2 of 15\)"):
        watched(draw(len(STATES), 6), wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_continuous_states_may_be_rounded(dtype):
    task = mapgrad.data.PortfolioTask(assets=5)
    solver = mapgrad.get_solver("auto", task.problem)
    returns = task.draw(8)[1].to(dtype)
    shares = solver(returns)
    assert losses.SPOPlus(solver)(returns, returns, shares) >= 0
    assert losses.regret(solver, returns, returns, shares).abs().max() < 1e-3
    for loss in (losses.FenchelYoung(solver, losses.Quadratic()), losses.NoiseContrastive(solver)):
        assert loss(returns, shares).isfinite()
    if dtype.itemsize >= 4:
        with pytest.raises(mapgrad.ProblemError, match=r"\(8 of 8\) aren't"):
            losses.SPOPlus(solver)(returns, returns, shares + 0.01)


def test_hamming_margins_are_for_states_that_are_whole():
    task = mapgrad.data.PortfolioTask(assets=5)
    solver = mapgrad.get_solver("auto", task.problem)
    returns = task.draw(8)[1]
    shares, loss = solver(returns), losses.StructuredSVM(solver)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="give margins, as margin="):
        loss(returns, shares)
    spo_plus = losses.SPOPlus(solver)(returns / 2 + returns, returns, shares)
    twice = losses.StructuredSVM(solver, weight=2.0)(returns / 2 + returns, shares, -returns)
    torch.testing.assert_close(twice, spo_plus)


def beaten_by(states, true, z_true):
    """Return the rows in which one of some states is worth more than z*."""
    worth = (true * states).sum(dim=-1)
    return (worth > (true * z_true).sum(dim=-1) + 1e-9).nonzero().flatten().tolist()


def told(call, *arguments):
    """Return which rows the one warning of a call names, and the minimize that it asks about; None without any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments)
    if not caught:
        return None
    (warning,) = caught
    assert warning.filename == __file__
    words = str(warning.message)
    named = words.split("in row")[1].removeprefix("s").split("(")[0]
    return [int(each) for each in named.split(",")], "minimize=True" in words


TRUE_AND_STATES = {
    **PASS_VALUES,
    "contrastive MAP": lambda solver, **how: Swapped(losses.MAPContrastive(solver, pool_of(), **how)),
}


class Swapped(torch.nn.Module):
    """A loss of (pred, z_true, true) called as (pred, true, z_true)."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, pred, true, z_true):
        return self.loss(pred, z_true, true)


def pool_of():
    pool = StatePool(SUBSET)
    pool.add(STATES)
    return pool


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("name", TRUE_AND_STATES)
def test_true_states_of_the_other_sense(name, minimize, solver, draw):
    pred, true = draw(ROWS, 6), draw(ROWS, 6, seed=1)
    sign = -1 if minimize else 1
    z_true = solver(-sign * true)
    z_true[2] = solver(sign * true[2])
    loss = TRUE_AND_STATES[name](solver, minimize=minimize)
    if name == "SPO+":
        rows = beaten_by(solver(sign * (2 * pred - true)), sign * true, z_true)
    else:  # the pool comes to hold the opposite, or all
        getattr(loss, "loss", loss).pool.add(STATES)
        rows = [0, 1, 3]
    assert told(loss, pred, true, z_true) == (rows, not minimize)
    assert told(loss, pred, true, z_true) is None
    for right in (solver(sign * true), None)[: 1 if name == "contrastive MAP" else 2]:
        assert told(TRUE_AND_STATES[name](solver, minimize=minimize), pred, true, right) is None


@pytest.mark.parametrize("unambiguous", [False, True])
@pytest.mark.parametrize("minimize", [False, True])
def test_regrets_of_other_rows_states(minimize, unambiguous, solver, draw):
    pred, true = draw(2, 3, 6), draw(2, 3, 6, seed=1)
    sign = -1 if minimize else 1
    z_true = solver(sign * true).flatten(0, 1).roll(1, dims=0).reshape(2, 3, 6)
    flat = (sign * each.flatten(0, 1) for each in (pred, true))
    rows = beaten_by(solver(next(flat)), next(flat), z_true.flatten(0, 1))
    assert 0 < len(rows) < 6
    metric = losses.Regret(solver, minimize=minimize, unambiguous=unambiguous)
    with pytest.warns(UserWarning, match=rf"z_true isn't optimal .*\({len(rows)} of 6\)") as caught:
        metric.update(pred, true, z_true)
    assert all(f"{row} (index {divmod(row, 3)})" in str(caught[0].message) for row in rows)
    metric.update(pred, true, z_true)  # no second warning
    for judge in (losses.regret, losses.normalized_regret):
        for _ in range(2):
            with pytest.warns(UserWarning, match="z_true isn't optimal"):
                judge(solver, pred, true, z_true, minimize=minimize, unambiguous=unambiguous)


def test_entries_that_true_values_forbid(solver, draw):
    pred, true = draw(ROWS, 6), draw(ROWS, 6, seed=1)
    z_true = solver(true)
    true[1, int(z_true[1].argmax())] = -torch.inf
    with pytest.warns(UserWarning, match=r"row 1 \(1 of 4\)"):
        losses.regret(solver, pred, true, z_true)
    z_true = solver(true)
    assert losses.regret(solver, pred, true, z_true).isfinite().all()  # no warning


@pytest.mark.parametrize("name", TRUE_AND_STATES)
def test_rounding_is_no_better_state(name, solver):
    exact = torch.full((ROWS, 6), 1e3, dtype=torch.float64) + torch.rand(ROWS, 6, dtype=torch.float64) * 1e-5
    z_true = solver(exact)
    loss = TRUE_AND_STATES[name](solver)
    getattr(loss, "loss", loss).__dict__.get("_modules", {}).get("pool", StatePool(SUBSET)).add(STATES)
    for pred in (exact.float(), -exact.float()):
        assert loss(pred, exact, z_true.float()).isfinite()
        assert losses.regret(solver, pred, exact, z_true.float()).abs().max() < 1


def test_a_heuristics_own_states_are_not_the_users(draw):
    def first(theta):
        return STATES[:1].to(theta).expand_as(theta)

    loss = losses.PairwiseRanking(mapgrad.get_solver(first, SUBSET), pool_of())
    assert loss(draw(ROWS, 6), draw(ROWS, 6, seed=1)).isfinite()  # no warning
