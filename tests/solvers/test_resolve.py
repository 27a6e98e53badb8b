"""From names, classes, objects and functions to solvers."""

from __future__ import annotations

import inspect
import logging
import math
import pickle
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import mapgrad
from mapgrad.errors import MissingDependencyError, PluginError, UnknownSolverError, UnsupportedProblemError
from mapgrad.problems import Assignment, IntegerProgram, KSubset, Ranking
from mapgrad.solvers import (
    BatchSolver,
    FunctionSolver,
    InstanceSolver,
    SolverSpec,
    Traits,
    hookimpl,
    register,
    require_solver,
    resolve,
)
from mapgrad.solvers._options import COMMON

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from conftest import Install

    from mapgrad.problems import Problem

pytestmark = pytest.mark.usefixtures("install")

PROBLEM = KSubset(4, 2)
COMMON_ONES = " (every solver has workers, on_error, time_limit, deadline, domain, reuse, merge)"


class Exact(InstanceSolver):
    def __init__(self, problem: Problem, *, depth: int = 1) -> None:
        super().__init__(problem)
        self.depth = depth

    def solve(self, state: Any, theta: np.ndarray, request: Any) -> np.ndarray:
        return theta


class Heuristic(BatchSolver):
    traits = Traits(exact=False)

    def solve(self, theta: torch.Tensor) -> torch.Tensor:
        return theta


class Liar(Exact):
    traits = "exact"  # pyright: ignore[reportAssignmentType] (the mistake under test)


def seconds(value: float) -> Callable[[Problem], float]:
    return lambda _problem: value


def offer(*specs: SolverSpec, plugin: str = "mine") -> None:
    @hookimpl
    def mapgrad_solvers() -> list[SolverSpec]:
        return list(specs)

    register(SimpleNamespace(mapgrad_solvers=mapgrad_solvers), plugin)


def spec(name: str, factory: Any = Exact, accepts: Any = (KSubset,), **fields: Any) -> SolverSpec:
    return SolverSpec(name=name, factory=factory, accepts=accepts, **fields)


def refused(error: type[Exception], message: str) -> Any:
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def test_options_reach_the_class():
    offer(spec("deep"))
    solver = resolve("mine.deep", PROBLEM).build(PROBLEM, {"depth": 3})
    assert isinstance(solver, Exact)
    assert (solver.problem, solver.depth) == (PROBLEM, 3)


def test_factory_by_text():
    offer(spec("deep", factory="mapgrad.solvers:InstanceSolver"))
    assert resolve("mine.deep", PROBLEM).factory is InstanceSolver


def test_a_solver_named_like_its_plugin():
    offer(spec("mine"), spec("other"))
    assert resolve("mine.mine", PROBLEM).name == "mine"
    assert resolve("mine.other", PROBLEM).name == "mine.other"


def test_a_plugins_name_means_its_cheapest_solver_that_takes_the_problem():
    offer(
        spec("undeclared"),
        spec("dear", cost=seconds(3.0)),
        spec("cheap", cost=seconds(2.0)),
        spec("cheap_twin", cost=seconds(2.0)),
        spec("absent", cost=seconds(1.0), requires=("acme_engine",)),
        spec("picky", cost=seconds(0.5), supports=lambda _problem: "never"),
        spec("ranker", accepts=(Ranking,), cost=seconds(0.1)),
    )
    assert resolve("mine", PROBLEM).name == "mine.cheap"
    assert resolve("mine", Ranking(3)).name == "mine.ranker"


class Panic(BaseException):
    def __str__(self) -> str:
        raise SystemExit(4)


def exits(_problem: Problem) -> Any:
    raise SystemExit(3)


def panics(_problem: Problem) -> Any:
    raise Panic


class Leaves(type):
    @property
    def traits(cls) -> Traits:
        raise SystemExit(3)


class Deserter(Exact, metaclass=Leaves):
    pass


