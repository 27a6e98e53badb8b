"""Every law on problems is kept by all of ours, and broken by the problem that has the fault."""

import pickle
from functools import cached_property

import numpy as np
import pytest

import mapgrad
from mapgrad.problems import Domain, IntegerProgram, KSubset, Problem, _program
from mapgrad.problems._arrays import frozen_array
from mapgrad.testing import BruteForce, example_problems
from mapgrad.testing._problem_laws import (
    PROBLEM_LAWS,
    check_problem,
    check_problem_contains,
    check_problem_states,
)

EXAMPLES = example_problems(mapgrad.SolverSpec(name="any", factory=BruteForce, accepts=(Problem,)))


def outcomes(problem):
    return {outcome.law: outcome for outcome in check_problem(problem)}


@pytest.mark.parametrize("problem", EXAMPLES, ids=lambda problem: type(problem).__name__)
def test_our_problems_keep_every_law(problem):
    found = outcomes(problem)
    assert list(found) == [law.__name__.removeprefix("check_") for law in PROBLEM_LAWS]
    skipped = {name for name, outcome in found.items() if not outcome.applies}
    assert skipped <= {"problem_kappa", "problem_constant_sums"}  # of sets that aren't 0/1, or have none


@pytest.mark.parametrize("forgotten", ["semicontinuous", "sos", "indicators"])
def test_a_program_is_told_by_its_features(forgotten, monkeypatch):
    (program,) = (each for each in EXAMPLES if isinstance(each, IntegerProgram) and len(each.features) == 3)
    names = [name for name in _program._STRUCTURE if name != forgotten]
    monkeypatch.setattr(_program, "_STRUCTURE", names)
    with pytest.raises(mapgrad.ConformanceError) as broken:
        check_problem(pickle.loads(pickle.dumps(program)))  # without its structure's digest
    assert broken.value.law == "problem_fields"


def test_programs_may_have_rows_without_sides():
    check_problem(IntegerProgram(A_ub=[[1, 2], [2, 1]], b_ub=[2, 3]).replace(b_ub=[np.inf, 2]))


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


def box_of(*bounds):
    return tuple(frozen_array(bound, np.float64) for bound in bounds)


class TightBox(Pairs):
    box = box_of([0, 0, 0, 0], [1, 1, 1, 0])


class ForgottenBox(Problem):
    """Numbers from 0 to 3 of four things, six in all, in a box that is left to be that of sets."""

    shape, kappa = (4,), 2.0

    def are_states(self, z):
        return z.sum(axis=1) == 6

    def to_ilp(self):
        return IntegerProgram(A_eq=np.ones((1, 4)), b_eq=[6], upper=3)


class NarrowBox(ForgottenBox):
    """As above, in a box that holds some of the states."""

    box = box_of([0] * 4, [3, 3, 3, 1])


class Exits(Pairs):
    def are_states(self, z):
        raise SystemExit(3)


class EndsTheGenerator(Pairs):
    def to_ilp(self):
        raise GeneratorExit


class WideBox(Pairs):
    box = box_of([-100] * 4, [1] * 4)

    def are_states(self, z):
        return super().are_states(z) & np.isin(z, (0, 1)).all(axis=1)


class SharedBox(Pairs):
    box = np.zeros(4), np.ones(4)


class WriteableCache(Pairs):
    @cached_property
    def weights(self):
        return np.ones(self.n)


class KeepsList(Pairs):
    def __init__(self, n=4):
        super().__init__(n)
        self.items = [*range(n)]


class RaisingRepr(Pairs):
    def __repr__(self):
        raise ZeroDivisionError


class LosingPickle(Pairs):
    def __init__(self, n=4, name="pairs"):
        super().__init__(n)
        self.name = name

    def __reduce__(self):
        return LosingPickle, (self.n, "none")


class Named(Pairs):
    def __init__(self, n=4, name="pairs"):
        super().__init__(n)
        self.name = name


class ShortDigest(Named):
    @property
    def digest(self):
        return f"{self.n}"


