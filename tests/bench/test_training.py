"""Suite `training`: its tasks and methods, and the rows that it makes of them."""

import sys
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.bench import _training as training
from mapgrad.bench import run_suite
from mapgrad.bench._learning import LAWS, TASKS, LearningTask, fit_moments, new_solver, predict_costs
from mapgrad.bench._methods import LEAST_SQUARES, OBJECTIVES, PUBLISHED, PYEPO, SPO_PLUS, least_squares, pyepo
from mapgrad.data import Examples, ShortestPathTask

ONE_OF_EACH = [name for name in TASKS if "degree 6" not in name]


@pytest.fixture(autouse=True)
def no_pyepo(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyepo", None)


@cache
def quick_report():
    return run_suite("training", quick=True)


@cache
def task_of(name):
    return TASKS[name](3)


def test_each_method_has_a_row_with_its_scores_and_solves():
    report = quick_report()
    assert report.seeds == {"first": 0, "number": 2}
    rows = {row.name: row for row in report.rows}
    assert list(rows) == [LEAST_SQUARES, *OBJECTIVES]
    assert rows[PYEPO].note == "not run: pyepo isn't installed"
    steps = training._QUICK_EPOCHS * 100
    solves = {LEAST_SQUARES: 0, PUBLISHED: 20 * steps, SPO_PLUS: steps, "IMLE()": 3 * steps}
    for name, expected in solves.items():
        row = rows[name]
        assert row.extra["solves"] == expected
        assert 0 < row.extra["train, %"].mean < 100
        assert row.extra["train, %"].mean == pytest.approx(sum(row.runs["train"]) / 2)
        assert len(row.runs["test"]) == 2
    assert rows[PUBLISHED].extra[f"train − {PUBLISHED}"].mean == 0
    assert rows[SPO_PLUS].extra["test − SPO+"].error == 0
    assert rows["IMLE()"].ratio.median > 0
    assert rows["IMLE()"].against == PUBLISHED
    assert "rate" not in rows[LEAST_SQUARES].extra
    assert rows[SPO_PLUS].extra["rate"] in task_of("path 5×5, degree 4, noise 0.5").rates


def test_an_earlier_run_isnt_measured_again_and_differences_are_to_it(monkeypatch):
    earlier = quick_report()
    some = replace(earlier, rows=[row for row in earlier.rows if row.name in (PUBLISHED, SPO_PLUS)])
    monkeypatch.setattr(training, "trained", lambda *arguments, **options: pytest.fail("trained again"))
    report = run_suite("training", quick=True, known=[some], methods=["least"])
    rows = {row.name: row for row in report.rows}
    for row in earlier.rows:
        if row.name in (PUBLISHED, SPO_PLUS, LEAST_SQUARES):
            assert rows[row.name] == row
    assert rows["IMLE()"].note == "not run: not asked for"


def test_the_best_rate_is_that_of_the_training_rows(monkeypatch):
    tried = set()

    def learnt(method, task, solver, *, rate, seed, epochs):
        tried.add(rate)
        return lambda features: (
            task.train.costs if rate == 0.3 and len(features) == 100 else torch.ones(len(features), 40)
        )

    monkeypatch.setattr(training, "trained", learnt)
    choice = {"only": ["path 5×5, degree 4"], "methods": ["IMLE()"]}
    rows = {row.name: row for row in run_suite("training", **choice).rows}
    assert tried == {0.01, 0.03, 0.1, 0.3, 1.0}
    assert rows["IMLE()"].extra["rate"] == 0.3
    assert rows["IMLE()"].extra["train, %"].mean == pytest.approx(0, abs=1e-5)
    assert rows["IMLE()"].note == ""
    monkeypatch.setattr(LearningTask, "rates", (0.1, 0.3))
    monkeypatch.setattr(LearningTask.__init__, "__defaults__", (*LearningTask.__init__.__defaults__[:-1], (0.1, 0.3)))
    rows = {row.name: row for row in run_suite("training", **choice).rows}
    assert rows["IMLE()"].note == "the best rate is the grid's first or last"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_truth_scores_0_and_another_prediction_more(name):
    task = task_of(name)
    for rows in (task.train, task.test):
        if rows is not None and task.reduction == "mean":
            assert task.score(rows.costs, rows) == pytest.approx(0, abs=1e-4)
            assert task.score(rows.costs.roll(1, dims=0), rows) > 1
    assert (len(task.train.features), task.epochs * -(-len(task.train.features) // 25)) in {(100, 60), (1, 60)}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_networks_predict_a_row_for_each_and_every_layer_trains_on_it(name):
    task = task_of(name)
    layer = mapgrad.MAPLayer(new_solver(task.problem), minimize=task.minimize, reduction=task.reduction)
    batch = Examples(*(column[:5] for column in task.train))
    network = task.network()
    pred = network(batch.features)
    assert pred.shape == batch.costs.shape
    loss = task.loss(layer(pred), batch)
    assert loss.shape == ()
    loss.backward()
    assert any(parameter.grad.any() for parameter in network.parameters())


def test_losses_are_what_they_say():
    z = torch.tensor([[1.0, 0.0, 1.0]])
    other = torch.tensor([[0.0, 0.0, 1.0]])
    rows = Examples(z, torch.tensor([[2.0, 3.0, 4.0]]), other, z)
    assert predict_costs(ShortestPathTask, 4, 0.5, 0).loss(z, rows) == 6
    assert predict_costs(LAWS["knapsack 10"], 4, 0.5, 0).loss(z, rows) == -6
    assert TASKS["imitation of paths 12×12"](0).loss(z, rows) == 1
    assert fit_moments(0).loss(torch.stack([z, other]), rows) == (1 + 9 + 9 + 4 + 9 + 9) / 2


def test_the_toy_begins_at_100_and_ends_at_0():
    task = task_of("toy, subsets of 10/5")
    with torch.no_grad():
        assert task.score(task.network()(task.train.features), task.train) == pytest.approx(100)
    best = torch.zeros(1, 10)
    best[0, task.train.costs[0].topk(5).indices] = 100.0
    assert task.score(best, task.train) == pytest.approx(0, abs=1e-3)


def test_tours_are_solved_exactly():
    problem = task_of("tour 8, degree 4, noise 0.5").problem
    theta = torch.randn(6, *problem.shape, generator=torch.Generator().manual_seed(0))
    best = (theta * mapgrad.get_solver("auto", problem)(theta)).sum(dim=1)
    assert torch.allclose((theta * new_solver(problem)(theta)).sum(dim=1), best)


def test_least_squares_finds_a_linear_law():
    task = predict_costs(LAWS["assignment 5"], 1, 0.0, 4)
    pred = least_squares(task)(task.test.features)
    assert torch.allclose(pred, task.test.costs, atol=1e-4)


def test_equal_seeds_learn_equally_and_leave_the_global_generator_alone():
    task = task_of("path 5×5, degree 4, noise 0.5")
    torch.manual_seed(8)
    before = torch.get_rng_state()
    runs = [
        training.trained(OBJECTIVES["IMLE()"], task, new_solver(task.problem), rate=0.1, seed=seed, epochs=1)
        for seed in (5, 5, 6)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    one, same, other = (run(task.test.features) for run in runs)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_a_method_lacks_is_said():
    rows = {row.name: row for row in run_suite("training", only=["imitation"], methods=["least", "SPO+"]).rows}
    for name in (LEAST_SQUARES, SPO_PLUS):
        assert rows[name].note == "not run: needs true costs, which this task doesn't have"


@pytest.mark.parametrize("name", ["assignment 5, degree 4, noise 0.5", "knapsack 10, degree 4, noise 0.5"])
def test_pyepo_gets_the_answers_of_this_librarys_solver(monkeypatch, name):
    """A stand-in for PyEPO, which hands over costs of its own sense as rows of NumPy."""
    asked = {}

    def implicit_mle(model, **options):
        asked.update(options, model=model)
        return Layer()

    class Layer:
        def __call__(self, pred):
            states, objectives = zip(*self.pool.amap(None, pred.detach().numpy()).get(), strict=True)
            asked["objectives"] = torch.tensor([*map(float, objectives)])
            return torch.as_tensor(np.stack(states)) + pred - pred.detach()

    class Model:
        pass

    modules = {
        "pyepo": SimpleNamespace(__spec__=SimpleNamespace()),
        "pyepo.func": SimpleNamespace(implicitMLE=implicit_mle),
        "pyepo.func.utils": SimpleNamespace(sumGammaDistribution=lambda **options: options),
        "pyepo.model.opt": SimpleNamespace(optModel=Model),
        "pyepo.EPO": SimpleNamespace(MINIMIZE=1, MAXIMIZE=-1),
    }
    for module, content in modules.items():
        monkeypatch.setitem(sys.modules, module, content)
    task = task_of(name)
    solver = new_solver(task.problem)
    objective = pyepo(task, solver)
    assert (asked["n_samples"], asked["sigma"], asked["lambd"]) == (10, 1.0, 10.0)
    assert asked["model"].modelSense == (1 if task.minimize else -1)
    batch = Examples(*(column[:4] for column in task.train))
    loss = objective(batch.costs.clone().requires_grad_(), batch)
    best = batch.values.mean() * (1 if task.minimize else -1)
    assert loss.item() == pytest.approx(best.item(), rel=1e-5)
    assert asked["objectives"].allclose(batch.values)
    assert solver.stats["solves"] == 4


def test_a_pyepo_that_fails_says_why_and_a_fault_of_ours_is_one(monkeypatch):
    def fails(task, solver):
        raise AttributeError("saved_variables")

    monkeypatch.setitem(training.OBJECTIVES, PYEPO, fails)
    rows = {row.name: row for row in run_suite("training", quick=True, methods=["PyEPO"]).rows}
    assert rows[PYEPO].note == "not run: saved_variables"
    monkeypatch.setitem(training.OBJECTIVES, "IMLE()", fails)
    with pytest.raises(AttributeError, match="saved_variables"):
        run_suite("training", quick=True, methods=["IMLE()"])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (partial(run_suite, "step", methods=["SPO+"]), "suite 'step' has no methods or seeds to choose"),
        (partial(run_suite, "step", seed=0), "suite 'step' has no methods or seeds to choose"),
        (partial(run_suite, "training", methods=["SPO-"]), "no method begins with 'SPO-': take from least squares; "),
        (
            lambda: run_suite("training", quick=True, seed=1, known=[quick_report()]),
            "suite 'training' with the seeds {'first': 1, 'number': 2}, got one of 'training' with {'first': 0, 'numb",
        ),
    ],
)
def test_choices_that_dont_exist_are_refused(ask, message):
    with pytest.raises(mapgrad.MapgradError) as raised:
        ask()
    assert message in str(raised.value)
