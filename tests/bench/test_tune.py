"""`tune` finds the fastest solver, and isn't taken in by a quick one that is wrong."""

import numpy as np
import pytest
import torch

import mapgrad


class OneOf(mapgrad.Problem):
    """Vectors with a single 1: no installed solver takes them."""

    def __init__(self, n):
        self.n = n

    @property
    def shape(self):
        return (self.n,)

    @property
    def kappa(self):
        return 1.0

    def is_state(self, z):
        return z.sum() == 1


PROBLEM = OneOf(5)
SAMPLE = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))


class Best(mapgrad.InstanceSolver):
    """Exact, after some work."""

    passes = 0

    def solve(self, state, theta, request):
        for _ in range(self.passes):
            pass
        return np.eye(len(theta))[self.choice(theta)]

    def choice(self, theta):
        return theta.argmax()


class Quick(Best):
    passes = 3_000


class Slow(Best):
    passes = 30_000


class PaysForCalls(Best):
    """The work of `Quick` ten times over for a call, and nothing for a row."""

    def solve_rows(self, state, block):
        for _ in range(10 * Quick.passes):
            pass
        super().solve_rows(state, block)


class Optional(Best):
    """Quick under a setting."""

    def __init__(self, problem, *, effort="high"):
        super().__init__(problem)
        self.passes = {"high": 30_000, "low": 1_000}[effort]


class Worst(Best):
    """Lies in every row."""

    def choice(self, theta):
        return theta.argmin()


class SeldomWrong(Best):
    """Lies in the sample's last row alone."""

    last = (SAMPLE[-1] / SAMPLE[-1].abs().max()).numpy()

    def choice(self, theta):
        is_last = np.allclose(theta / abs(theta).max(), self.last)
        return theta.argmin() if is_last else theta.argmax()


class NoState(Best):
    def solve(self, state, theta, request):
        return np.ones(len(theta))


class Boasts(Best):
    def solve(self, state, theta, request):
        return mapgrad.Solution(super().solve(state, theta, request), objective=100.0)


class Raises(Best):
    def solve(self, state, theta, request):
        raise RuntimeError("no licence")


class GivesUp(Best):
    def solve(self, state, theta, request):
        return mapgrad.Solution(super().solve(state, theta, request), mapgrad.Status.TIME_LIMIT)


class Guesses(Best):
    traits = mapgrad.Traits(exact=False)


@pytest.fixture
def offer():
    """Register a plugin "mine" with these solvers, for the time of a test."""
    registered = []

    def register(name="mine", settings=(), requires=(), **solvers):
        class Plugin:
            @mapgrad.hookimpl
            def mapgrad_solvers(self):
                return [
                    mapgrad.SolverSpec(each, solver, (OneOf,), settings=settings, requires=requires, install="get it")
                    for each, solver in solvers.items()
                ]

        mapgrad.register(Plugin(), name)
        registered.append(name)

    yield register
    for name in registered:
        mapgrad.unregister(name)


def results(tuning):
    return {trial.label: trial.result for trial in tuning.trials}


def test_the_fastest_wins_and_the_others_agree(offer):
    offer(slow=Slow, quick=Quick, guess=Guesses)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=5)
    assert (tuning.name, tuning.options) == ("mine.quick", {})
    assert results(tuning) == {"mine.quick": "fastest", "mine.slow": "slower"}
    assert torch.equal(tuning.solver(SAMPLE).argmax(1), SAMPLE.argmax(1))
    assert (tuning.checked_by, tuning.checked_rows) == (("mine.slow",), 32)
    assert tuning.trials[1].cpu > 2 * tuning.trials[0].cpu
    assert tuning.trials[1].rows < tuning.trials[0].rows + 32


def test_calls_are_of_the_size_that_batches_have(offer):
    """In calls of one row, it would be the slower one by ten."""
    offer(quick=Quick, pays=PaysForCalls)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=10)
    assert tuning.name == "mine.pays"
    paces = [trial.pace for trial in tuning.trials]
    assert paces == sorted(paces)
    assert "Few rows" not in str(tuning)


def test_few_rows_are_said_to_be_few(offer):
    offer(slow=Slow, quick=Quick)
    assert str(mapgrad.tune(PROBLEM, SAMPLE[:1], seconds=1e-6)).splitlines()[-1].startswith("Few rows were timed")


def test_settings_take_part(offer):
    offer(settings=({"effort": "low"}, {"effort": "high"}), choice=Optional)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=5)
    assert (tuning.name, tuning.options) == ("mine.choice", {"effort": "low"})
    assert set(results(tuning)) == {"mine.choice", "mine.choice, effort='low'", "mine.choice, effort='high'"}