class ShortEquality(Named):
    def __eq__(self, other):
        return type(other) is type(self) and other.n == self.n

    __hash__ = Named.__hash__


class SameDigest(Named):
    """A digest without a field, beside an equality with it."""

    digest = ShortDigest.digest

    def __eq__(self, other):
        return type(other) is type(self) and (other.n, other.name) == (self.n, self.name)

    __hash__ = Named.__hash__


class Rich(Pairs):
    def __init__(self, n=4, *, weights=(1.0, 2.0), kind=Domain.REAL, tags=frozenset("ab"), inner=None, matrix=None):
        super().__init__(n)
        self.weights, self.kind, self.tags = weights, kind, tags
        self.inner = KSubset(3, 1) if inner is None else inner
        self.matrix = np.arange(6.0).reshape(2, 3) if matrix is None else matrix


def without(name):
    """Return a class whose digest leaves one field out."""

    def digest(self):
        return repr([(field, repr(getattr(self, field))) for field in self.fields if field != name])

    cls = type(Rich)(f"Without_{name}", (Rich,), {"digest": property(digest), "__module__": __name__})
    globals()[cls.__name__] = cls  # for pickle
    return cls


class LyingRepr(Pairs):
    def __repr__(self):
        return "LyingRepr(n=4)"


class HiddenSize(Problem):
    """All sets of items; keeps another number of them than it was given, and goes by a hidden one."""

    kappa = 2.0

    def __init__(self, n=4):
        self.n = 3
        self._size = n

    @property
    def shape(self):
        return (self._size,)

    def is_state(self, z):
        return True


class HiddenCount(KSubset):
    """What it holds isn't told by its fields: each one that is made has another κ."""

    made = 0

    def __init__(self, n=4):
        super().__init__(n, 2)
        HiddenCount.made += 1
        self._kappa = 2.0 + HiddenCount.made % 7 / 10

    @property
    def kappa(self):
        return self._kappa


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


class AlmostWhole(Pairs):
    """Rounds what is nearly whole."""

    def in_box(self, z):
        whole = np.where(np.isfinite(z), z, -1).round()
        return (np.abs(z - whole) < 0.01).all(axis=1) & super().in_box(whole)

    def are_states(self, z):
        return super().are_states(z.round())


class WriteZ(Pairs):
    def in_box(self, z):
        z[:] = z.round()
        return super().in_box(z)


class Incomplete(Pairs):
    def iterate_states(self):
        return (state for state in super().iterate_states() if state[0])


class NoNumberKappa(Pairs):
    kappa = float("nan")


class NegativeKappa(Pairs):
    kappa = -2.0


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


class EmptyProgram(Pairs):
    def to_ilp(self):
        return IntegerProgram(A_eq=np.ones((2, self.n)), b_eq=[2, 1])


class AllSets(Problem):
    """All sets of eight items; a program with a row too many lacks one of the 256."""

    shape, kappa = (8,), 4.0

    def are_states(self, z):
        return np.ones(len(z), dtype=np.bool_)

    def iterate_states(self):
        yield from np.stack(np.meshgrid(*[(0.0, 1.0)] * 8), axis=-1).reshape(-1, 8)

    def to_ilp(self):
        return IntegerProgram(upper=np.ones(8))


class RowTooMany(AllSets):
    def to_ilp(self):
        one = np.array([1, 0, 1, 1, 0, 0, 1, 0])
        return IntegerProgram(A_ub=[2 * one - 1], b_ub=[3])


