"""Kinds of executors that plugins have: found by name, with what they are to know after a colon."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

import mapgrad
from mapgrad.errors import MissingDependencyError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Install

ALONE = """
from concurrent.futures import ThreadPoolExecutor
import mapgrad

class Pool(ThreadPoolExecutor):
    made = []

    def __init__(self, text):
        super().__init__(int(text))
        self.made.append(self)

@mapgrad.hookimpl
def mapgrad_executors():
    return [
        mapgrad.ExecutorSpec(name="pool", factory=f"{__name__}:Pool", usage='"acme.pool:2"'),
        mapgrad.ExecutorSpec(
            name="acme", factory=f"{__name__}:Pool", requires=("acme_lib",), install="pip install acme"
        ),
    ]
"""


def is_shut_down(executor: Any) -> bool:
    try:
        executor.submit(int)
    except RuntimeError:
        return True
    return False


def test_a_plugin_with_executors_alone_is_found_and_its_executor_is_ours(install: Install):
    install("acme-executors", {"acme": "acme_alone"}, version="2.1", acme_alone=ALONE)
    assert mapgrad.list_solvers() == []
    theta = torch.rand(5, 4)

    class Best(mapgrad.InstanceSolver[Any, Any]):
        def solve(self, state: Any, theta: Any, request: Any) -> Any:
            return (theta == theta.max()).astype(float)

    with mapgrad.get_solver(Best, mapgrad.KSubset(4, 1), workers="acme.pool:2") as solver:
        import acme_alone

        assert acme_alone.Pool.made == []  # until there are rows
        for number in (1, 2):
            assert torch.equal(solver(theta).argmax(1), theta.argmax(1))
            assert torch.equal(solver(theta).argmax(1), theta.argmax(1))
            assert len(acme_alone.Pool.made) == number
            solver.close()
            assert is_shut_down(acme_alone.Pool.made[-1])


def test_close_while_others_solve_lets_their_rows_finish(install: Install):
    install("acme-executors", {"acme": "acme_alone"}, version="2.1", acme_alone=ALONE)
    begun = threading.Event()

    class Slow(mapgrad.InstanceSolver[Any, Any]):
        def solve(self, state: Any, theta: Any, request: Any) -> Any:
            begun.set()
            time.sleep(0.005)
            return (theta == theta.max()).astype(float)

    theta, answers = torch.rand(60, 4), list[Any]()
    solver = mapgrad.get_solver(Slow, mapgrad.KSubset(4, 1), workers="acme.pool:2", merge=False)
    caller = threading.Thread(target=lambda: answers.append(solver(theta)))
    caller.start()
    assert begun.wait(10)
    solver.close()
    caller.join()
    assert torch.equal(answers[0].argmax(1), theta.argmax(1))
    import acme_alone

    assert is_shut_down(acme_alone.Pool.made[-1])


def test_a_name_that_there_is_not_is_told_of_those_that_there_are(install: Install):
    install("acme-executors", {"acme": "acme_alone"}, version="2.1", acme_alone=ALONE)
    with pytest.raises(
        MissingDependencyError, match=r"^acme \(acme-executors 2\.1\) needs acme_lib, .*: pip install acme"
    ):
        mapgrad.Workers("acme:2")
    for wrong in ("acme.cluster:2", "nobody:3", "acme.pol"):
        with pytest.raises(
            ValueError,
            match=rf"""got '{wrong}'; there are acme \(needs acme_lib, which isn't installed: pip install acme\), """
            r'"acme.pool:2" \(installed\)',
        ):
            mapgrad.Workers(wrong)


@pytest.fixture
def register() -> Iterator[Any]:
    def register_factory(factory: Any, **fields: Any) -> None:
        @mapgrad.hookimpl
        def mapgrad_executors() -> Any:
            return [mapgrad.ExecutorSpec(name="mine", factory=factory, **fields)]

        mapgrad.register(SimpleNamespace(mapgrad_executors=mapgrad_executors), "mine")

    yield register_factory
    with suppress(mapgrad.UnknownSolverError):
        mapgrad.unregister("mine")


def test_what_cannot_be_started_says_why(register: Any):
    def start(text: str) -> Any:
        if text == "object":
            return object()
        if text == "two":
            raise ValueError("a number was expected")
        raise OSError("nobody listens")

    register(start)
    theta = torch.rand(2, 2, 2)
    for text, error, message in (
        ("object", PluginError, "must make a concurrent.futures.Executor, but made <object"),
        ("two", ValueError, "a number was expected"),
        ("host", PluginError, "mine .*can't be started: that raised OSError: nobody listens"),
    ):
        solver = mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(2), workers=f"mine:{text}")
        with pytest.raises(error, match=message):
            solver(theta)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factory": 3}, "factory of executor 'mine' must be \"module:name\" or a function of a text, got 3"),
        ({"factory": "module"}, "factory of executor 'mine' must be"),
        ({"factory": ThreadPoolExecutor, "requires": "ray"}, "requires of executor 'mine' must be a tuple of module"),
        (
            {"factory": ThreadPoolExecutor, "takes": "Pool"},
            "takes of executor 'mine' must be a tuple of names of classes",
        ),
        ({"factory": ThreadPoolExecutor, "usage": None}, "usage of executor 'mine' must be a str, got None"),
    ],
)
def test_specs_that_are_ill_formed_break_their_plugin(register: Any, fields: dict[str, Any], message: str):
    with pytest.raises(PluginError, match=message):
        register(**fields)


def test_an_object_stands_for_the_executor_that_a_plugin_makes_of_it(register: Any):
    class Handle:
        def get_executor(self, **options: Any) -> Any:
            return ThreadPoolExecutor(1)

    class Derived(Handle): ...

    made: list[Any] = []

    def start(handle: Any) -> Any:
        made.append(handle)
        return ThreadPoolExecutor(2)

    register(start, takes=(f"{__name__}.{Handle.__qualname__}",))
    theta = torch.rand(4, 2, 2)
    expected = mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(2))(theta)
    for handle in (Handle(), Derived()):
        made.clear()
        with mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(2), workers=handle) as solver:
            assert made == []  # until there are rows
            assert torch.equal(solver(theta), expected)
        assert made == [handle]
    with pytest.raises(TypeError, match=r"workers must be .* got <object object .*>; there are .*"):
        mapgrad.Workers(cast("Any", object()))


def test_workers_by_name_can_be_pickled(register: Any):
    import pickle

    register(lambda text: ThreadPoolExecutor(int(text)))
    solver = mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(2), workers="mine:2")
    copy = pickle.loads(pickle.dumps(solver))
    theta = torch.rand(4, 2, 2)
    assert torch.equal(copy(theta), solver(theta))
