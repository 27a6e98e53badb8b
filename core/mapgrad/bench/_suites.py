"""Suites by their names, and how one is run."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
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
    """

    title: str
    cases: Mapping[str, Callable[[Effort], Iterator[Row]]]
    quick: tuple[str, ...]


_MODULES: Final = {
    "step": "mapgrad.bench._step",
    "kernels": "mapgrad.bench._kernels",
    "road": "mapgrad.bench._road",
    "threads": "mapgrad.bench._two_threads",
    "growth": "mapgrad.bench._growth",
    "peers": "mapgrad.bench._peers",
}


def suite_names() -> list[str]:
    """Return the names of all suites."""
    return [*_MODULES]


def run_suite(
    name: str,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    watch: Callable[[str], object] = lambda case: None,
) -> Report:
    """Measure a suite.

    Args:
        name: One of `suite_names`.
        quick: Measure a few small cases roughly.
        only: Beginnings of the names of cases; none of them for all cases.
        watch: Is told each case before it is measured.

    Raises:
        MapgradError: there is no such suite, or no such case.
    """
    if name not in _MODULES:
        raise MapgradError(f"there is no suite {name!r}: take one of {', '.join(_MODULES)}")
    suite: Suite = importlib.import_module(_MODULES[name]).SUITE
    chosen = suite.quick if quick else tuple(suite.cases)
    cases = [case for case in chosen if not only or case.startswith(tuple(only))]
    if not cases:
        raise MapgradError(f"no case of suite {name!r} begins so: take from {'; '.join(chosen)}")
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the layers of solvers that do nothing, and peers'
        found = machine()
        rows: list[Row] = []
        for case in cases:
            watch(case)
            rows += _measured(case, suite.cases[case](QUICK if quick else Effort()))
        found["share of two cores at the end"] = round(idle_share(), 2)
        found["quiet"] = min(found["share of two cores"], found["share of two cores at the end"]) >= QUIET
    return Report(name, suite.title, rows, found, versions(), {"θ and noise": SEED})


def _measured(case: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a case's rows; what the machine lacks for it becomes a row that says so."""
    try:
        yield from rows
    except (MapgradError, ImportError) as error:
        yield Row(case, "", note=str(error), judged=False)
