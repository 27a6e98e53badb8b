"""Each law rejects whoever breaks it, a solver or the core between, and says what it found."""

import dataclasses

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import BatchSolver, InstanceSolver, Solution, Solutions, Status, Traits, testing
from mapgrad.testing._sample_rows import generic_rows

PROBLEM = mapgrad.KSubset(5, 2)
STATES = PROBLEM.states()


def name(value):
    return getattr(value, "__name__", None)


class Honest(BatchSolver):
    def values(self, theta):
        return theta.double() @ STATES.T

    def solve(self, theta):
        return STATES[self.values(theta).argmax(1)]


class Worst(Honest):
    def values(self, theta):
        return -super().values(theta)


def test_messages_carry_the_numbers():
    theta = generic_rows(PROBLEM)[0]
    prices = theta.sort().values
    with pytest.raises(mapgrad.ConformanceError) as broken:
        testing.check_optimal(Worst, PROBLEM)
    assert str(broken.value) == (
        "Worst on KSubset(n=5, k=2) breaks the law 'optimal': row 0 (24 of 24 rows are wrong): "
        f"the answer, called optimal, is worth {prices[:2].sum():.12g}, "
        f"but the best state is worth {prices[-2:].sum():.12g}; "
        f"θ = [{', '.join(f'{value:.12g}' for value in theta.tolist())}], z = [1, 0, 1, 0, 0]"
    )


class Collides(InstanceSolver):
    """Knows an item by its price, so that items of one price are one item."""

    def solve(self, state, theta, request):
        by_price = {price: item for item, price in enumerate(theta)}
        dearest = [by_price[price] for price in sorted(by_price, reverse=True)]
        others = [item for item in range(5) if item not in dearest]
        z = np.zeros(5)
        z[(dearest + others)[:2]] = 1
        return z


class Tolerant(Honest):
    """Takes the first state within an absolute tolerance of the best."""

    def solve(self, theta):
        values = self.values(theta)
        return STATES[(values >= values.amax(1, keepdim=True) - 1e-9).int().argmax(1)]


class HalvesSingles(Honest):
    """Computes in half of single precision, where that is what it is given."""

    def values(self, theta):
        return super().values(theta if theta.dtype == torch.float64 else theta.bfloat16())


class Reports(Honest):
    """Right, but what it reports beside its answers is not."""

    def solve(self, theta):
        values, best = self.values(theta).max(1)
        status = torch.full_like(best, Status.OPTIMAL)
        return self.lie(Solutions(STATES[best], status, objective=values, bound=values.clone()))


class FlattersItself(Reports):
    def lie(self, solutions):
        return dataclasses.replace(solutions, objective=solutions.objective + 0.01)


class BoundsTooLow(Reports):
    def lie(self, solutions):
        return dataclasses.replace(solutions, bound=solutions.bound - 0.01)


class Doubts(Reports):
    def lie(self, solutions):
        return dataclasses.replace(solutions, status=torch.full_like(solutions.status, Status.FEASIBLE))


class Boasts(InstanceSolver):
    traits = Traits(exact=False)

    def solve(self, state, theta, request):
        return Solution(np.array([1.0, 1.0, 0.0, 0.0, 0.0]), Status.OPTIMAL)


class CrashesOnTies(InstanceSolver):
    def solve(self, state, theta, request):
        if len(np.unique(theta)) < theta.size:
            raise ArithmeticError("two entries are equal")
        return np.asarray(STATES)[(np.asarray(STATES) @ theta).argmax()]


@pytest.mark.parametrize(
    ("solver", "law", "message"),
    [
        (Collides, "ties", "the answer, called optimal, is worth"),
        (Tolerant, "scale_invariant", r"θ times 2\^-30 isn't answered as θ: the answers differ in"),
        (HalvesSingles, "shape_dtype_device", "the answer, called optimal, is worth"),
        (
            FlattersItself,
            "optimal",
            "the objective is reported as 0.636258493523, but the answer is worth 0.626258493523",
        ),
        (
            BoundsTooLow,
            "optimal",
            "the bound is reported as 0.616258493523, but the best state is worth 0.626258493523",
        ),
        (Doubts, "optimal", "the solver gave no answers: Doubts has no acceptable answer to rows 0, 1"),
        (Boasts, "optimal", "the answer, called optimal, is worth"),
        (CrashesOnTies, "ties", r"the solver gave no answers: .*\(ArithmeticError: two entries are equal\)"),
        (Worst, "gradient", "the I-MLE gradient is off by"),
    ],
    ids=name,
)
def test_solvers(solver, law, message):
    with pytest.raises(mapgrad.ConformanceError, match=message) as broken:
        getattr(testing, f"check_{law}")(solver, PROBLEM)
    assert broken.value.law == law


