"""What a class of problems gets from `Problem`, and what is said to an author who forgets something."""

from __future__ import annotations

import copy
import enum
import pickle
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch

from mapgrad.errors import ProblemError, ShapeError, UnsupportedProblemError
from mapgrad.problems import KSubset, Problem


class Weekday(enum.Enum):
    MONDAY = 0
    TUESDAY = 1


class Cover(Problem):
    """0/1 vectors whose weights sum up to something positive."""

    kappa = 1.0

    def __init__(self, weights, *, tags=(), day=Weekday.MONDAY, inner=None, bound=0.0):
        self.weights = np.asarray(weights, dtype=np.float64)
        self.tags = tags
        self.day = day
        self.inner = inner
        self.bound = bound

    @property
    def shape(self):
        return self.weights.shape

    def is_state(self, z):
        return z @ self.weights > self.bound

    @cached_property
    def twice(self):
        return 2 * self.weights


class Halved(Cover):
    """A subclass of a subclass, with arguments of its own."""

    def __init__(self, weights, divisor):
        super().__init__(np.asarray(weights) / divisor)
        self.weights, self.divisor = np.asarray(weights, dtype=np.float64), divisor


class Renamed(Cover):
    pass


@dataclass(frozen=True, eq=False, repr=False)
class Plain(Problem):
    n: int
    kappa = 1.0

    @property
    def shape(self):
        return (self.n,)


MANY = [
    Cover([1, 2]),
    Cover([1, 3]),
    Cover([1, 2], tags=("a",)),
    Cover([1, 2], tags=("a", "b")),
    Cover([1, 2], tags=("ab",)),
    Cover([1, 2], tags=(("a",), "b")),
    Cover([1, 2], tags=frozenset("ab")),
    Cover([1, 2], tags=(np.arange(3),)),
    Cover([1, 2], tags=(np.arange(3.0),)),
    Cover([1, 2], day=Weekday.TUESDAY),
    Cover([1, 2], inner=KSubset(3, 1)),
    Cover([1, 2], inner=KSubset(3, 2)),
    Cover([1, 2], bound=1),
    Renamed([1, 2]),
    Halved([1, 2], 2),
    Halved([1, 2], 4),
    Plain(2),
    Plain(3),
]


def test_different_content_is_different():
    assert len(set(MANY)) == len({problem.digest for problem in MANY}) == len(MANY)


@pytest.mark.parametrize("problem", MANY, ids=map(str, range(len(MANY))))
def test_copies_and_pickles_are_equal(problem):
    for twin in (pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem), copy.copy(problem)):
        assert type(twin) is type(problem)
        assert twin == problem
        assert (hash(twin), twin.digest, repr(twin)) == (hash(problem), problem.digest, repr(problem))


def test_fields_are_the_constructor_s_arguments():
    assert Cover.fields == Cover([1]).fields == Renamed.fields == ("weights", "tags", "day", "inner", "bound")
    assert Halved.fields == ("weights", "divisor")
    assert Plain.fields == ("n",)
    assert Problem.fields == ()
    assert repr(Halved([1, 2], 2)) == "Halved(weights=[1.0, 2.0], divisor=2)"