def test_what_ends_the_process_in_cost_or_supports_is_held(caplog: pytest.LogCaptureFixture):
    offer(
        spec("a", cost=exits),
        spec("b", cost=panics),
        spec("c", supports=exits, cost=seconds(0.0)),
        spec("d", supports=panics, cost=seconds(0.0)),
        spec("e", cost=seconds(9.0)),
    )
    for asked in ("auto", "mine"):
        caplog.clear()
        assert resolve(asked, PROBLEM).name == "mine.e"
        assert [message.partition(" comes last: ")[2] for message in caplog.messages[:2]] == [
            "its cost() raised SystemExit: 3",
            "its cost() raised Panic: its text can't be read, as that raised SystemExit",
        ]
    with pytest.raises(UnsupportedProblemError, match=r"its supports\(\) raised SystemExit: 3"):
        resolve("mine.c", PROBLEM)
    with pytest.raises(UnsupportedProblemError, match=r"its supports\(\) raised Panic: its text can't be read"):
        resolve("mine.d", PROBLEM)
    assert [info.name for info in mapgrad.list_solvers(PROBLEM)] == ["mine.a", "mine.b", "mine.e"]


def test_traits_that_end_the_process_are_held():
    offer(spec("a", factory=Deserter, cost=seconds(0.0)), spec("b", cost=seconds(9.0)))
    with pytest.raises(PluginError, match=r"mine\.a .* can't be loaded: reading its traits raised SystemExit: 3"):
        resolve("mine.a", PROBLEM)
    assert resolve("auto", PROBLEM).name == "mine.b"
    assert [info.traits for info in mapgrad.list_solvers()] == [None, Traits()]


def test_what_making_a_solver_takes_counts_for_few_rows():
    offer(
        spec("slow", cost=seconds(3.0)),
        spec("compiled", cost=seconds(1.0), setup=seconds(20.0)),
        spec("small", cost=seconds(2.9), setup=seconds(0.2)),
    )
    for asked in ("auto", "mine"):
        named = {rows: resolve(asked, PROBLEM, rows).name for rows in (1, 3, 9, 11, math.inf)}
        assert named == {
            1: "mine.slow",
            3: "mine.small",
            9: "mine.small",
            11: "mine.compiled",
            math.inf: "mine.compiled",
        }
        assert resolve(asked, PROBLEM).name == "mine.compiled"


def test_problems_that_calls_bring_are_solved_by_what_is_quick_to_make():
    offer(spec("quick", cost=seconds(3.0)), spec("compiled", cost=seconds(1.0), setup=seconds(20.0)))
    solver, theta = mapgrad.get_solver("mine", None), torch.zeros(30, 4)
    problems = [KSubset(4, 1), KSubset(4, 2), *[KSubset(4, 3)] * 28]
    works = solver.works_on(theta, problems)
    assert [work.factory.name for work, _ in works] == ["mine.quick", "mine.quick", "mine.compiled"]
    assert mapgrad.get_solver("mine", KSubset(4, 1)).name == "mine.compiled"


@pytest.mark.parametrize("setup", [exits, lambda _problem: -1.0])
def test_a_setup_that_cannot_be_one_comes_last(setup: Any, caplog: pytest.LogCaptureFixture):
    offer(spec("a", cost=seconds(1.0), setup=setup), spec("b", cost=seconds(9.0)))
    assert resolve("mine", PROBLEM).name == "mine.a"
    assert not caplog.messages
    assert resolve("mine", PROBLEM, 1).name == "mine.b"
    (message,) = caplog.messages
    assert message.startswith("mine.a (registered by this program) comes last: its setup() ")


def test_a_cost_that_raises_comes_last(caplog: pytest.LogCaptureFixture):
    offer(spec("a", cost=lambda problem: problem.size), spec("b", cost=seconds(9.0)))
    assert resolve("mine", PROBLEM).name == "mine.b"
    (message,) = caplog.messages
    assert message == (
        "mine.a (registered by this program) comes last: its cost() raised AttributeError: 'KSubset' object has no "
        "attribute 'size'"
    )


