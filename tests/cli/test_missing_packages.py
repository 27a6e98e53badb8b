import subprocess
import sys

import pytest

from mapgrad import cli

WITHOUT = """
import runpy, sys
for package in {packages}:
    sys.modules[package] = None
sys.argv = ["mapgrad", *{arguments}]
runpy.run_module("mapgrad", run_name="__main__")
"""


def run_without(packages, *arguments, cwd):
    program = WITHOUT.format(packages=packages, arguments=arguments)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize(
    ("packages", "named"), [(["typer"], "typer"), (["rich"], "rich"), (["typer", "rich"], "typer and rich")]
)
def test_without_the_cli_extra_the_script_says_how_to_get_it(monkeypatch, capsys, packages, named):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == 2
    assert capsys.readouterr() == ("", f"mapgrad's command line needs {named}: pip install 'mapgrad[cli]'\n")


def test_the_module_runs_without_the_cli_extra_and_says_how_to_get_it(tmp_path):
    result = run_without(["typer", "rich"], "solvers", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("pip install 'mapgrad[cli]'\n")
    assert "Traceback" not in result.stderr


def test_only_the_demo_needs_matplotlib(tmp_path):
    result = run_without(["matplotlib"], "solvers", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "networkx.shortest_path" in result.stdout


def test_without_matplotlib_the_demo_says_how_to_get_it(monkeypatch, invoke, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("demo")
    assert result.exit_code == 2
    assert "pip install 'mapgrad[plot]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