class Core:
    """Stands between the kit and a Solver; each subclass spoils one thing that the core owes to all solvers."""

    def __init__(self, solver):
        self.inner = solver
        self.traits = solver.traits

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.inner.close()

    def __call__(self, theta):
        return self.solve(theta).z

    def solve(self, theta):
        return self.inner.solve(theta)


class FlattensStatus(Core):
    def solve(self, theta):
        solutions = super().solve(theta)
        return dataclasses.replace(solutions, status=solutions.status.reshape(-1))


class ReadsMemoryInOrder(Core):
    def solve(self, theta):
        return super().solve(theta.as_strided(theta.shape, torch.empty(theta.shape).stride()))


class AnswersInDouble(Core):
    def solve(self, theta):
        solutions = super().solve(theta)
        return dataclasses.replace(solutions, z=solutions.z.double())


class TakesNan(Core):
    def solve(self, theta):
        return super().solve(theta.nan_to_num())


class CutsToShape(Core):
    def solve(self, theta):
        return super().solve(theta[..., :5])


class WritesToTheta(Core):
    def solve(self, theta):
        solutions = super().solve(theta)
        theta.flatten(1)[3:, 0] = 1
        return solutions


@pytest.mark.parametrize(
    ("core", "law", "message"),
    [
        (FlattensStatus, "unbatched", r"θ has no batch dimensions, but the status has shape \(1,\)"),
        (FlattensStatus, "empty_batch", r"θ is \(2, 0, 5\) torch.float32 on cpu, but the status has shape \(0,\)"),
        (FlattensStatus, "shape_dtype_device", r"but status has shape \(18,\), not \(2, 9\)"),
        (AnswersInDouble, "shape_dtype_device", r"θ is \(2, 9, 5\) torch.float16 on cpu, but z is .* torch.float64"),
        (ReadsMemoryInOrder, "non_contiguous", "θ with every second row isn't answered as its contiguous copy"),
        (TakesNan, "non_finite_refused", r"rows 1 and 4 of θ have nan, but the rows refused are \(\)"),
        (CutsToShape, "wrong_shape_refused", r"θ of shape \(6,\) was taken"),
        (WritesToTheta, "theta_unwritten", r"row 3 \(21 of 24 rows are wrong\): the solver wrote to θ, in 1 coord"),
    ],
    ids=name,
)
def test_the_core(monkeypatch, core, law, message):
    def spoilt(*arguments, **options):
        return core(mapgrad.get_solver(*arguments, **options))

    monkeypatch.setattr("mapgrad.testing._case.get_solver", spoilt)
    with pytest.raises(mapgrad.ConformanceError, match=message):
        getattr(testing, f"check_{law}")(Honest, PROBLEM)


def test_an_honest_core_passes(monkeypatch):
    monkeypatch.setattr("mapgrad.testing._case.get_solver", lambda *a, **o: Core(mapgrad.get_solver(*a, **o)))
    in_need_of_a_solver = {"gradient", "per_row_problems"}
    laws = {law: check for law, check in testing.iter_checks(Honest, PROBLEM) if law not in in_need_of_a_solver}
    outcomes = {law: check() for law, check in laws.items()}
    assert {law for law, outcome in outcomes.items() if not outcome.applies} == {
        "ends_in_time",
        "engine_answers",
        "infeasible",
        "limits_apart",
        "limits_by_row",
        "patience",
        "releases_gil",
        "reuse",
        "solve_rows",
        "stop",
        "time_limit",
    }
    assert len(outcomes) == 28
