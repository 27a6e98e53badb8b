from typing import Any, Protocol

import pytest
import typer.testing

from mapgrad.cli._app import app


class Invoke(Protocol):
    def __call__(self, *arguments: str, columns: int = 120) -> Any: ...


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process; the result has exit_code, stdout and stderr."""
    runner = typer.testing.CliRunner()

    def run(*arguments: str, columns: int = 120) -> Any:
        return runner.invoke(app, arguments, env={"COLUMNS": str(columns)}, prog_name="mapgrad")

    return run
