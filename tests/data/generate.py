"""Writes the programs and tours in this folder, and `optima.txt` with what two engines prove of each.

Both engines read the programs themselves, without mapgrad: HiGHS and CBC. Tours are proved by CP-SAT's circuits and by
HiGHS, which is given cuts until its edges make one tour.

    python tests/data/generate.py
"""

import subprocess
from pathlib import Path

import cbcbox
import highspy
import numpy as np
from ortools.sat.python import cp_model

FOLDER = Path(__file__).parent


class Mps:
    """An MPS file, line by line."""

    def __init__(self, name, sense="MIN"):
        self.name, self.sense = name, sense
        self.rows, self.columns, self.sides, self.ranges, self.bounds = [("N", "COST")], [], [], [], []

    def row(self, kind, name, side, room=None):
        self.rows.append((kind, name))
        self.sides.append((name, side))
        if room is not None:
            self.ranges.append((name, room))

    def column(self, name, entries, bounds=(), integer=False):
        self.columns.append((name, [(row, value) for row, value in entries if value], integer))
        self.bounds += [(kind, name, value) for kind, value in bounds]

    def write(self):
        lines = [f"NAME          {self.name}"]
        if self.sense == "MAX":
            lines += ["OBJSENSE", "    MAX"]
        lines += ["ROWS", *(f" {kind}  {name}" for kind, name in self.rows), "COLUMNS"]
        is_integer = False
        for name, entries, integer in [*self.columns, ("", [], False)]:
            if integer != is_integer:
                lines.append(
                    f"    MARKER                 'MARKER'                 '{'INTORG' if integer else 'INTEND'}'"
                )
                is_integer = integer
            lines += [f"    {name:<8}  {row:<8}  {value:.12g}" for row, value in entries]
        for section, head, pairs in (("RHS", "RHS", self.sides), ("RANGES", "RNG", self.ranges)):
            lines += [section] * bool(pairs) + [f"    {head:<8}  {row:<8}  {value:.12g}" for row, value in pairs]
        lines.append("BOUNDS")
        for kind, name, value in self.bounds:
            lines.append(f" {kind} BND       {name:<8}  {'' if value is None else f'{value:.12g}'}".rstrip())
        path = FOLDER / "programs" / f"{self.name}.mps"
        path.write_text("\n".join([*lines, "ENDATA", ""]), encoding="ascii")
        return path


