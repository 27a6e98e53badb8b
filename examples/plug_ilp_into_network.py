"""When should a machine run tomorrow? Predict the electricity prices, then schedule it by an integer program.

The program is on/off scheduling, as in unit commitment: the machine runs at least 16 of 24 hours, with at most two
starts, each for two hours or more, or up to midnight. A linear network predicts the prices, which price the program's
variables.

Two-stage fits the prices by least squares and never sees the schedule. I-MLE and black-box start from its weights and
minimise what the network's schedules cost at the true prices, with gradients through the solver. Regret is what a
schedule costs on test days beyond the best one, in percent of the best one's costs.

Data: the Irish market (SEMO, 2011-2013) if the folder that the environment variable MAPGRAD_DATA names has
semo_energy/ICON_data.zip; else prices from the generator of Elmachtoub and Grigas as PyEPO publishes it, a polynomial
of degree 8 of five features, so that a linear network can't be right everywhere.

pip install 'mapgrad[all]' && python plug_ilp_into_network.py --solvers highs ortools.cp_sat
"""

import argparse
import copy
import csv
import io
import os
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import mapgrad

HOURS = 24
RUNNING, STARTS, AT_LEAST = 16, 2, 2  # hours on in a day, starts in a day, hours on after a start
TEST_DAYS = 150
BATCH = 20
# Known the day before: the calendar, and the grid operator's forecasts of wind, load and price.
FEATURES = (
    "HolidayFlag", "DayOfWeek", "WeekOfYear", "Month", "PeriodOfDay",
    "ForecastWindProduction", "SystemLoadEA", "SMPEA",
)  # fmt: skip


def machine() -> mapgrad.IntegerProgram:
    """Return the schedules on [24], followed by variables that θ doesn't price: 1 in each hour of a start."""
    one, none = np.eye(HOURS), np.zeros((HOURS, HOURS))
    row, empty_row = np.ones((1, HOURS)), np.zeros((1, HOURS))
    turned_on = one - np.eye(HOURS, k=-1)
    recent = sum(np.eye(HOURS, k=-lag) for lag in range(AT_LEAST))
    return mapgrad.IntegerProgram(
        A_ub=np.block(
            [
                [-row, empty_row],  # on long enough
                [empty_row, row],  # not too many starts
                [turned_on, -one],  # turning on is a start
                [-one, recent],  # no stop soon after a start
            ]
        ),
        b_ub=np.concatenate(([-RUNNING, STARTS], none[0], none[0])),
        decision=np.arange(HOURS),
    )


class Days(NamedTuple):
    """Features and prices of N days."""

    features: Tensor  # [N, size], or [N, 24, size] where every hour has its own
    prices: Tensor  # [N, 24]


def market_days(archive: Path) -> Days:
    """Return the days of the Irish market without gaps; eight features for each hour."""
    with zipfile.ZipFile(archive) as files, files.open("data/prices2013.dat") as file:
        table = csv.DictReader(io.TextIOWrapper(file), delimiter=" ", skipinitialspace=True)
        columns = np.array([[row[name] or "nan" for name in (*FEATURES, "SMPEP2")] for row in table], dtype=np.float64)
    days = columns.reshape(-1, HOURS, 2, len(FEATURES) + 1).mean(axis=2)  # the market has half hours
    days = days[np.isfinite(days).all(axis=(1, 2))]
    return Days(torch.tensor(days[..., :-1]).float(), torch.tensor(days[..., -1]).float())


def synthetic_days(count: int, rng: np.random.Generator, *, size: int = 5, degree: int = 8, width: float = 0.5) -> Days:
    """Return days whose prices are a polynomial of five features of the day, times uniform noise."""
    mixing = rng.integers(0, 2, (HOURS, size))
    features = rng.standard_normal((count, size))
    clean = (features @ mixing.T / size**0.5 + 3) ** degree / 3.5**degree + 1
    prices = clean * rng.uniform(1 - width, 1 + width, clean.shape)
    return Days(torch.tensor(features).float(), torch.tensor(prices).float())


def split_days(train_days: int, seed: int) -> tuple[str, Days, Days]:
    """Return the data's name, and days to train and to test on, standardised by those to train on."""
    rng = np.random.default_rng(seed)
    archive = Path(os.environ.get("MAPGRAD_DATA", ".")) / "semo_energy" / "ICON_data.zip"
    name = "SEMO prices" if archive.exists() else "synthetic prices"
    days = market_days(archive) if archive.exists() else synthetic_days(train_days + TEST_DAYS, rng)
    order = torch.tensor(rng.permutation(len(days.prices)))
    train, test = order[:train_days], order[train_days : train_days + TEST_DAYS]
    rows = days.features[train].flatten(0, -2)
    features = (days.features - rows.mean(dim=0)) / rows.std(dim=0)
    prices = days.prices / days.prices[train].std()
    return name, Days(features[train], prices[train]), Days(features[test], prices[test])


