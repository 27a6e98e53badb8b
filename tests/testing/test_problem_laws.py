"""Every law on problems is kept by all of ours, and broken by the problem that has the fault."""

import numpy as np
import pytest

import mapgrad
from mapgrad.problems import Domain, IntegerProgram, KSubset, Problem
from mapgrad.testing import BruteForce, example_problems
from mapgrad.testing._problem_laws import PROBLEM_LAWS, check_problem

EXAMPLES = example_problems(mapgrad.SolverSpec(name="any", factory=BruteForce, accepts=(Problem,)))


def outcomes(problem):
    return {outcome.law: outcome for outcome in check_problem(problem)}


@pytest.mark.parametrize("problem", EXAMPLES, ids=lambda problem: type(problem).__name__)
def test_our_problems_keep_every_law(problem):
    found = outcomes(problem)
    assert list(found) == [law.__name__.removeprefix("check_") for law in PROBLEM_LAWS]
    skipped = {name for name, outcome in found.items() if not outcome.applies}
    assert skipped <= {"problem_kappa", "problem_constant_sums"}  # of sets that aren't 0/1, or have none


class Pairs(KSubset):
    """Two of n items: what the faulty ones below should be."""

    def __init__(self, n=4):
        super().__init__(n, 2)


class Shapeless(Pairs):
    @property
    def shape(self):
        return [4]


class WrongBox(Pairs):
    box = np.zeros(4), np.ones(3)


class NoKappa(Pairs):
    kappa = 2


class NoDomain(Pairs):
    domain = "every θ"


class Unstable(Pairs):
    def __init__(self, n=4):
        super().__init__(n + 1)
        self.n = n + 1


class EqualToAll(Pairs):
    def __eq__(self, other):
        return True

    __hash__ = Pairs.__hash__


class ByIdentity(Pairs):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Nameless(Pairs):
    def __repr__(self):
        return "a set"


class Settable(Pairs):
    __setattr__ = object.__setattr__


class Writeable(Pairs):
    @property
    def weights(self):
        return vars(self).setdefault("weights", np.ones(4))

    @property
    def digest(self):
        return f"{super().digest}{self.weights.sum()}"


class FlatStates(Pairs):
    def iterate_states(self):
        yield np.zeros((2, 2))


class NegativeZeros(Pairs):
    def iterate_states(self):
        return (state * np.where(state, 1, -1) for state in super().iterate_states())


class Shuffled(Pairs):
    def iterate_states(self):
        states = list(super().iterate_states())
        vars(self)["_turn"] = vars(self).get("_turn", 0) + 1
        return iter(states[vars(self)["_turn"] % 3 :] + states[: vars(self)["_turn"] % 3])


class Crashing(Pairs):
    def iterate_states(self):
        raise IndexError("no such item")


class TightBox(Pairs):
    box = np.zeros(4), np.array([1.0, 1.0, 1.0, 0.0])


class SmallReach(Pairs):
    largest = 0.5


class WrongSum(Pairs):
    constant_sums = {(0,): 3.0}  # noqa: RUF012 (as an author may write it)


class NegativeAxis(Pairs):
    constant_sums = {(-1,): 2.0}  # noqa: RUF012 (as above)


class NoSum(Pairs):
    constant_sums = {(0,): "two"}  # noqa: RUF012 (as above)


class AlwaysTrue(Pairs):
    def are_states(self, z):
        return np.ones(len(z), dtype=np.bool_)


class AlmostAlwaysTrue(Pairs):
    def are_states(self, z):
        return z.sum(axis=1) <= 2


class NeverTrue(Pairs):
    def are_states(self, z):
        return np.zeros(len(z), dtype=np.bool_)


class LooseBox(Pairs):
    def in_box(self, z):
        return np.isfinite(z).all(axis=1)

    def are_states(self, z):
        return super().are_states(z.round())


class WriteZ(Pairs):
    def in_box(self, z):
        z[:] = z.round()
        return super().in_box(z)


class Incomplete(Pairs):
    def iterate_states(self):
        return (state for state in super().iterate_states() if state[0])


class HighKappa(Pairs):
    kappa = 40.0


class LowKappa(Pairs):
    kappa = 0.1


class ShortValues(Pairs):
    def completion_values(self, z):
        return np.zeros(1)


class OtherProgram(Pairs):
    def to_ilp(self):
        return KSubset(self.n, 3).to_ilp()


class LooseProgram(Pairs):
    """A program with more solutions, none of which is repaired."""

    def to_ilp(self):
        return IntegerProgram(A_ub=np.ones((1, self.n)), b_ub=[2])


class TightProgram(Pairs):
    """A program with fewer solutions."""

    def to_ilp(self):
        return IntegerProgram(A_eq=np.ones((1, self.n)), b_eq=[2], upper=[1, 1, 1, 0])


class BadRepair(Pairs):
    """A repair that makes states, but worse ones."""

    def repair(self, z):
        return z[:, ::-1].copy()


class NoProgram(Pairs):
    def to_ilp(self):
        return KSubset(self.n, 2)


class WrongDomain(Pairs):
    """At most two of n items, claimed to be two wherever θ ≤ 0."""

    domain = Domain.NONPOSITIVE

    def to_ilp(self):
        return IntegerProgram(A_ub=np.ones((1, self.n)), b_ub=[2])

    def repair(self, z):
        states = z.copy()
        for state in states:
            state[np.flatnonzero(state == 0)[: int(2 - state.sum())]] = 1
        return states