@pytest.mark.parametrize("cost", [-1.0, -math.inf, math.inf, math.nan, "1.0", None, 1j])
@pytest.mark.parametrize("asked", ["auto", "mine"])
def test_a_cost_that_cannot_be_one_comes_last(cost: Any, asked: str, caplog: pytest.LogCaptureFixture):
    offer(spec("a", cost=seconds(cost)), spec("b", cost=seconds(0.0)))
    assert resolve(asked, PROBLEM).name == "mine.b"
    (message,) = caplog.messages
    assert message == (
        "mine.a (registered by this program) comes last: its cost() must return seconds, finite and at least 0, "
        f"but returned {cost!r}"
    )


def test_among_equal_costs_ours_come_first(install: Install):
    code = (
        "import mapgrad\n"
        "class Sort(mapgrad.InstanceSolver): pass\n"
        "@mapgrad.hookimpl\n"
        "def mapgrad_solvers():\n"
        "    cost = lambda problem: 0.0\n"
        "    return [mapgrad.SolverSpec('sort', f'{__name__}:Sort', (mapgrad.KSubset,), cost=cost)]\n"
    )
    install("acme-solvers", {"acme": "acme_free"}, acme_free=code)
    install("mapgrad", {"zeta": "zeta_free"}, zeta_free=code)
    assert resolve("auto", PROBLEM).name == "zeta.sort"


def test_auto_takes_the_cheapest_exact_installed_one(caplog: pytest.LogCaptureFixture):
    offer(spec("dear", cost=seconds(3.0)), plugin="one")
    offer(
        spec("heuristic", factory=Heuristic, cost=seconds(0.5)),
        spec("absent", cost=seconds(1.0), requires=("acme_engine",)),
        spec("gone", factory="json:Gone", cost=seconds(1.5)),
        spec("cheap", cost=seconds(2.0)),
        plugin="two",
    )
    with caplog.at_level(logging.INFO, logger="mapgrad"):
        assert resolve("auto", PROBLEM).name == "two.cheap"
    passed_over = (
        "'auto' passes over a solver: two.gone (registered by this program) can't be loaded: importing 'json:Gone' "
        "raised AttributeError: module 'json' has no attribute 'Gone'"
    )
    chosen = "'auto': KSubset(n=4, k=2) goes to two.cheap (registered by this program)"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", passed_over),
        ("INFO", chosen),
    ]


def test_auto_is_strict_about_classes_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAPGRAD_STRICT", "1")
    offer(spec("gone", factory="json:Gone", cost=seconds(1.0)), spec("fine", cost=seconds(2.0)))
    with pytest.raises(PluginError, match=r"^mine\.gone .* can't be loaded"):
        resolve("auto", PROBLEM)


def test_auto_makes_a_program_only_where_no_quick_solver_takes_the_problem(monkeypatch: pytest.MonkeyPatch):
    made: list[KSubset] = []
    to_ilp = KSubset.to_ilp
    monkeypatch.setattr(KSubset, "to_ilp", lambda self: made.append(self) or to_ilp(self))
    offer(spec("own", cost=seconds(1e-3)), spec("any", accepts=(IntegerProgram,), cost=seconds(1e-4)), plugin="one")
    assert resolve("auto", KSubset(5, 2)).name == "one.own"
    assert made == []
    offer(spec("slow", cost=seconds(3.0), accepts=(Ranking,)), spec("any", accepts=(IntegerProgram,)), plugin="two")
    offer(spec("any", accepts=(IntegerProgram,), cost=seconds(2.0)), plugin="three")
    assert resolve("auto", Ranking(3)).name == "one.any"


def test_a_problem_too_large_for_a_program_is_left_to_its_own_solvers(monkeypatch: pytest.MonkeyPatch):
    def too_large(_problem: KSubset) -> IntegerProgram:
        raise MemoryError

    monkeypatch.setattr(KSubset, "to_ilp", too_large)
    offer(spec("any", accepts=(IntegerProgram,)), spec("own", cost=seconds(1.0)))
    problem = KSubset(5, 3)
    assert resolve("auto", problem).name == resolve("mine", problem).name == "mine.own"
    with pytest.raises(
        UnsupportedProblemError, match=r"an integer program for KSubset\(n=5, k=3\) needs too much memory"
    ):
        resolve("mine.any", problem)