class RareRepair(AllSets):
    """Spoils one solution of 256, which is never the best of those at a few random θ."""

    def repair(self, z):
        spoiled = z.copy()
        spoiled[z @ 2 ** np.arange(8) == 77] = 0
        return spoiled


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
    (NoNumberKappa, "attributes", "kappa must be a positive float, got nan"),
    (NegativeKappa, "attributes", "kappa must be a positive float, got -2.0"),
    (NoDomain, "attributes", "domain must be a mapgrad.Domain, got 'every θ'"),
    (Unstable, "identity", r"made of the same fields by the constructor, Unstable\(n=6\) isn't equal"),
    (EqualToAll, "identity", "it is equal to an object that isn't a problem"),
    (ByIdentity, "identity", "isn't equal"),
    (Nameless, "identity", "repr must be one line with the class's name"),
    (RaisingRepr, "identity", "a RaisingRepr .* raises ZeroDivisionError"),
    (LosingPickle, "identity", r"made of the same fields by pickle, LosingPickle\(n=4, name='none'\) isn't equal"),
    (Settable, "immutable", "the attribute 'n' can be set"),
    (Writeable, "immutable", "what 'weights' holds can be changed: freeze it"),
    (WriteableCache, "immutable", "what 'weights' holds can be changed"),
    (SharedBox, "immutable", "what 'box' holds can be changed"),
    (KeepsList, "immutable", "what 'items' holds can be changed: freeze it, or keep a tuple"),
    (FlatStates, "states", r"iterate_states yields an array of shape \(2, 2\), not \(4,\)"),
    (NegativeZeros, "states", "a state has a negative zero"),
    (Shuffled, "states", "a second enumeration gives other states or another order"),
    (Crashing, "states", "it raises IndexError: no such item"),
    (TightBox, "bounds", r"the state \[1, 0, 0, 1\] lies outside the box"),
    (ForgottenBox, "bounds", r"\], a solution of to_ilp, isn't within box 0\.\.1: give the problem a box"),
    (NarrowBox, "bounds", r"\], a solution of to_ilp, isn't within box 0\.\.\[3, 3, 3, 1\]: "),
    (Exits, "contains", "it raises SystemExit: 3"),
    (EndsTheGenerator, "program", "it raises GeneratorExit"),
    (SmallReach, "bounds", "largest is 0.5, but a coordinate of a state is 1"),
    (WideBox, "bounds", "the box reaches to 100, but no coordinate of a state beyond 1: tighten it"),
    (WrongSum, "constant_sums", r"adds up to 3 along the axes \(0,\), but the state \[1, 1, 0, 0\] adds up to \[2\]"),
    (NegativeAxis, "constant_sums", r"tuples of distinct axes from 0 to 0 as keys, got \(-1,\)"),
    (NoSum, "constant_sums", r"finite numbers as values, got 'two' for the axes \(0,\)"),
    (AlwaysTrue, "contains", r"contains accepts \[0, 0, 0, 0\], which iterate_states doesn't list"),
    (AlmostAlwaysTrue, "contains", "contains accepts"),
    (NeverTrue, "contains", r"contains rejects \[1, 1, 0, 0\], which iterate_states lists"),
    (LooseBox, "contains", r"contains accepts \[1.25, 1, 0, 0\]"),
    (AlmostWhole, "contains", r"contains accepts \[1.001, 1, 0, 0\]"),
    (WriteZ, "contains", "contains writes to what it is asked about"),
    (Incomplete, "contains", r"contains accepts \[0, 0, 1, 1\]"),
    (HighKappa, "kappa", "kappa is 40, but the states have 2 ones on average"),
    (LowKappa, "kappa", "kappa is 0.1"),
    (ShortValues, "completion", "completion_values must give 6 finite numbers"),
    (OtherProgram, "program", "and that isn't a state"),
    (LooseProgram, "program", r"repair makes \[0, 0, 0, 0\] of the solution \[0, 0, 0, 0\], and that isn't a state"),
    (TightProgram, "program", "the best state, .*, is worth .*, but the program's best solution, .*, is worth"),
    (EmptyProgram, "program", "its program has no solution"),
    (
        RowTooMany,
        "program",
        r"at θ = \[1, -1, .* the best state, \[1, 0, 1, 1, 0, 0, 1, 0\], is worth 4, .*\], is worth 3",
    ),
    (BadRepair, "program", "repair makes the solution .* worse for some θ of the domain: it becomes"),
    (RareRepair, "program", r"solution \[1, 0, 1, 1, 0, 0, 1, 0\] worse for some θ of the domain: it becomes \[0, 0"),
    (NoProgram, "program", "to_ilp gives a KSubset, not an IntegerProgram"),
    (WrongDomain, "program", "the best state, .*, is worth .*, but the program's best solution, .*, is worth"),
    (ShortDigest, "fields", "can't be told from one with name='pairs_' in place of 'pairs': they are equal"),
    (ShortEquality, "fields", "can't be told from one with name='pairs_' in place of 'pairs': they are equal"),
    (SameDigest, "fields", "its digest doesn't tell it from one with name='pairs_' in place of 'pairs'"),
    (LyingRepr, "fields", "its repr doesn't tell it from one with n=5 in place of 4"),
    (HiddenSize, "fields", r"made of the same fields by the constructor, it has another shape: \(3,\), not \(4,\)"),
    (HiddenCount, "fields", "made of the same fields by the constructor, it has another kappa"),
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