FAULTS = [
    (Shapeless, "attributes", r"shape must be a tuple of integers ≥ 1, got \[4\]"),
    (WrongBox, "attributes", r"box must have a float64 array of shape \(4,\) as upper bound"),
    (NoKappa, "attributes", "kappa must be a positive float, got 2"),
    (NoDomain, "attributes", "domain must be a mapgrad.Domain, got 'every θ'"),
    (Unstable, "identity", r"made of the same fields by the constructor, Unstable\(n=6\) isn't equal"),
    (EqualToAll, "identity", "it is equal to an object that isn't a problem"),
    (ByIdentity, "identity", "isn't equal"),
    (Nameless, "identity", "repr must be one line with the class's name"),
    (Settable, "immutable", "the attribute 'n' can be set"),
    (Writeable, "immutable", "an array of 'weights' can be written to"),
    (FlatStates, "states", r"iterate_states yields an array of shape \(2, 2\), not \(4,\)"),
    (NegativeZeros, "states", "a state has a negative zero"),
    (Shuffled, "states", "a second enumeration gives other states or another order"),
    (Crashing, "states", "it raises IndexError: no such item"),
    (TightBox, "bounds", r"the state \[1, 0, 0, 1\] lies outside the box"),
    (SmallReach, "bounds", "largest is 0.5, but a coordinate of a state is 1"),
    (WrongSum, "constant_sums", r"adds up to 3 along the axes \(0,\), but the state \[1, 1, 0, 0\] adds up to \[2\]"),
    (NegativeAxis, "constant_sums", r"tuples of distinct axes from 0 to 0 as keys, got \(-1,\)"),
    (NoSum, "constant_sums", r"finite numbers as values, got 'two' for the axes \(0,\)"),
    (AlwaysTrue, "contains", r"contains accepts \[0, 0, 0, 0\], which iterate_states doesn't list"),
    (AlmostAlwaysTrue, "contains", "contains accepts"),
    (NeverTrue, "contains", r"contains rejects \[1, 1, 0, 0\], which iterate_states lists"),
    (LooseBox, "contains", r"contains accepts \[1.25, 1, 0, 0\]"),
    (WriteZ, "contains", "contains writes to what it is asked about"),
    (Incomplete, "contains", r"contains accepts \[0, 0, 1, 1\]"),
    (HighKappa, "kappa", "kappa is 40, but the states have 2 ones on average"),
    (LowKappa, "kappa", "kappa is 0.1"),
    (ShortValues, "completion", "completion_values must give 6 finite numbers"),
    (OtherProgram, "program", "and that isn't a state"),
    (LooseProgram, "program", r"repair makes \[0, 0, 0, 0\] of the solution \[0, 0, 0, 0\], and that isn't a state"),
    (TightProgram, "program", "the best state is worth .*, but the program's best solution"),
    (BadRepair, "program", "repair makes the solution .* worse"),
    (NoProgram, "program", "to_ilp gives a KSubset, not an IntegerProgram"),
    (WrongDomain, "program", "the best state is worth .*, but the program's best solution"),
]


@pytest.mark.parametrize(("faulty", "law", "message"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_each_fault_breaks_its_law(faulty, law, message):
    with pytest.raises(mapgrad.ConformanceError, match=f"{faulty.__name__}|a set") as caught:
        check_problem(faulty())
    assert caught.value.law == f"problem_{law}"
    assert f"breaks the law 'problem_{law}'" in str(caught.value)
    caught.match(message)


def test_every_law_is_broken_by_something():
    assert {f"check_problem_{law}" for _, law, _ in FAULTS} == {law.__name__ for law in PROBLEM_LAWS}
    assert outcomes(Pairs())  # which has no fault


def test_near_misses_are_tried_in_a_large_box():
    assert check_problem(Pairs(20))
    for faulty in (AlwaysTrue(20), AlmostAlwaysTrue(20)):
        with pytest.raises(mapgrad.ConformanceError, match="contains accepts"):
            check_problem(faulty)


class Silent(Pairs):
    iterate_states = Problem.iterate_states


def test_without_an_enumeration_laws_say_what_they_leave_out():
    found = outcomes(Silent())
    assert {name for name, outcome in found.items() if not outcome.applies} == {"problem_states", "problem_contains"}
    assert found["problem_contains"].reasons == (
        "Silent(n=4) can't be enumerated, as Silent doesn't implement iterate_states",
    )
    far = outcomes(Silent(40))
    assert [name for name, outcome in far.items() if outcome.applies] == [
        "problem_attributes", "problem_identity", "problem_immutable",
    ]  # fmt: skip
    assert "more than 8,192 integer points in its box" in far["problem_bounds"].reasons[0]


class Native(Pairs):
    to_ilp = Problem.to_ilp


def test_a_problem_without_a_program_says_so():
    assert outcomes(Native())["problem_program"].reasons == ("Native stands for no integer program",)


def test_too_many_states_are_refused():
    with pytest.raises(mapgrad.ProblemError, match="more than 100,000 states"):
        check_problem(KSubset(40, 20))