def test_auto_says_what_would_do():
    offer(
        spec("absent", requires=("acme_engine",), install="pip install acme-engine"),
        spec("heuristic", factory=Heuristic),
    )
    with refused(
        MissingDependencyError,
        "no exact solver of KSubset(n=4, k=2) is installed; these may do: mine.absent (registered by this program) "
        "needs acme_engine, which isn't installed: pip install acme-engine",
    ):
        resolve("auto", PROBLEM)


def test_auto_without_an_exact_solver():
    with refused(UnsupportedProblemError, "no exact solver takes KSubset(n=4, k=2)"):
        resolve("auto", PROBLEM)
    offer(spec("heuristic", factory=Heuristic))
    with refused(
        UnsupportedProblemError,
        "no exact solver takes KSubset(n=4, k=2); heuristics, which must be named: mine.heuristic",
    ):
        resolve("auto", PROBLEM)


def test_auto_says_each_reason_once():
    offer(
        spec("small", supports=lambda _problem: "n is even"),
        spec("tiny", supports=lambda _problem: "n is even"),
        spec("odd", supports=lambda _problem: "k is 2"),
        spec("absent", supports=lambda _problem: "n is 4", requires=("acme_engine",)),
        spec("other", accepts=(mapgrad.Assignment,)),
    )
    with pytest.raises(UnsupportedProblemError) as caught:
        resolve("auto", PROBLEM)
    assert str(caught.value) == (
        "no exact solver takes KSubset(n=4, k=2); mine.small, mine.tiny: n is even; mine.odd: k is 2"
    )


def test_unknown_names_get_their_neighbours(install: Install):
    install("acme-solvers", {"acme": "acme_absent"})
    offer(spec("matching"), spec("Greedy"))
    how_to_list = "mapgrad.list_solvers() lists the solvers of all plugins"
    for name, hint in [
        ("mine.matchin", "did you mean 'mine.matching'?"),
        ("matching", "did you mean 'mine.matching'?"),
        ("MINE.GREEDY", "did you mean 'mine.Greedy'?"),
        ("acne", "did you mean 'acme'?"),
        ("Auto", "did you mean 'auto'?"),
        ("", f"known are acme, auto, mine, mine.Greedy, mine.matching; {how_to_list}"),
        ("mine.", "did you mean 'mine' or 'mine.Greedy'?"),
        ("mine.matching.", "did you mean 'mine.matching'?"),
    ]:
        with refused(UnknownSolverError, f"no solver is named {name!r}; {hint}"):
            resolve(name, PROBLEM)


def test_an_unsupported_problem_names_the_reason_and_who_can():
    offer(
        spec("small", supports=lambda problem: "n is above 3" if problem.shape[0] > 3 else None),
        spec("ranker", accepts=(Ranking, Assignment)),
        spec("absent", requires=("acme_engine",)),
    )
    offer(spec("able"), plugin="other")
    with refused(
        UnsupportedProblemError,
        "'mine.small' can't solve KSubset(n=4, k=2): mine.small (registered by this program): n is above 3. Installed "
        "solvers that can: other.able",
    ):
        resolve("mine.small", PROBLEM)
    with refused(
        UnsupportedProblemError,
        "'other' can't solve Assignment(rows=2, cols=3): other.able (registered by this program): it takes KSubset. "
        "Installed solvers that can: mine.ranker",
    ):
        resolve("other", Assignment(2, 3))
    with refused(
        UnsupportedProblemError,
        "'mine.ranker' can't solve KSubset(n=4, k=2): mine.ranker (registered by this program): it takes Ranking, "
        "Assignment. Installed solvers that can: other.able",
    ):
        resolve("mine.ranker", PROBLEM)


@pytest.mark.parametrize(
    ("supports", "reason"),
    [
        (
            lambda problem: problem.size,
            "its supports() raised AttributeError: 'KSubset' object has no attribute 'size'",
        ),
        (lambda _problem: False, "its supports() must return None or a reason, but returned False"),
    ],
)
def test_a_supports_that_is_wrong_refuses(supports: Any, reason: str):
    offer(spec("wrong", supports=supports), spec("fine"))
    assert resolve("mine", PROBLEM).name == "mine.fine"
    with pytest.raises(UnsupportedProblemError, match=re.escape(reason)):
        resolve("mine.wrong", PROBLEM)


