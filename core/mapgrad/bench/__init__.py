"""Benchmarks, and the choice of the fastest solver by trial.

::

    report = mapgrad.bench.run_suite("step", quick=True)
    print(mapgrad.tune(problem, theta_sample))

Times are CPU times on one thread, children's included, of candidates that take turns; what is compared from run to run
are ratios within a run. ``mapgrad bench SUITE`` and ``mapgrad tune PROBLEM`` are the same from the command line.
"""

from mapgrad.bench._compare import Change, compare
from mapgrad.bench._plot import plot
from mapgrad.bench._report import Estimate, Report, Row, Spread
from mapgrad.bench._suites import run_suite, suite_names
from mapgrad.bench._tune import Trial, Tuning, tune

__all__ = [
    "Change",
    "Estimate",
    "Report",
    "Row",
    "Spread",
    "Trial",
    "Tuning",
    "compare",
    "plot",
    "run_suite",
    "suite_names",
    "tune",
]
