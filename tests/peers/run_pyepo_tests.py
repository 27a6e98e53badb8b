"""Run the test functions of PyEPO's sdist that count on the shim, and say which pass.

    pip download --no-deps --no-binary :all: pyepo==2.2.7 && tar xzf pyepo-2.2.7.tar.gz
    python tests/peers/run_pyepo_tests.py pyepo-2.2.7

With --pyepo they run on PyEPO itself, which must be installed: that tells what the list, and the stand-in for its
conftest, are worth.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent


def functions_of(sdist):
    """Return the names of all test functions, as pytest has them."""
    names = []
    for file in sorted((sdist / "tests").glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_class = isinstance(node, ast.ClassDef)
            owner = f"{file.name}::{node.name}::" if is_class else f"{file.name}::"
            inside = [each for each in (node.body if is_class else [node]) if isinstance(each, ast.FunctionDef)]
            names += [owner + each.name for each in inside if each.name.startswith("test")]
    return names


def listed():
    """Return what is in the list of functions."""
    return tomllib.loads((HERE / "pyepo_functions.toml").read_text(encoding="utf-8"))


def split(names):
    """Return the names of the functions that count, and of those that are left out with the reasons.

    Raises:
        ValueError: the list doesn't name each function once.
    """
    groups = listed()
    left_out = {
        name: entry["reason"]
        for entry in groups["left_out"]
        for pattern in entry["functions"]
        for name in names
        if fnmatchcase(name, pattern)
    }
    counts = groups["counts"]["functions"]
    if sorted([*counts, *left_out]) != sorted(names):
        wrong = sorted(set(names) ^ {*counts, *left_out} | set(counts) & set(left_out))
        raise ValueError(f"the list of PyEPO {groups['version']}'s functions doesn't name each once: {wrong}")
    return counts, left_out


def run(sdist, *, on_pyepo=False):
    """Run the functions that count.

    Args:
        sdist: The unpacked sdist.
        on_pyepo: Whether on PyEPO itself.

    Returns:
        For each function how many of its cases passed, failed and were skipped, by these words.
    """
    counts, _ = split(functions_of(sdist))
    cases_left_out = listed()["cases_left_out"]
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(folder) / "tests"
        shutil.copytree(sdist / "tests", tests)
        (tests / "__init__.py").touch()
        shutil.copy(HERE / "pyepo_conftest.py", tests / "conftest.py")
        (Path(folder) / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
        paths = ["" if on_pyepo else str(HERE / "shim"), os.environ.get("PYTHONPATH", "")]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--junitxml=found.xml"]
            + [f"tests/{name}" for name in counts],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=sys.stderr,
            check=False,
        )
        cases = list(ET.parse(Path(folder) / "found.xml").iter("testcase"))
    outcome = {name: {"passed": 0, "failed": 0, "skipped": 0} for name in counts}
    for case in cases:
        _, file, *owner = case.get("classname").split(".")
        full = "::".join([f"{file}.py", *owner, case.get("name")])
        if not any(fnmatchcase(full, pattern) for pattern in cases_left_out):
            tags = {each.tag for each in case}
            what = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
            outcome[full.partition("[")[0]][what] += 1
    return outcome


def passes(cases):
    """Tell whether a function passes, by its cases."""
    return cases["passed"] > 0 and cases["failed"] == 0


def main():
    """Print which functions don't pass, and the share of those that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path, help="the unpacked sdist")
    parser.add_argument("--pyepo", action="store_true", help="run on PyEPO itself")
    given = parser.parse_args()
    outcome = run(given.sdist.resolve(), on_pyepo=given.pyepo)
    bad = [f"{name}: {cases}\n" for name, cases in outcome.items() if not passes(cases)]
    good = len(outcome) - len(bad)
    sys.stdout.writelines([*bad, f"{good} of {len(outcome)} functions that count pass: {good / len(outcome):.1%}\n"])


if __name__ == "__main__":
    main()