def test_a_plugin_without_solvers():
    offer()
    with refused(
        UnsupportedProblemError,
        "'mine' can't solve KSubset(n=4, k=2): its plugin offers no solver. Installed solvers that can: none",
    ):
        resolve("mine", PROBLEM)


def test_a_package_that_the_class_needs_is_missing(install: Install):
    install("acme-engine", {}, acme_lazy="import acme_engine")
    offer(spec("lazy", factory="acme_lazy:Lazy", install="pip install acme-engine"))
    with refused(
        MissingDependencyError,
        "mine.lazy (registered by this program) needs acme_engine, which isn't installed: pip install acme-engine",
    ) as caught:
        resolve("mine.lazy", PROBLEM)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "acme_lazy:Lazy",
            "can't be loaded: importing 'acme_lazy:Lazy' raised ZeroDivisionError: division by zero",
        ),
        (
            "acme_gone.a:Lazy",
            "can't be loaded: importing 'acme_gone.a:Lazy' raised ModuleNotFoundError: No module named 'acme_gone'",
        ),
        ("acme_exit:Lazy", "can't be loaded: importing 'acme_exit:Lazy' raised SystemExit: 3"),
        ("builtins:dict", "isn't a solver: <class 'dict'> isn't derived from InstanceSolver or BatchSolver"),
        (Liar, "has traits 'exact'; they must be a mapgrad.Traits"),
    ],
)
def test_a_class_that_cannot_be_used(install: Install, factory: Any, message: str):
    install("acme-engine", {}, acme_lazy="1 / 0", acme_exit="import sys\nsys.exit(3)")
    offer(spec("lazy", factory=factory))
    with refused(PluginError, f"mine.lazy (registered by this program) {message}"):
        resolve("mine.lazy", PROBLEM)


def test_a_class_stands_for_its_name():
    factory = resolve(Exact, PROBLEM)
    assert (factory.name, factory.label, factory.spec) == ("Exact", "Exact", None)
    solver = factory.build(PROBLEM, {"depth": 2})
    assert isinstance(solver, Exact)
    assert solver.depth == 2
    with refused(TypeError, f"Exact has no option 'gap': its options are depth{COMMON_ONES}"):
        factory.build(PROBLEM, {"gap": 2})


class Plain(InstanceSolver):
    pass


class Open(InstanceSolver):
    """Hands what it doesn't know to an engine, but for what that one has another name for."""

    def __init__(self, problem: Problem, *, gap: float = 0.0, **parameters: Any) -> None:
        super().__init__(problem, **({"threads": 1} if "threads" in parameters else {}))
        self.parameters = parameters


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (Exact, {"dept": 3, "depth": 1}, f"'dept': its options are depth{COMMON_ONES}; did you mean 'depth'?"),
        (Exact, {"Depth": 3, "x": 1}, f"'Depth', 'x': its options are depth{COMMON_ONES}; did you mean 'depth'?"),
        (Exact, {"worker": 2}, f"'worker': its options are depth{COMMON_ONES}; did you mean 'workers'?"),
        (Plain, {"gap": 0.1}, f"'gap': it has no options of its own{COMMON_ONES}"),
        (
            Plain,
            {"minimize": True},
            f"'minimize': it has no options of its own{COMMON_ONES}; minimize belongs to MAPLayer: negate θ here",
        ),
        (
            Heuristic,
            {"timelimit": 1},
            f"'timelimit': it has no options of its own{COMMON_ONES}; did you mean 'time_limit'?",
        ),
    ],
)
def test_unknown_options(factory: Any, options: dict[str, Any], message: str):
    offer(spec("deep", factory))
    found = resolve("mine.deep", PROBLEM)
    with refused(TypeError, f"mine.deep (registered by this program) has no option {message}"):
        found.build(PROBLEM, options)
    with refused(TypeError, f"mine.deep (registered by this program) has no option {message}"):
        require_solver("mine.deep", options)