def test_the_table_has_all_trials(offer):
    offer(slow=Slow, quick=Quick, raises=Raises)
    lines = str(mapgrad.tune(PROBLEM, SAMPLE, seconds=5)).splitlines()
    assert lines[0].split() == ["solver", "µs", "CPU", "a", "row", "µs", "wall", "÷", "fastest", "solves", "result"]
    assert [line.split()[0] for line in lines[1:4]] == ["mine.quick", "mine.slow", "mine.raises"]
    assert "no licence" in lines[3]
    assert lines[4] == "Others found the same objectives, together on 32 rows of the sample: mine.slow."


@pytest.mark.parametrize(
    ("liar", "reason"),
    [
        (Worst, "wrong: -"),
        (SeldomWrong, "in row 31, where mine.slow found"),
        (NoState, "wrong: its answer to row 0 isn't a state"),
        (Boasts, "in row 0, where its state is worth 0.8"),
        (Raises, "no licence"),
        (GivesUp, "row 0: TIME_LIMIT"),
    ],
)
def test_a_quick_liar_is_out(offer, caplog, liar, reason):
    offer(liar=liar, slow=Slow)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=5)
    assert tuning.name == "mine.slow"
    assert reason in results(tuning)["mine.liar"]
    assert ("tune drops mine.liar" in caplog.text) == ("wrong: " in results(tuning)["mine.liar"])


def test_where_all_are_wrong_the_error_has_the_table(offer):
    offer(nothing=NoState, raises=Raises)
    with pytest.raises(mapgrad.MapgradError, match=r"(?s)no solver of OneOf.*mine\.nothing: wrong.*mine\.raises: "):
        mapgrad.tune(PROBLEM, SAMPLE, seconds=2)


def test_a_lonely_solver_is_returned_unchecked(offer):
    offer(quick=Quick)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=2)
    assert (tuning.name, tuning.checked_by, tuning.checked_rows) == ("mine.quick", (), 0)
    assert "No other solver could be asked" in str(tuning)


def test_the_time_is_kept(offer):
    class Second(Best):
        passes = 20_000_000

    offer(slow=Second, other=Second, third=Second)
    tuning = mapgrad.tune(PROBLEM, SAMPLE, seconds=0.1)
    assert "not tried: the time was up" in results(tuning).values()


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (torch.zeros(0, 5), mapgrad.ShapeError, r"θ has shape \(0, 5\), which has no row"),
        (torch.zeros(3, 4), mapgrad.ShapeError, r"θ has shape \(3, 4\)"),
        (torch.tensor([[0.0, 1, 2, 3, torch.nan]]), mapgrad.NonFiniteError, "row 0"),
        (torch.full((1, 5), torch.inf), mapgrad.NonFiniteError, "row 0"),
        ([[1.0]], TypeError, "tensor"),
    ],
)
def test_a_sample_that_is_none_is_refused(offer, sample, error, message):
    offer(quick=Quick)
    with pytest.raises(error, match=message):
        mapgrad.tune(PROBLEM, sample)


def test_nothing_installed_is_an_error(offer):
    with pytest.raises(mapgrad.UnsupportedProblemError, match="no exact solver takes"):
        mapgrad.tune(PROBLEM, SAMPLE)
    offer(quick=Quick, requires=("no_such_package",))
    with pytest.raises(mapgrad.MissingDependencyError, match="no_such_package"):
        mapgrad.tune(PROBLEM, SAMPLE)
    with pytest.raises(ValueError, match="seconds must be a positive number of seconds, got 0"):
        mapgrad.tune(PROBLEM, SAMPLE, seconds=0)


def test_forbidden_entries_and_single_rows_are_fine():
    theta = torch.tensor([0.5, -torch.inf, 2.0, 1.0])
    tuning = mapgrad.tune(mapgrad.KSubset(4, 2), theta, seconds=2)
    assert tuning.solver(theta).tolist() == [0, 0, 1, 1]
    assert tuning.checked_rows == 1


def test_programs_are_tuned_whose_variables_theta_prices_in_part():
    program = mapgrad.IntegerProgram(A_ub=[[1, 1, -2]], b_ub=[0], integrality=[1, 1, 0], decision=[0, 1], fixed=[-0.4])
    tuning = mapgrad.tune(program, torch.tensor([[0.5, 0.5], [0.1, 0.05]]), seconds=5)
    assert tuning.solver(torch.tensor([[0.5, 0.5], [0.1, 0.05]])).tolist() == [[1, 1], [0, 0]]
    assert not any("wrong" in result for result in results(tuning).values())


def test_a_list_of_problems_is_refused_in_short():
    problems = [mapgrad.KSubset(5, 2)] * 500
    with pytest.raises(TypeError, match=r"must be one problem, .*, got 500 in a list") as caught:
        mapgrad.tune(problems, torch.rand(500, 5))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_states_that_arent_whole_are_judged_in_full_precision(dtype):
    """Rounded to θ's dtype they are worth something else than what a solver says of them."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(8, 4, generator=generator).to(dtype)
    tuning = mapgrad.tune(mapgrad.Portfolio(np.eye(4), 0.5), theta, seconds=1)
    assert tuning.name == "clarabel.portfolio"
    assert tuning.solver(theta).dtype == dtype