def knapsacks(rng):
    """General integers, ranges on all rows but one, to be maximised."""
    mps = Mps("knapsacks", "MAX")
    weights, worth = rng.integers(1, 30, (5, 20)), rng.integers(5, 40, 20)
    for row, side in enumerate(weights.sum(axis=1)):
        mps.row("L", f"R{row}", side, None if row == 0 else side // 4)
    for column in range(20):
        entries = [("COST", worth[column]), *((f"R{row}", weights[row, column]) for row in range(5))]
        mps.column(f"X{column}", entries, [("UP", 3)], integer=True)
    return mps.write()


def depots(rng):
    """Binary and continuous variables: depots with a price, and flows."""
    mps = Mps("depots")
    need, room = rng.integers(2, 12, 12), rng.integers(15, 40, 6)
    for customer in range(12):
        mps.row("E", f"N{customer}", need[customer])
    for depot in range(6):
        mps.row("L", f"D{depot}", 0)
        mps.column(f"OPEN{depot}", [("COST", rng.integers(20, 60)), (f"D{depot}", -room[depot])], [("BV", None)], True)
    for depot in range(6):
        for customer in range(12):
            entries = [("COST", rng.integers(10, 90) / 8), (f"N{customer}", 1), (f"D{depot}", 1)]
            mps.column(f"F{depot}_{customer}", entries)
    return mps.write()


def signed(rng):
    """Integers below zero, a free and a fixed continuous variable, and a constant in the objective."""
    mps = Mps("signed")
    for row, kind in enumerate("LGLG"):
        mps.row(kind, f"R{row}", int(rng.integers(-6, 7)), 9 if row < 2 else None)
    mps.row("E", "SUM", 0)
    mps.sides.append(("COST", -12.5))
    for column in range(12):
        entries = [("COST", int(rng.integers(-9, 10))), *((f"R{row}", int(rng.integers(-4, 5))) for row in range(4))]
        bounds = [("LO", -int(rng.integers(1, 6))), ("UP", int(rng.integers(0, 5)))]
        mps.column(f"X{column}", [*entries, ("SUM", 1)], bounds, integer=True)
    mps.column("FREE", [("COST", 0.25), ("R0", 0.5), ("SUM", -1)], [("FR", None)])
    mps.column("BELOW", [("COST", -0.125), ("R1", 1.5), ("SUM", 0.5)], [("MI", None), ("UP", 4)])
    mps.column("FIXED", [("COST", 3), ("R2", 2.25)], [("FX", -1.5)])
    return mps.write()


def lots(rng):
    """Lots over ten periods with set-up, stock and a backlog."""
    mps = Mps("lots")
    need = rng.integers(5, 25, 10)
    for period in range(10):
        mps.row("E", f"B{period}", need[period])
        mps.row("L", f"S{period}", 0)
    for period in range(10):
        follows = [(f"B{period + 1}", 1)] if period < 9 else []
        mps.column(f"MAKE{period}", [("COST", 1.5), (f"B{period}", 1), (f"S{period}", 1)])
        mps.column(f"SET{period}", [("COST", 40), (f"S{period}", -60)], [("BV", None)], integer=True)
        stock = [("COST", 0.75), (f"B{period}", -1), *follows]
        mps.column(f"STOCK{period}", stock, [("UP", 45)])
        late = [("COST", 2.25), (f"B{period}", 1), *((row, -1) for row, _ in follows)]
        mps.column(f"LATE{period}", late, [("UP", 20) if period < 9 else ("FX", 0)])
    return mps.write()


def covering(rng):
    """Sets that cover forty elements, each at least once, some at least twice and at most five times."""
    mps = Mps("covering")
    holds = rng.random((40, 60)) < 0.12
    holds[:, :2] |= (holds.sum(axis=1) < 2)[:, None]
    for row in range(40):
        mps.row("G", f"E{row}", 1 + row % 2, 3 if row % 5 == 0 else None)
    for column in range(60):
        entries = [("COST", rng.integers(3, 20)), *((f"E{row}", 1) for row in np.flatnonzero(holds[:, column]))]
        mps.column(f"S{column}", entries, [("BV", None)], integer=True)
    return mps.write()


def by_highs(path):
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("mip_rel_gap", 0)
    engine.readModel(str(path))
    engine.run()
    assert engine.getModelStatus() == highspy.HighsModelStatus.kOptimal, path
    return engine.getInfo().objective_function_value


def by_cbc(path):
    run = subprocess.run(
        [cbcbox.cbc_bin_path(), str(path), "-ratio", "0", "-solve", "-quit"], capture_output=True, text=True, check=True
    )
    assert "Optimal solution found" in run.stdout, run.stdout
    return float(next(line for line in run.stdout.splitlines() if line.startswith("Objective value")).split()[-1])


def tour_by_cp_sat(lengths):
    n = len(lengths)
    model = cp_model.CpModel()
    arcs = [(i, j, model.new_bool_var("")) for i in range(n) for j in range(n) if i != j]
    model.add_circuit(arcs)
    model.minimize(sum(int(lengths[i, j]) * arc for i, j, arc in arcs))
    solver = cp_model.CpSolver()
    assert solver.solve(model) == cp_model.OPTIMAL
    return round(solver.objective_value)


def tour_by_highs(lengths):
    n = len(lengths)
    tails, heads = np.triu_indices(n, 1)
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("mip_rel_gap", 0)
    edges = engine.addBinaries(len(tails))
    for node in range(n):
        engine.addConstr(sum(edges[e] for e in np.flatnonzero((tails == node) | (heads == node)).tolist()) == 2)
    while True:
        engine.minimize(sum(int(lengths[t, h]) * edges[e] for e, (t, h) in enumerate(zip(tails, heads, strict=True))))
        chosen = np.array(engine.getSolution().col_value) > 0.5
        part = {0}
        while True:
            grown = part | {
                k for t, h in zip(tails[chosen], heads[chosen], strict=True) if {t, h} & part for k in (t, h)
            }
            if grown == part:
                break
            part = grown
        if len(part) == n:
            return round(engine.getInfo().objective_function_value)
        inside = np.isin(tails, [*part]) & np.isin(heads, [*part])
        engine.addConstr(sum(edges[e] for e in np.flatnonzero(inside).tolist()) <= len(part) - 1)


def tours(rng):
    """Yield names, heads and sections of TSPLIB files, and the lengths of their edges."""
    n = 24
    points = rng.integers(0, 1000, (n, 2))
    apart = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
    coordinates = "NODE_COORD_SECTION\n" + "\n".join(f"{k + 1} {x} {y}" for k, (x, y) in enumerate(points.tolist()))
    yield "plane24", n, "EDGE_WEIGHT_TYPE : EUC_2D", coordinates, np.rint(apart)
    yield "pseudo24", n, "EDGE_WEIGHT_TYPE : ATT", coordinates, np.ceil(apart / np.sqrt(10))
    n = 16
    matrix = np.triu(rng.integers(10, 200, (n, n)), 1)
    matrix = matrix + matrix.T
    kinds = {
        "FULL_MATRIX": [*matrix],
        "UPPER_ROW": [matrix[k, k + 1 :] for k in range(n - 1)],
        "LOWER_DIAG_ROW": [matrix[k, : k + 1] for k in range(n)],
    }
    for kind, rows in kinds.items():
        section = "EDGE_WEIGHT_SECTION\n" + "\n".join(" ".join(map(str, row.tolist())) for row in rows)
        head = f"EDGE_WEIGHT_TYPE : EXPLICIT\nEDGE_WEIGHT_FORMAT : {kind}"
        yield f"{kind.split('_')[0].lower()}{n}", n, head, section, matrix


def main():
    rng = np.random.default_rng(0)
    optima = []
    for folder in ("programs", "tours"):
        (FOLDER / folder).mkdir(exist_ok=True)
    for make in (knapsacks, depots, signed, lots, covering):
        path = make(rng)
        highs, cbc = by_highs(path), by_cbc(path)
        assert abs(highs - cbc) <= 1e-6 * (1 + abs(highs)), (path, highs, cbc)
        optima.append(f"{path.stem} : {highs:.9g}")
    for name, n, head, section, lengths in tours(rng):
        text = f"NAME : {name}\nTYPE : TSP\nDIMENSION : {n}\n{head}\n{section}\nEOF\n"
        (FOLDER / "tours" / f"{name}.tsp").write_text(text, encoding="ascii")
        highs, cp_sat = tour_by_highs(lengths), tour_by_cp_sat(lengths)
        assert highs == cp_sat, (name, highs, cp_sat)
        optima.append(f"{name} : {highs}")
    (FOLDER / "optima.txt").write_text("\n".join([*optima, ""]), encoding="ascii")


if __name__ == "__main__":
    main()
