"""The example plugin, as a third party ships it: built as a wheel, installed elsewhere, checked there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_plugin"

CHECK = """
import json, logging, mapgrad
logging.basicConfig(level=logging.INFO, format="%(message)s")
info, = (info for info in mapgrad.list_solvers() if info.plugin == "heapq")
problem = mapgrad.GridShortestPath(3, 3, neighbors=4)
for case in (problem, mapgrad.GridShortestPath(3, 3, start=(2, 0), goal=(0, 1))):
    mapgrad.testing.check_solver("heapq", case)
import mapgrad_heapq, torch
theta = -torch.tensor([[1.0, 9, 9], [1, 9, 9], [1, 1, 1]])
print(json.dumps({
    "info": [info.name, info.distribution, info.version, info.status, info.detail],
    "solver": mapgrad.get_solver("heapq", problem).name,
    "z": mapgrad.get_solver("heapq", problem)(theta).tolist(),
    "file": mapgrad_heapq.__file__,
}))
"""


def run(*command: str | Path) -> str:
    """Run a command outside the repository, without the path that this process was given."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd="/", env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_wheel_in_another_environment(tmp_path: Path):
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == "mapgrad_heapq-0.1.0-py3-none-any.whl"

    venv.create(tmp_path / "other", symlinks=True)
    python = tmp_path / "other" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # what the other environment would have installed beside the plugin: torch, numpy, pluggy and mapgrad
    site.joinpath("parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    found = json.loads(run(python, "-W", "error", "-c", CHECK).splitlines()[-1])
    assert found["info"] == ["heapq", "mapgrad-heapq", "0.1.0", "ok", ""]
    assert found["solver"] == "heapq"
    assert found["z"] == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]
    assert Path(found["file"]).parent == site
