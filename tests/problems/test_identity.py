"""Problems are values: equal by content, in every process, and never changed."""

from __future__ import annotations

import base64
import copy
import inspect
import itertools
import os
import pickle
import pydoc
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix, csr_array

from mapgrad.problems import (
    Arborescence,
    Assignment,
    AsymmetricTravelingSalesman,
    GridShortestPath,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    Problem,
    Ranking,
    ShortestPath,
    SpanningTree,
    SparseRows,
    TravelingSalesman,
)

EDGES = [(0, 1), (1, 2), (2, 3), (3, 0)]


@pytest.mark.parametrize(
    "spellings",
    [
        [KSubset(6, 2), KSubset(n=6, k=2), KSubset(np.int64(6), np.uint8(2))],
        [Ranking(3), Ranking(n=3), Ranking(np.int32(3))],
        [Assignment(3), Assignment(3, 3), Assignment(rows=3, cols=np.int64(3))],
        [
            GridShortestPath(3, 4),
            GridShortestPath(3, 4, start=(0, 0), goal=(2, 3), neighbors=8),
            GridShortestPath(np.int64(3), 4, start=[0, 0], goal=np.array([2, 3]), neighbors=np.int8(8)),
        ],
        [
            ShortestPath(4, EDGES, 0, 3),
            ShortestPath(4, np.array(EDGES, dtype=np.uint8), np.int64(0), 3, directed=np.bool_(True)),
            ShortestPath(num_nodes=4, edges=torch.tensor(EDGES), source=0, target=3, directed=True),
        ],
        [
            Matching(4, EDGES),
            Matching(4, [list(edge) for edge in EDGES], perfect=False),
            Matching(4, iter(EDGES), cardinality=None),
        ],
        [Matching(4, EDGES, perfect=True), Matching(4, EDGES, perfect=True, cardinality="maximum")],
        [Arborescence(4, EDGES, 0), Arborescence(num_nodes=4, arcs=np.array(EDGES), root=np.int64(0))],
        [
            SpanningTree(4, EDGES),
            SpanningTree(4, torch.tensor(EDGES, dtype=torch.int32)),
            SpanningTree(4, np.asfortranarray(EDGES)),
            SpanningTree(4, nx.DiGraph(EDGES).edges),
        ],
        [
            Knapsack([[1, 2, 0]], [3]),
            Knapsack([1, 2, -0.0], 3),
            Knapsack(torch.tensor([[1.0, 2, 0]]), np.array([3], dtype=np.int8)),
        ],
        [TravelingSalesman(4), TravelingSalesman(n=np.int64(4))],
        [AsymmetricTravelingSalesman(4), AsymmetricTravelingSalesman(n=np.int64(4))],
        [
            IntegerProgram(A_ub=[[1, 0, 2], [0, 3, 0]], b_ub=[4, 5]),
            IntegerProgram(A_ub=[[1, -0.0, 2], [0, 3, 0]], b_ub=[4.0, 5], lower=[0, -0.0, 0], upper=[1, 1, 1]),
            IntegerProgram(A_ub=np.array([[1, 0, 2], [0, 3, 0]], dtype=np.float32), b_ub=(4, 5), integrality=True),
            IntegerProgram(A_ub=torch.tensor([[1, 0, 2], [0, 3, 0]]), b_ub=torch.tensor([4, 5]), decision=range(3)),
            IntegerProgram(A_ub=csr_array([[1, 0, 2], [0, 3, 0]]), b_ub=[4, 5], fixed=[], shape=[3]),
            IntegerProgram(A_ub=coo_matrix(([1, 1, 1, 3, 0], ([0, 0, 0, 1, 1], [0, 2, 2, 1, 2]))), b_ub=[4, 5]),
            IntegerProgram(A_ub=SparseRows([2, 1, 3], [2, 0, 1], [0, 2, 3], (2, 3)), b_ub=[4, 5], shape=3),
            IntegerProgram(A_ub=[[1, 0, 2], [7, 7, 7], [0, 3, 0]], b_ub=[4, np.inf, 5], lower=-0.3, upper=1.9),
            IntegerProgram(A_ub=[[1, 0, 2], [0, 3, 0]], b_ub=[4, 5], A_eq=np.empty((0, 3)), b_eq=[]),
        ],
    ],
    ids=lambda spellings: type(spellings[0]).__name__,
)
def test_every_spelling_of_a_problem_is_one_problem(spellings: list[Problem]) -> None:
    assert len(set(spellings)) == 1
    assert len({problem.digest for problem in spellings}) == 1
    assert all(a == b for a, b in itertools.combinations(spellings, 2))
    assert len({repr(problem) for problem in spellings}) == 1


