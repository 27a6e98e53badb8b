"""The guide's Python runs, its tables are of the lab's own estimators, and its links lead somewhere."""

import re
from pathlib import Path

from mapgrad.bench._lab_cases import CASES, METHODS, SETTINGS

GUIDE = Path(__file__).parents[1] / "GUIDE.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def test_the_python_blocks_run(capsys):
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        exec(compile(block, str(GUIDE), "exec"), {})
    assert "default" in capsys.readouterr().out


def test_the_tables_are_of_the_lab():
    header = f"| estimator | {' | '.join(CASES)} |"
    assert header in re.sub(" +", " ", TEXT)
    for name in (*METHODS, *(setting.name for setting in SETTINGS)):
        assert name in TEXT


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (GUIDE.parent / target).exists(), target


def test_there_is_a_place_for_training():
    assert TEXT.count("<!-- training -->") == 1