@pytest.mark.parametrize("name", Rich.fields)
def test_a_digest_without_a_field_of_any_kind_is_found(name):
    assert check_problem(Rich())
    with pytest.raises(mapgrad.ConformanceError, match=f"can't be told from one with {name}="):
        check_problem(without(name)())


def test_a_field_may_be_no_number():
    assert check_problem(Rich(weights=float("nan"), matrix=np.full((2, 2), np.nan)))


def test_near_misses_are_tried_in_a_large_box():
    assert check_problem(Pairs(20))
    for faulty in (AlwaysTrue(20), AlmostAlwaysTrue(20)):
        with pytest.raises(mapgrad.ConformanceError, match="contains accepts"):
            check_problem(faulty)


class Silent(Pairs):
    iterate_states = Problem.iterate_states


def test_without_an_enumeration_the_program_stands_for_it():
    assert all(outcome.applies for outcome in outcomes(Silent(4)).values())  # its box is small
    far = {name: outcome for name, outcome in outcomes(Silent(40)).items() if not outcome.applies}
    assert [*far] == ["problem_states"]
    assert "as Silent doesn't implement iterate_states and its box hasn't" in far["problem_states"].reasons[0]


class Shelf(Problem):
    """Shares of a shelf, at most 1 in all and .5 each: continuous, so that nobody can enumerate them."""

    kappa = 1.0
    box = box_of([0] * 5, [0.5] * 5)

    def __init__(self, length=1.0):
        self.length = length

    shape = (5,)

    def in_box(self, z):
        lower, upper = self.box
        return ((z >= lower - 1e-9) & (z <= upper + 1e-9)).all(axis=1)

    def is_state(self, z):
        return z.sum() <= self.length + 1e-9

    def to_ilp(self):
        return IntegerProgram(A_ub=np.ones((1, 5)), b_ub=[self.length], upper=0.5, integrality=0)


class LongShelf(Shelf):
    def is_state(self, z):
        return z.sum() <= 0.9


class AlwaysTrueToo(Silent):
    are_states = AlwaysTrue.are_states


class NeverTrueToo(Silent):
    are_states = NeverTrue.are_states


class NotTheFirstToo(Silent):
    """Refuses what its program, which forgets a row, may choose."""

    def are_states(self, z):
        return super().are_states(z) & ~z[:, :2].all(axis=1)


class AtMost(Problem):
    """At most 20 of 30 items, which are too many sets to enumerate; its program allows another number of them."""

    shape, kappa = (30,), 10.0

    def __init__(self, allowed):
        self.allowed = allowed

    def are_states(self, z):
        return z.sum(axis=1) <= 20

    def to_ilp(self):
        return IntegerProgram(A_ub=np.ones((1, 30)), b_ub=[self.allowed])


class RowTooManyToo(Silent):
    def to_ilp(self):
        first = np.arange(self.n) < 2
        return IntegerProgram(A_ub=[first], b_ub=[1], A_eq=np.ones((1, self.n)), b_eq=[2])