def least_squares(days: Days) -> nn.Module:
    """Return the linear network that fits the prices best: one for all hours, or one for each."""
    size = days.features.shape[-1]
    network = nn.Sequential(nn.Linear(size, 1), nn.Flatten()) if days.features.ndim == 3 else nn.Linear(size, HOURS)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (network(days.features) - days.prices).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return network


def train_through(layer: mapgrad.MAPLayer, network: nn.Module, days: Days, epochs: int) -> None:
    """Minimise what the schedules of the predicted prices cost at the true ones."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=epochs)
    for _ in range(epochs):
        for some in torch.randperm(len(days.prices)).split(BATCH):
            on = layer(network(days.features[some]))
            loss = (days.prices[some] * on).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def costs(solver: mapgrad.Solver, predicted: Tensor, days: Days) -> Tensor:
    """Return what the schedules that are best at the predicted prices cost at the true ones, [N]."""
    return (days.prices * solver(-predicted)).sum(dim=1)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return a mean and its standard error."""
    return values.mean().item(), values.std().item() / len(values) ** 0.5


def plot(output: Path, title: str, found: dict[tuple[str, str], Tensor], day: dict[str, Tensor], on: Tensor) -> None:
    """Save the regrets, and one test day: its prices, the predictions, and the hours that I-MLE's schedule runs."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    means, errors = zip(*map(mean_and_error, found.values()), strict=True)
    left.bar(["\n".join(key) for key in found], means, yerr=errors, capsize=4)
    left.set(title=title, ylabel="regret on test days, %")
    left.tick_params(axis="x", labelsize=7)
    for label, prices in day.items():
        right.plot(prices, "-" if label == "true" else "--", label=label)
    right.fill_between(range(HOURS), 0, on, step="mid", alpha=0.15, transform=right.get_xaxis_transform())
    right.set(title="a test day; shaded: on, by I-MLE", xlabel="hour", ylabel="price, in standard deviations")
    right.legend()
    figure.savefig(output, dpi=120)


def main(arguments: list[str] | None = None) -> dict[tuple[str, str], Tensor]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--days", type=int, default=250, help="days to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solvers", nargs="+", help="names from `mapgrad solvers`; by default two that are installed")
    parser.add_argument("--output", type=Path, default=Path("plug_ilp_into_network.png"))
    options = parser.parse_args(arguments)

    program = machine()
    installed = {info.name for info in mapgrad.list_solvers(program) if info.status == "ok"}
    preferred = [name for name in ("highs", "ortools.cp_sat", "pulp.cbc", "scipy.milp") if name in installed]
    estimators = {"two-stage": None, "I-MLE": mapgrad.IMLE(), "black-box": mapgrad.Blackbox(0.4 * BATCH)}

    torch.manual_seed(options.seed)
    title, train, test = split_days(options.days, options.seed)
    two_stage = least_squares(train)
    print(f"{title}: {len(train.prices)} days to train on, {len(test.prices)} to test on")
    print(f"{'method':10} {'solver':15} {'regret, %':>14} {'to two-stage':>19} {'trained in':>11}")

    found: dict[tuple[str, str], Tensor] = {}
    day = {"true": test.prices[0]}
    for name in options.solvers or preferred[:2]:
        with mapgrad.get_solver(name, program, workers=2) as solver:
            best = costs(solver, test.prices, test)
            for method, estimator in estimators.items():
                network = copy.deepcopy(two_stage)
                began = time.perf_counter()
                if estimator is not None:
                    torch.manual_seed(options.seed)
                    train_through(mapgrad.MAPLayer(solver, estimator, minimize=True), network, train, options.epochs)
                seconds = time.perf_counter() - began
                predicted = network(test.features).detach()
                found[method, name] = regret = 100 * (costs(solver, predicted, test) - best) / best.mean()
                mean, error = mean_and_error(regret)
                change, its_error = mean_and_error(regret - found["two-stage", name])
                print(
                    f"{method:10} {name:15} {mean:7.2f} ± {error:.2f} "
                    f"{change:+12.2f} ± {its_error:.2f} {seconds:9.1f} s"
                )
                day[method] = predicted[0]
    plot(options.output, title, found, day, mapgrad.get_solver("auto", program)(-day["I-MLE"]))
    print(f"saved {options.output}")
    return found


if __name__ == "__main__":
    main()