DISTINCT = [
    KSubset(6, 2),
    KSubset(6, 3),
    KSubset(7, 2),
    Ranking(6),
    Ranking(2),
    Assignment(2, 3),
    Assignment(3, 2),
    Assignment(3),
    GridShortestPath(3, 4),
    GridShortestPath(4, 3),
    GridShortestPath(3, 4, neighbors=4),
    GridShortestPath(3, 4, start=(1, 0)),
    GridShortestPath(3, 4, goal=(1, 3)),
    ShortestPath(4, EDGES, 0, 3),
    ShortestPath(5, EDGES, 0, 3),
    ShortestPath(4, EDGES[::-1], 0, 3),
    ShortestPath(4, EDGES, 0, 3, directed=False),
    ShortestPath(4, EDGES, 0, 2),
    ShortestPath(4, EDGES, 1, 3),
    Matching(4, EDGES),
    Matching(4, EDGES, perfect=True),
    Matching(4, EDGES, cardinality="maximum"),
    Matching(4, EDGES[:3]),
    SpanningTree(4, EDGES),
    SpanningTree(4, EDGES[:3]),
    Knapsack([1, 2], 2),
    Knapsack([1, 2], 3),
    Knapsack([2, 1], 2),
    Knapsack([[1, 2], [1, 2]], [2, 2]),
    TravelingSalesman(3),
    TravelingSalesman(4),
    AsymmetricTravelingSalesman(3),
    AsymmetricTravelingSalesman(4),
    Arborescence(4, EDGES, 0),
    Arborescence(4, EDGES, 1),
    Arborescence(4, [*EDGES, (0, 1)], 0),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2]),
    IntegerProgram(A_eq=[[1, 2]], b_eq=[2]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], lower=[0, -1]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], upper=[1, 2]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], integrality=[0, 1]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[0]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[1]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[1], fixed=[3]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[1, 0]),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2], shape=(1, 2)),
    IntegerProgram(A_ub=[[1, 2]], b_ub=[2.5]),
]


def test_different_problems_differ() -> None:
    assert len(set(DISTINCT)) == len(DISTINCT)
    assert len({problem.digest for problem in DISTINCT}) == len(DISTINCT)
    assert len({repr(problem) for problem in DISTINCT}) == len(DISTINCT)
    assert all(a != b for a, b in itertools.combinations(DISTINCT, 2))
    assert KSubset(6, 2) != (6, 2)


def test_pickle_and_copies_keep_identity(problem: Problem) -> None:
    for twin in (pickle.loads(pickle.dumps(problem)), copy.copy(problem), copy.deepcopy(problem)):
        assert type(twin) is type(problem)
        assert twin == problem
        assert hash(twin) == hash(problem)
        assert twin.digest == problem.digest
        assert repr(twin) == repr(problem)
        assert torch.equal(twin.states(), problem.states())


