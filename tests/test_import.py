"""What `import mapgrad` loads, and what it costs."""

import json
import subprocess
import sys

HEAVY = ("ortools", "pulp", "highspy", "scipy", "matplotlib", "typer", "rich", "pytest", "hypothesis", "numba")
SCRIPT = """
import json, sys, time
import torch
before = set(sys.modules)
entry_points = []
import importlib.metadata
inner = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **names: entry_points.append(names) or inner(**names)
started = time.process_time()
import mapgrad
seconds = time.process_time() - started
print(json.dumps({"new": sorted(set(sys.modules) - before), "read": len(entry_points), "seconds": seconds}))
"""


def test_import_loads_no_solver_and_reads_no_entry_point():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    packages = {name.partition(".")[0] for name in found["new"]}
    assert packages.isdisjoint(HEAVY)
    assert "networkx" not in packages
    assert not any(name.startswith("mapgrad_") for name in packages)
    assert "torch._dynamo" not in found["new"]
    assert found["read"] == 0


def test_public_names():
    import mapgrad

    assert all(hasattr(mapgrad, name) for name in mapgrad.__all__)
    assert mapgrad.__version__