def test_a_constructor_that_takes_any_option_decides_itself():
    solver = resolve(Open, PROBLEM).build(PROBLEM, {"gap": 0.1, "mip_focus": 2})
    assert isinstance(solver, Open)
    assert solver.parameters == {"mip_focus": 2}
    require_solver(Open, {"anything": 1})
    with refused(TypeError, "Open has no option 'threads': its options are gap"):
        resolve(Open, PROBLEM).build(PROBLEM, {"threads": 2})


def test_compiled_classes_that_hide_their_options_decide_themselves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspect, "signature", lambda solver: int("no signature found"))
    require_solver(Exact, {"width": 1})


def test_what_no_problem_could_be_solved_by(install: Install):
    install("acme-engine", {}, acme_late="raise AssertionError('imported')")
    offer(
        spec("deep", cost=seconds(1.0)),
        spec("ranker", Plain, accepts=(Ranking,)),
        spec("absent", requires=("acme_gone",), install="pip install acme"),
        spec("late", factory="acme_late:Late"),
    )
    for fine in ("auto", "mine", "mine.deep", "mine.late", Exact, Exact(PROBLEM), double):
        require_solver(fine, {})
    require_solver("auto", {"any": 1})
    require_solver("mine.deep", {"depth": 2})
    with pytest.raises(UnknownSolverError, match=r"no solver is named 'mine\.dep'; did you mean 'mine\.deep'"):
        require_solver("mine.dep", {})
    with refused(
        MissingDependencyError,
        "mine.absent (registered by this program) needs acme_gone, which isn't installed: pip install acme",
    ):
        require_solver("mine.absent", {})
    with refused(TypeError, "Exact takes no options, got depth: options go to a name or a class"):
        require_solver(Exact(PROBLEM), {"depth": 3})
    with refused(TypeError, "double takes no options, got depth: options go to a name or a class"):
        require_solver(double, {"depth": 3})
    with pytest.raises(PluginError, match=r"mine\.late .* can't be loaded"):
        require_solver("mine.late", {"depth": 3})


def test_options_for_a_plugins_name_are_those_of_its_solvers():
    offer(spec("deep"), spec("plain", Plain))
    require_solver("mine", {"depth": 1})
    with refused(TypeError, f"'mine' has no option 'gap': its options are depth{COMMON_ONES}"):
        require_solver("mine", {"gap": 1})


def test_the_common_options_are_those_of_get_solver():
    parameters = inspect.signature(mapgrad.get_solver).parameters.values()
    assert [each.name for each in parameters if each.kind is each.KEYWORD_ONLY] == list(COMMON)


def test_an_object_stands_for_its_name():
    solver = Exact(PROBLEM, depth=2)
    factory = resolve(solver, KSubset(4, 2))
    assert factory.build(PROBLEM, {}) is solver
    with refused(TypeError, "Exact takes no options, got depth: options go to a name or a class"):
        factory.build(PROBLEM, {"depth": 3})
    with refused(
        UnsupportedProblemError, "this Exact was made for KSubset(n=4, k=2), but is asked to solve KSubset(n=4, k=3)"
    ):
        resolve(solver, KSubset(4, 3))


def double(theta: torch.Tensor) -> torch.Tensor:
    return 2 * theta


def test_a_function_gets_whole_batches_and_nothing_is_merged():
    factory = resolve(double, PROBLEM)
    solver = factory.build(PROBLEM, {})
    assert isinstance(solver, BatchSolver)
    assert (factory.name, solver.problem, solver.traits) == ("double", PROBLEM, Traits(deterministic=False))
    theta = torch.arange(8.0).reshape(2, 4)
    assert torch.equal(torch.as_tensor(solver.solve(theta)), 2 * theta)
    with pytest.raises(TypeError, match="double takes no options, got depth"):
        factory.build(PROBLEM, {"depth": 3})


def test_a_function_does_without_a_problem():
    factory = resolve(double, None)
    solver = factory.build(None, {})
    assert isinstance(solver, FunctionSolver)
    assert (factory.name, solver.problem, solver.function) == ("double", None, double)
    assert torch.equal(torch.as_tensor(solver.solve(torch.ones(2, 3))), torch.full((2, 3), 2.0))
    assert factory.lowering(PROBLEM).native == PROBLEM
    there = pickle.loads(pickle.dumps(factory)).build(None, {})
    assert (there.problem, there.function) == (None, double)