class LowKappaToo(Silent):
    kappa = 0.1


class WrongSumToo(Silent):
    constant_sums = {(0,): 3.0}  # noqa: RUF012 (as an author may write it)


class TightBoxToo(Silent):
    box = box_of(np.zeros(20), np.arange(20) > 0)


class LooseBoxToo(Silent):
    in_box = LooseBox.in_box

    def are_states(self, z):
        return super().are_states(z.round())


@pytest.mark.parametrize(
    ("faulty", "law", "message"),
    [
        (AlwaysTrueToo, "program", "the best state, .*, is worth .*, but the program's best solution, .*, is worth"),
        (NeverTrueToo, "contains", "contains rejects .*, which is a solution of its program"),
        (
            NotTheFirstToo,
            "program|contains",
            "of the solution .*, and that isn't a state|which is a solution of its program",
        ),
        (RowTooManyToo, "program", "the best state, .*, is worth 2, but the program's best solution"),
        (LowKappaToo, "kappa", "kappa is 0.1"),
        (WrongSumToo, "constant_sums", "adds up to 3 along"),
        (TightBoxToo, "bounds", "lies outside the box"),
        (LooseBoxToo, "program", "contains accepts .*, which lies outside the box"),
        (LongShelf, "contains", "contains rejects"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_shows_without_an_enumeration(faulty, law, message):
    faulty = faulty(20) if issubclass(faulty, Silent) else faulty()
    with pytest.raises(mapgrad.ConformanceError, match=message) as caught:
        check_problem(faulty)
    assert caught.value.law in {f"problem_{each}" for each in law.split("|")}  # by which solver "auto" takes


@pytest.mark.parametrize(
    ("allowed", "law", "message"),
    [
        (19, "program", "is worth 20, but .* is worth 19"),
        (21, "contains", "contains rejects .* solution of"),
    ],
)
def test_a_program_that_is_off_by_one_far_from_most_optima_is_found(allowed, law, message):
    with pytest.raises(mapgrad.ConformanceError, match=message) as caught:
        check_problem(AtMost(allowed))
    assert caught.value.law == f"problem_{law}"


def test_ctrl_c_goes_through_a_law():
    class Interrupted(Pairs):
        def are_states(self, z):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_problem_contains(Interrupted())


def test_a_problem_without_a_state_is_no_fault_of_its_box():
    class Empty(ForgottenBox):
        def are_states(self, z):
            return z.sum(axis=1) < 0

        def to_ilp(self):
            return EmptyProgram().to_ilp()

    with pytest.raises(mapgrad.InfeasibleError):
        check_problem_states(Empty())


def test_continuous_sets_are_checked_at_what_their_program_s_solver_finds():
    skipped = {name for name, outcome in outcomes(Shelf()).items() if not outcome.applies}
    assert skipped == {"problem_states", "problem_kappa", "problem_constant_sums"}


def test_without_a_solver_that_takes_the_program_laws_say_so(monkeypatch):
    def refuse(*_):
        raise mapgrad.UnsupportedProblemError("none is installed")

    monkeypatch.setattr("mapgrad.testing._problem_law.get_solver", refuse)
    found = outcomes(Silent(40))
    reason = found["problem_bounds"].reasons[0]
    assert reason.endswith(
        "its box hasn't at most 8,192 points, all integer, and no solver takes its program: none is installed"
    )
    applied = [name for name, outcome in found.items() if outcome.applies]
    assert applied == [
        "problem_attributes", "problem_identity", "problem_immutable", "problem_program", "problem_fields",
    ]  # fmt: skip


class Native(Pairs):
    to_ilp = Problem.to_ilp


def test_a_problem_without_a_program_says_so():
    assert outcomes(Native())["problem_program"].reasons == ("Native stands for no integer program",)


def test_too_many_states_are_refused():
    with pytest.raises(mapgrad.ProblemError, match="more than 100,000 states"):
        check_problem(KSubset(40, 20))
