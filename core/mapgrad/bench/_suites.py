"""Suites by their names, and how one is run."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mapgrad.bench._cases import SEED
from mapgrad.bench._clock import QUICK, Effort, one_thread
from mapgrad.bench._machine import QUIET, idle_share, machine, versions
from mapgrad.bench._report import Report, Row
from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Suite:
    """What one call of ``mapgrad bench`` measures.

    Attributes:
        title: What its figures say.
        cases: What measures each case, by name.
        quick: Names of the cases that `QUICK` measures.
        methods: Names of the methods that each case compares, of which a run may choose; () where there is no choice.
        num_seeds: How many seeds a figure is a mean over.
    """

    title: str
    cases: Mapping[str, Callable[[Effort], Iterator[Row]]]
    quick: tuple[str, ...]
    methods: tuple[str, ...] = ()
    num_seeds: int = 1


_MODULES: Final = {
    "step": "mapgrad.bench._step",
    "kernels": "mapgrad.bench._kernels",
    "road": "mapgrad.bench._road",
    "threads": "mapgrad.bench._two_threads",
    "workers": "mapgrad.bench._throughput",
    "growth": "mapgrad.bench._growth",
    "faults": "mapgrad.bench._faults",
    "soak": "mapgrad.bench._soak",
    "peers": "mapgrad.bench._peers",
    "training": "mapgrad.bench._training",
}

_QUICK_SEEDS: Final = 2


def suite_names() -> list[str]:
    """Return the names of all suites."""
    return [*_MODULES]


def run_suite(
    name: str,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    methods: Sequence[str] = (),
    seed: int | None = None,
    known: Sequence[Report] = (),
    watch: Callable[[str], object] = lambda case: None,
) -> Report:
    """Measure a suite.

    Args:
        name: One of `suite_names`.
        quick: Measure a few small cases roughly.
        only: Beginnings of the names of cases, × also written as x; none of them for all cases.
        methods: Beginnings of the names of methods, in suite `training`; none of them for all.
        seed: The first of the seeds that figures of `training` are means over; None for 0.
        known: Earlier runs of `training` with the same seeds, whose rows aren't measured again.
        watch: Is told each case before it is measured.

    Raises:
        MapgradError: there is no such suite, case or method, the suite hasn't such choices, or an earlier run is of
            another suite or of other seeds.
    """
    if name not in _MODULES:
        raise MapgradError(f"there is no suite {name!r}: take one of {', '.join(_MODULES)}")
    suite: Suite = importlib.import_module(_MODULES[name]).SUITE
    chosen = suite.quick if quick else tuple(suite.cases)
    beginnings = tuple(each.replace("×", "x") for each in only)
    cases = [case for case in chosen if not only or case.replace("×", "x").startswith(beginnings)]
    if not cases:
        raise MapgradError(f"no {'quick ' * quick}case of suite {name!r} begins so: take from {'; '.join(chosen)}")
    effort, seeds = QUICK if quick else Effort(), {"θ and noise": SEED}
    if suite.methods:
        _require_methods(methods, suite.methods)
        first, number = seed or 0, _QUICK_SEEDS if quick else suite.num_seeds
        seeds = {"first": first, "number": number}
        effort = replace(effort, methods=methods, seeds=range(first, first + number), known=_known(known, name, seeds))
    elif methods or seed is not None or known:
        raise MapgradError(f"suite {name!r} has no methods or seeds to choose, and goes on from no earlier run")
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the layers of solvers that do nothing, and peers'
        found = machine()
        rows: list[Row] = []
        for case in cases:
            watch(case)
            rows += _measured(case, suite.cases[case](effort))
        found["share of two cores at the end"] = round(idle_share(), 2)
        found["quiet"] = min(found["share of two cores"], found["share of two cores at the end"]) >= QUIET
    return Report(name, suite.title, rows, found, versions(), seeds, is_quick=quick)


def _known(known: Sequence[Report], suite: str, seeds: Mapping[str, int]) -> dict[str, Row]:
    """Return the rows of earlier runs by their keys.

    Raises:
        MapgradError: they are of another suite, or of other seeds.
    """
    for report in known:
        if (report.suite, report.seeds) != (suite, seeds):
            raise MapgradError(
                f"an earlier run must be of suite {suite!r} with the seeds {seeds}, got one of {report.suite!r} with "
                f"{report.seeds}"
            )
    return {row.key: row for report in known for row in report.rows if row.runs}


def _require_methods(methods: Sequence[str], names: Sequence[str]) -> None:
    for method in methods:
        if not any(name.startswith(method) for name in names):
            raise MapgradError(f"no method begins with {method!r}: take from {'; '.join(names)}")


def _measured(case: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a case's rows; what the machine lacks for it becomes a row that says so."""
    try:
        yield from rows
    except (MapgradError, ImportError) as error:
        yield Row(case, "", note=str(error), judged=False)