def test_a_callable_object_counts_as_a_function():
    module = torch.nn.Softmax(-1)
    factory = resolve(module, PROBLEM)
    assert (factory.name, factory.build(PROBLEM, {}).function) == ("Softmax", module)


@pytest.mark.parametrize("solver", ["mine", "auto", Exact, Exact(PROBLEM)])
def test_all_but_functions_need_a_problem(solver: Any):
    with refused(TypeError, "problem must be a problem, such as mapgrad.KSubset(10, 3), got None"):
        resolve(solver, None)
    with refused(TypeError, "problem must be a problem, such as mapgrad.KSubset(10, 3), got None"):
        resolve(Exact, PROBLEM).build(None, {})


@pytest.mark.parametrize("solver", [None, 3, dict, {"name": "topk"}, PROBLEM])
def test_something_else_is_not_a_solver(solver: Any):
    for ask in (lambda: resolve(solver, PROBLEM), lambda: require_solver(solver, {})):
        with refused(
            TypeError,
            "a solver is a name, 'auto', a class derived from InstanceSolver or BatchSolver, an object of such a "
            f"class, or a function from θ to z; got {solver!r}",
        ):
            ask()


@pytest.mark.parametrize("problem", [KSubset, (4, 2)])
@pytest.mark.parametrize("solver", ["mine", Exact, double])
def test_something_else_is_not_a_problem(solver: Any, problem: Any):
    with refused(TypeError, f"problem must be a problem, such as mapgrad.KSubset(10, 3), got {problem!r}"):
        resolve(solver, problem)


def test_a_factory_travels_without_the_functions_of_its_spec():
    functions = {"supports": lambda _problem: None, "cost": seconds(1.0), "setup": seconds(1.0)}
    offer(spec("deep", install="pip install deep", **functions))
    factory = resolve("mine.deep", PROBLEM)
    assert factory.spec is not None
    assert factory.spec.cost is not None
    there = pickle.loads(pickle.dumps(factory))
    assert (there.name, there.label, there.factory) == (factory.name, factory.label, Exact)
    assert there.spec == spec("deep", install="pip install deep")
    assert there.build(PROBLEM, {"depth": 3}).depth == 3
    assert pickle.loads(pickle.dumps(resolve(double, PROBLEM))).build(PROBLEM, {}).solve(torch.ones(1)) == 2


def test_a_warm_start_is_led_to_reuse():
    with pytest.raises(TypeError, match=r"has no option 'warm_start': .* reuse=True lets a solver begin"):
        mapgrad.get_solver(Exact, PROBLEM, warm_start=True)


def test_auto_tells_once_of_a_far_faster_solver_that_isnt_installed(caplog, monkeypatch):
    monkeypatch.setattr("mapgrad.solvers._resolve._told", set())
    needs = {"requires": ("acme_engine",), "install": "pip install acme-engine"}
    offer(
        spec("slow", accepts=(Kind,), cost=seconds(1e-3)),
        spec("quick", accepts=(Kind,), cost=seconds(1e-5), **needs),
        spec("picky", accepts=(Kind,), cost=seconds(1e-6), supports=lambda _problem: "never", **needs),
    )
    for _ in range(2):
        assert resolve("auto", Kind(4, 2)).name == "mine.slow"
    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "'auto' takes mine.slow, declared to take 1e+03 µs a row; mine.quick, declared to take 10 µs, needs" in told
    assert told.endswith("pip install acme-engine")


@pytest.mark.parametrize(("cost", "missing"), [(1e-3, 2e-4), (1e-5, 1e-7)])
def test_auto_is_silent_where_it_hardly_matters(cost, missing, caplog, monkeypatch):
    monkeypatch.setattr("mapgrad.solvers._resolve._told", set())
    offer(
        spec("slow", accepts=(Kind,), cost=seconds(cost)),
        spec("quick", accepts=(Kind,), cost=seconds(missing), requires=("acme_engine",)),
    )
    assert resolve("auto", Kind(4, 2)).name == "mine.slow"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class Kind(KSubset):
    """Subsets that no plugin of this repository knows."""
