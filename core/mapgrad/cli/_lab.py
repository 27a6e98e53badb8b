"""``mapgrad lab``."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import partial
from pathlib import Path  # noqa: TC003 (typer reads annotations)
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

import mapgrad
from mapgrad.cli._bench import console_for_tables, prepare, show_origin, show_table
from mapgrad.cli._tune import problem_of, sample_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rich.console import Console

    from mapgrad.bench import Report


def lab(
    problem: Annotated[
        str | None,
        typer.Argument(
            help="One of six problems by how its name begins, such as ksubset; or a problem such as 'KSubset(90, 9)' "
            "or 'ShortestPath.on_grid(5, 5)', or a file that ends in .mps or .lp. Without it, all six.",
            show_default=False,
        ),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ESTIMATOR",
            help="How names of estimators begin, in capitals or not, or estimators such as "
            "'IMLE(target=RelativeStep(0.3))'. Without it, a selection of all kinds.",
        ),
    ] = None,
    budget: Annotated[list[int] | None, typer.Option(min=1, help="Solver calls a row.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="How names of temperatures and offsets begin.")] = None,
    theta: Annotated[
        Path | None, typer.Option(help="θ of a problem of your own, utilities: an array [N, *shape] in a .npy file.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One θ and few draws, at the first temperature.")] = False,
    draws: Annotated[int | None, typer.Option(min=2, help="Solves for the truth of each θ, if it isn't exact.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of θ, the loss's gradients and the noise.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="The picture to draw: cosines against solver calls.")] = None,
    html: Annotated[Path | None, typer.Option(help="Where to write all of it as one page.")] = None,
) -> None:
    """Measure what estimators' gradients are worth, against the exact one, at equal numbers of solver calls.

    How well one row's gradient points along the gradient of the mean answer's loss, and how long the mean is: 1 is
    right. For a linear loss, under Gaussian noise of several temperatures, and with constants added to θ and to the
    loss's gradient that the problem can't see. Unless the truth is exact, it takes half a million solves for each θ and
    temperature: where a solver takes milliseconds, fewer --draws must do, and --json has the error that they leave.

    The best gradient isn't yet what learns best, which `mapgrad bench training` measures.
    """
    prepare(json, plot, html)
    if plot is not None:
        from mapgrad.bench._figures import require_format

        require_format(plot)
    from mapgrad.bench._lab import QUICK_LAB, LabEffort, run_lab, with_rows
    from mapgrad.bench._lab_cases import CASES, METHODS, SETTINGS
    from mapgrad.bench._lab_page import lab_page, lab_plot

    names = [each.name for each in SETTINGS]
    chosen = {name for text in setting or () for name in _begun(text, names)}
    if setting and not chosen:
        raise typer.BadParameter(f"no setting begins so: take from {'; '.join(names)}", param_hint="--setting")
    settings = [each for each in SETTINGS if not setting or each.name in chosen]
    methods = _methods(estimator, METHODS) if estimator else METHODS
    cases = _cases(problem, CASES)
    if theta is not None:
        if len(cases) > 1:
            raise typer.BadParameter("a sample of θ needs one PROBLEM", param_hint="--theta")
        cases = [with_rows(cases[0], sample_in(theta))]
    cases = [replace(case, budgets=budget) if budget else case for case in cases]
    effort = QUICK_LAB if quick else LabEffort()
    effort = replace(effort, draws=draws) if draws else effort
    console = console_for_tables()
    with console.status("Measuring") as status:
        report = run_lab(
            cases,
            methods,
            settings[:1] if quick else settings,
            effort=effort,
            seed=seed,
            watch=lambda case: status.update(f"{case} …"),
        )
    _show(report, console)
    if json is not None:
        report.write(json)
    if plot is not None:
        lab_plot(report, plot)
    if html is not None:
        lab_page(report, html)


def _cases(text: str | None, known: Mapping[str, Any]) -> list[Any]:
    """Return the cases that a text names, or the problem that it describes."""
    from mapgrad.bench._lab_cases import case_of

    if text is None:
        return [*known.values()]
    key = _key(text)
    found = [case for name, case in known.items() if key and _key(name).startswith(key)]
    return found or [case_of(problem_of(text))]


def _key(name: str) -> str:
    """Return the letters and digits of a name."""
    return "".join(filter(str.isalnum, name)).casefold()


def _begun(text: str, names: Collection[str]) -> list[str]:
    """Return a name, or those that begin with a text, in capitals or not."""
    return [text] if text in names else [name for name in names if name.casefold().startswith(text.casefold())]


def _methods(texts: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the estimators that texts name or write out."""
    from mapgrad.bench._lab_cases import Method

    methods: dict[str, Any] = {}
    for text in texts:
        found = {name: known[name] for name in _begun(text, known)}
        methods |= found or {text: Method(_made(text))}
    return methods


def _made(text: str) -> Any:
    """Return what makes the estimator of an expression, such as ``IMLE(target=Step(2.0))``.

    Raises:
        BadParameter: it isn't one, or its class refuses its arguments.
    """
    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call):
            kind = _named(call.func)
            if issubclass(kind, mapgrad.Estimator):
                return partial(
                    kind, *map(_value, call.args), **{str(each.arg): _value(each.value) for each in call.keywords}
                )
    except (SyntaxError, ValueError, TypeError) as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint="--estimator") from error
    raise typer.BadParameter(
        f"no estimator of the lab begins with {text!r}, nor is it one such as 'IMLE(target=RelativeStep(0.3))'",
        param_hint="--estimator",
    )


def _value(node: ast.expr) -> Any:
    """Return a literal, or what a call of a public class of this library makes."""
    if isinstance(node, ast.Call):
        return _named(node.func)(
            *map(_value, node.args), **{str(each.arg): _value(each.value) for each in node.keywords}
        )
    return ast.literal_eval(node)


def _named(node: ast.expr) -> Any:
    name = node.id if isinstance(node, ast.Name) else ""
    kind = getattr(mapgrad, name) if name in mapgrad.__all__ else None
    kinds = mapgrad.Estimator, mapgrad.Target, mapgrad.StandardNoise, mapgrad.Relative, mapgrad.Centred
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise TypeError(f"{ast.unparse(node)} isn't an estimator, a target or a law of noise of mapgrad")
    return kind


def _show(report: Report, console: Console) -> None:
    from mapgrad.bench._lab_page import lab_notes, lab_tables

    for table in lab_tables(report):
        show_table(*table, console, left=("estimator",))
    for note in lab_notes(report):
        console.print(Text(note, "yellow"), soft_wrap=True)
    show_origin(report, console)