def test_arrays_are_read_only_copies_and_numbers_python_s():
    given, part = np.array([1.0, 2.0]), np.zeros(2)
    problem = Cover(given, tags=(part,), bound=np.float64(0))
    given[0] = part[0] = 7
    assert problem == Cover([1, 2], tags=(np.zeros(2),))
    for array in (problem.weights, problem.tags[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3
    assert type(problem.bound) is float


def test_an_array_that_nobody_can_change_is_kept():
    frozen = KSubset(3, 1).box[0]
    assert Cover([1], tags=(frozen,)).tags[0] is frozen
    view = np.arange(3.0)[:2]
    view.setflags(write=False)
    assert Cover([1], tags=(view,)).tags[0] is not view


def test_nothing_can_be_set_once_a_problem_is_made():
    problem = Cover([1, 2])
    assert problem.twice.tolist() == [2, 4]  # but what is computed is kept
    for name in ("weights", "twice", "anything"):
        with pytest.raises(AttributeError, match=f"Cover is immutable: make a new one instead of setting '{name}'"):
            setattr(problem, name, 1)
    with pytest.raises(AttributeError, match="Cover is immutable: 'weights' can't be deleted"):
        del problem.weights


@pytest.mark.parametrize("arguments", ["*weights", "**options", "weights, /"])
def test_a_constructor_must_name_its_arguments(arguments):
    namespace = {}
    exec(f"def __init__(self, {arguments}): pass", namespace)
    message = "Odd.__init__ must name each of its arguments, by which Odd objects are compared and pickled"
    with pytest.raises(TypeError, match=re.escape(message) + ".*write def __init__"):
        type(Problem)("Odd", (Problem,), {"__init__": namespace["__init__"]})


def test_a_problem_has_no_new():
    with pytest.raises(TypeError, match="Odd must take its arguments in __init__, but defines __new__"):

        class Odd(Problem):
            def __new__(cls, n):
                return super().__new__(cls)


def test_a_forgotten_argument_is_named():
    class Forgetful(Cover):
        def __init__(self, weights, limit):
            super().__init__(weights)

    message = "Forgetful.__init__ takes 'limit' and must keep it as an attribute of that name.*write self.limit = limit"
    with pytest.raises(TypeError, match=message):
        Forgetful([1], 2)


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, {1}, object(), torch.zeros(2), (1, [2]), np.array([object()]), np.longdouble(1)],
    ids=lambda value: type(value).__name__,
)
def test_what_may_change_is_refused(value):
    with pytest.raises(TypeError, match=r"Cover keeps 'tags' as .*keep numbers, strings"):
        Cover([1], tags=value)


def test_enumeration_and_program_are_optional():
    problem = Cover([1, -2])
    assert problem.states().tolist() == [[1, 0]]
    assert problem.contains(torch.tensor([[0, 0], [1, 0]])).tolist() == [False, True]
    with pytest.raises(UnsupportedProblemError, match="stands for no integer program"):
        problem.to_ilp()


def test_only_a_small_box_of_integers_is_enumerated_by_itself():
    class Shares(Cover):
        def in_box(self, z):
            return ((z >= 0) & (z <= 1)).all(axis=1)

    for problem in (Cover(np.ones(17)), Shares([1, 2])):
        for call in (problem.states, problem.state_rows, problem.iterate_states):
            with pytest.raises(
                UnsupportedProblemError,
                match=r"can't be enumerated, as (Cover|Shares) doesn't implement iterate_states and its box hasn't at "
                "most 8,192 points, all integer",
            ):
                call()


def test_arrays_get_the_answers_of_tensors(problem):
    rows = problem.state_rows()
    assert rows.dtype == np.float64
    assert np.array_equal(rows, problem.states().numpy())
    assert all(np.array_equal(a, b) and not a.flags.writeable for a, b in zip(problem.box, problem.bounds, strict=True))
    rows[0, ...] += 0.25
    for z in (rows, rows[:0], rows[0], rows[None]):
        assert np.array_equal(problem.contains_rows(z), problem.contains(torch.as_tensor(z)).numpy())
    assert problem.contains_rows(rows[0].tolist()).shape == ()
    with pytest.raises(ShapeError, match="z has shape"):
        problem.contains_rows(rows[..., :-1])
    assert problem.completion_values(problem.state_rows()).tolist() == [0] * len(rows)


def test_a_budget_bounds_an_enumeration():
    budget = KSubset(3, 1).enumeration_budget()
    budget.spend(10_000_000)
    with pytest.raises(ProblemError, match="takes more than 10,000,000 steps to enumerate"):
        budget.spend()


def test_a_set_is_shown_in_one_order():
    names = [str(number) for number in range(40)]
    first, second = (Cover([1], tags=frozenset(each)) for each in (names, reversed(names)))
    assert repr(first) == repr(second)
    assert "frozenset({'0', '1', '10'" in repr(first)
