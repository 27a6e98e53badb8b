"""Benchmarks, the gradient lab, and the choice of the fastest solver by trial.

::

    report = mapgrad.bench.run_suite("step", quick=True)
    report = mapgrad.bench.lab(problem)
    print(mapgrad.tune(problem, theta_sample))

Times are CPU times on one thread, children's included, of candidates that take turns; what is compared from run to run
are ratios within a run. ``mapgrad bench SUITE``, ``mapgrad lab PROBLEM`` and ``mapgrad tune PROBLEM`` are the same from
the command line.
"""

from mapgrad.bench._compare import Change, compare
from mapgrad.bench._lab import LabEffort, lab
from mapgrad.bench._lab_cases import Setting
from mapgrad.bench._lab_page import lab_page, lab_plot, lab_tables
from mapgrad.bench._plot import plot
from mapgrad.bench._report import Estimate, Report, Row, Spread
from mapgrad.bench._suites import run_suite, suite_names
from mapgrad.bench._tune import Trial, Tuning, tune

__all__ = [
    "Change",
    "Estimate",
    "LabEffort",
    "Report",
    "Row",
    "Setting",
    "Spread",
    "Trial",
    "Tuning",
    "compare",
    "lab",
    "lab_page",
    "lab_plot",
    "lab_tables",
    "plot",
    "run_suite",
    "suite_names",
    "tune",
]
