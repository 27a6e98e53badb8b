"""Suite `training`: what networks learn through each gradient, against the solver calls that it takes.

Each method trains the same networks on the same batches, with Adam, from a learning rate of the grid that leaves the
least regret on the *training* rows. Scores are means over seeds; differences are between runs of one seed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.bench._learning import BATCH, TASKS, LearningTask, new_solver
from mapgrad.bench._methods import LEAST_SQUARES, OBJECTIVES, PUBLISHED, PYEPO, SPO_PLUS, least_squares
from mapgrad.bench._report import Estimate, Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.data import Examples
from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.bench._clock import Effort
    from mapgrad.bench._methods import NewObjective

SEEDS: Final = 8
_QUICK_EPOCHS: Final = 2


@dataclass(frozen=True)
class Outcome:
    """What a method learns, with one learning rate.

    Attributes:
        train: Scores on the rows to learn from, in %, a number for each seed.
        test: The same on other rows; empty where a task has none.
        solves: Solver calls of each seed's run.
        rate: The learning rate, or nothing where there is none.
    """

    train: list[float] = field(default_factory=list[float])
    test: list[float] = field(default_factory=list[float])
    solves: list[float] = field(default_factory=list[float])
    rate: list[float] = field(default_factory=list[float])

    @torch.no_grad()
    def add(self, task: LearningTask, network: Callable[[Tensor], Tensor], solves: float) -> None:
        """Take in what a network of one seed has learnt."""
        self.train.append(task.score(network(task.train.features), task.train))
        if task.test is not None:
            self.test.append(task.score(network(task.test.features), task.test))
        self.solves.append(solves)


def measure(case: str, make: Callable[[int], LearningTask], effort: Effort) -> Iterator[Row]:
    """Yield a row for each method."""
    tasks = [make(seed) for seed in effort.seeds]
    outcomes: dict[str, Outcome] = {}
    notes: dict[str, str] = {}
    for name in (LEAST_SQUARES, *OBJECTIVES):
        known = effort.known.get(Row(case, name).key)
        if known is not None:
            outcomes[name] = Outcome(**{part: [*values] for part, values in known.runs.items()})
        elif effort.methods and not name.startswith(tuple(effort.methods)):
            notes[name] = "not run: not asked for"
        else:
            try:
                outcomes[name] = _fitted(tasks) if name == LEAST_SQUARES else _best(OBJECTIVES[name], tasks, effort)
            except Exception as error:
                if name != PYEPO and not isinstance(error, MapgradError):
                    raise
                notes[name] = f"not run: {error}"
    reference = PYEPO if PYEPO in outcomes else PUBLISHED
    for name in (LEAST_SQUARES, *OBJECTIVES):
        if name in outcomes:
            row = _row(case, name, outcomes[name], reference, outcomes.get(reference), outcomes.get(SPO_PLUS))
            at_end = {*outcomes[name].rate} & {tasks[0].rates[0], tasks[0].rates[-1]}
            yield replace(row, note="the best rate is the grid's first or last") if at_end else row
        else:
            yield Row(case, name, note=notes[name], judged=False)


def trained(
    method: NewObjective, task: LearningTask, solver: Solver, *, rate: float, seed: int, epochs: int
) -> Callable[[Tensor], Tensor]:
    """Return a network that has learnt.

    Args:
        method: Makes what is minimised.
        task: What is learnt.
        solver: Who answers in training.
        rate: Adam's learning rate.
        seed: Of the network's start, the order of rows and the noise.
        epochs: How often all rows are seen.
    """
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        network = task.network()
        objective = method(task, solver)
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for _ in range(epochs):
            shuffled = torch.randperm(len(task.train.features), generator=order)
            for first in range(0, len(shuffled), BATCH):
                batch = Examples(*(column[shuffled[first : first + BATCH]] for column in task.train))
                loss = objective(network(batch.features), batch)
                optimizer.zero_grad()
                loss.backward()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
                optimizer.step()  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    return network


def _best(method: NewObjective, tasks: Sequence[LearningTask], effort: Effort) -> Outcome:
    """Return what is learnt with the learning rate that leaves the least to gain on the training rows."""
    outcomes: list[Outcome] = []
    rates = tasks[0].rates
    for rate in rates[1:-1] if effort.is_quick else rates:
        outcome = Outcome(rate=[rate])
        for seed, task in zip(effort.seeds, tasks, strict=True):
            solver = new_solver(task.problem)
            epochs = _QUICK_EPOCHS if effort.is_quick else task.epochs
            network = trained(method, task, solver, rate=rate, seed=seed, epochs=epochs)
            outcome.add(task, network, solver.stats["solves"])
        outcomes.append(outcome)
    return min(outcomes, key=lambda outcome: sum(outcome.train))


def _fitted(tasks: Sequence[LearningTask]) -> Outcome:
    outcome = Outcome()
    for task in tasks:
        outcome.add(task, least_squares(task), 0.0)
    return outcome


def _row(
    case: str, name: str, outcome: Outcome, reference: str, of_reference: Outcome | None, of_spo_plus: Outcome | None
) -> Row:
    extra: dict[str, float | Estimate] = {"train, %": Estimate.of(outcome.train)}
    if outcome.test:
        extra["test, %"] = Estimate.of(outcome.test)
    if of_reference:
        extra[f"train − {reference}"] = Estimate.of_differences(outcome.train, of_reference.train)
    if of_spo_plus:
        extra[f"test − {SPO_PLUS}"] = Estimate.of_differences(outcome.test, of_spo_plus.test)
    extra["solves"] = mean(outcome.solves)
    if outcome.rate:
        extra["rate"] = outcome.rate[0]
    return Row(
        case,
        name,
        ratio=Spread.of_ratios(outcome.train, of_reference.train) if of_reference else None,
        against=reference,
        extra=extra,
        judged=name != PYEPO,
        runs=asdict(outcome),
    )


SUITE: Final = Suite(
    "Regret in % after training, mean ± standard error, against the solver calls that it takes",
    {name: partial(measure, name, make) for name, make in TASKS.items()},
    quick=("path 5×5, degree 4, noise 0.5",),
    methods=(LEAST_SQUARES, *OBJECTIVES),
    num_seeds=SEEDS,
)