@pytest.mark.parametrize("renew", [lambda p: p, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
@pytest.mark.parametrize("cls", [Matching, SpanningTree, lambda *a: ShortestPath(*a, 0, 3)])
def test_edges_are_a_private_read_only_copy(cls: type, renew: object) -> None:
    given = np.array(EDGES)
    problem = renew(cls(4, given))
    given[:] = 7
    assert problem.edges.dtype == np.int64
    assert problem.edges.tolist() == [list(edge) for edge in EDGES]
    with pytest.raises(ValueError, match="read-only"):
        problem.edges[0, 0] = 2


def test_attributes_can_neither_be_set_nor_deleted(problem: Problem) -> None:
    with pytest.raises(AttributeError, match=f"{type(problem).__name__} is immutable: make a new one instead"):
        problem.anything = 1
    for name in vars(problem):
        with pytest.raises(AttributeError, match=f"immutable: make a new one instead of setting '{name}'"):
            setattr(problem, name, 1)
        with pytest.raises(AttributeError, match=f"immutable: '{name}' can't be deleted"):
            delattr(problem, name)


CHILD = """
import base64, pickle, sys
import numpy as np
for problem in pickle.loads(base64.b64decode(sys.stdin.read())):
    locked = all(not value.flags.writeable for value in vars(problem).values() if isinstance(value, np.ndarray))
    again = type(problem)(**{name: getattr(problem, name) for name in problem.fields})
    print(problem.digest, again == problem, locked, pickle.loads(pickle.dumps(problem)) == problem)
"""


def test_digests_and_read_only_arrays_survive_the_way_to_another_process() -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=base64.b64encode(pickle.dumps(DISTINCT)).decode(),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.splitlines() == [f"{problem.digest} True True True" for problem in DISTINCT]


def test_digests_depend_on_nothing_but_content() -> None:
    assert KSubset(10, 5).digest == "b42a079ce186ca69ec6859cba1c1a75751d31c224c9ddc462f0f59ad0e3f3840"
    assert SpanningTree(4, EDGES).digest == "568cdf0a7b8733805c14226dd0783fb18d9af745aceb10da45773394d1340b19"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (KSubset(6, 2), "KSubset(n=6, k=2)"),
        (Ranking(3), "Ranking(n=3)"),
        (Assignment(2, 3), "Assignment(rows=2, cols=3)"),
        (GridShortestPath(3, 4), "GridShortestPath(height=3, width=4, start=(0, 0), goal=(2, 3), neighbors=8)"),
        (SpanningTree(2, [(0, 1)]), "SpanningTree(num_nodes=2, edges=[[0, 1]])"),
        (Arborescence(2, [(0, 1)], 0), "Arborescence(num_nodes=2, arcs=[[0, 1]], root=0)"),
        (
            ShortestPath(9, np.repeat([(0, 1)], 20, axis=0), 0, 1),
            "ShortestPath(num_nodes=9, edges=<20×2 array>, source=0, target=1, directed=True)",
        ),
        (Knapsack([1, 2], 2), "Knapsack(weights=[[1.0, 2.0]], capacities=[2.0])"),
        (IntegerProgram(A_eq=[[1, 2]], b_eq=[2]), "IntegerProgram(A_eq=[[1.0, 2.0]], b_eq=[2.0])"),
        (IntegerProgram(lower=[0, 0]), "IntegerProgram(lower=[0.0, 0.0])"),
        (
            IntegerProgram(A_ub=np.eye(20), b_ub=np.ones(20), upper=5, decision=[1, 0]),
            "IntegerProgram(A_ub=<20×20 matrix, 20 entries>, b_ub=<20 array>, upper=<20 array>, decision=[1, 0])",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_reads_like_the_constructor(problem: Problem, text: str) -> None:
    assert repr(problem) == text


def test_repr_of_small_problems_builds_them_again(problem: Problem) -> None:
    names = {cls.__name__: cls for cls in map(type, DISTINCT)}
    if ">" not in repr(problem):
        assert eval(repr(problem), names | {"inf": np.inf}) == problem


def test_signatures_are_those_of_the_constructors() -> None:
    class Own(KSubset):
        def __init__(self, n: int, *, k: int = 1) -> None:
            super().__init__(n, k)

    class Inheriting(Own):
        pass

    for cls, text in (
        (KSubset, "(n: 'int', k: 'int')"),
        (Assignment, "(rows: 'int', cols: 'int | None' = None)"),
        (Own, "(n: 'int', *, k: 'int' = 1)"),
        (Inheriting, "(n: 'int', *, k: 'int' = 1)"),
        (Problem, "()"),
    ):
        assert str(inspect.signature(cls)) == text
    for cls in {*map(type, DISTINCT)}:
        assert tuple(inspect.signature(cls).parameters) == cls.fields
    assert "KSubset(n: 'int', k: 'int')" in pydoc.plain(pydoc.render_doc(KSubset))


def test_an_argument_that_there_is_not_gets_its_neighbours() -> None:
    with pytest.raises(TypeError, match=r"^IntegerProgram has no argument 'A_lb': it takes A_ub, .*mean 'A_ub'\?$"):
        IntegerProgram(A_lb=[[1]])  # pyright: ignore[reportCallIssue] (that is the point)
