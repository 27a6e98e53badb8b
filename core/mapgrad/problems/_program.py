"""Integer programs: linear constraints on integer, continuous and semi-continuous variables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems import _arguments as arguments
from mapgrad.problems import _features as features
from mapgrad.problems import _membership as membership
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._enumeration import integer_points
from mapgrad.problems._features import FEATURES
from mapgrad.problems._identity import digest_of, made, short
from mapgrad.problems._program_data import ProgramData
from mapgrad.problems._reformulation import reformulation
from mapgrad.problems._siblings import changed, priced
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from mapgrad.problems._arguments import Matrix
    from mapgrad.problems._file_model import FileModel

_LINPROG: Final = ("A_ub", "b_ub", "A_eq", "b_eq")
_BOUNDS: Final = ("lower", "upper", "integrality")
_STRUCTURE: Final = ("matrix", "integrality", "decision", "shape", *FEATURES)
_STORED: Final = (
    *("matrix", "row_lower", "row_upper", *_BOUNDS, "decision", "fixed", "_shape", *FEATURES, "objective", "offset"),
)
_COMPLETION_STEPS: Final = 2_000  # a call of SciPy takes as long as some two thousand steps elsewhere


class IntegerProgram(ProgramData):
    """All x with A_ub x ≤ b_ub, A_eq x = b_eq and lower ≤ x ≤ upper, some or all of them integer, as θ prices them.

    θ and z speak of the variables `decision`, in that order; z is a state if some values of the others complete it.
    What a solver maximises is ⟨θ, z⟩ + ⟨fixed, y⟩, with y the others. Arguments are named as in
    `scipy.optimize.linprog`; `from_rows` takes rows of two sides, which is how they are kept, and `replace` makes a
    program of the same coefficients at a small cost.

    Args:
        A_ub: [m, num_vars] numbers, dense or a `scipy.sparse` matrix or `SparseRows`; None means no such row.
        b_ub: [m] numbers; a row whose bound is +inf always holds and is dropped.
        A_eq: [k, num_vars] numbers, like A_ub.
        b_eq: [k] finite numbers.
        lower: Lower bounds, [num_vars] or one for all; -inf for none. Those of integer variables are rounded up.
        upper: Upper bounds, [num_vars] or one for all; +inf for none. Those of integer variables are rounded down.
        integrality: 1 or True for integer variables, 0 or False for continuous ones, [num_vars] or one for all.
        decision: Distinct columns that θ prices, integers in θ's flattened order; None means all, in order.
        fixed: Finite utilities of the other variables, in column order; None means zeros.
        shape: Shape of θ and z; None means (len(decision),).
        semicontinuous: 1 or True for variables that may be 0 in place of what lies within their bounds, [num_vars] or
            one for all; None means none.
        sos: Special ordered sets (type, columns, weights): in the order of the weights at most one variable (type 1) or
            two neighbours (type 2) aren't 0.
        indicators: Rows (variable, value, row, lower, upper) that hold where an integer variable with bounds 0 and 1
            has this value: lower ≤ ⟨row, x⟩ ≤ upper, with row [num_vars] numbers or a sparse [1, num_vars] matrix. One
            without any finite side is dropped.

    Attributes:
        num_vars: Number of variables.
        matrix: All rows, those of A_ub first.
        row_lower: Their lower sides, float64: -inf for the rows of A_ub, b_eq for those of A_eq.
        row_upper: Their upper sides, float64: b_ub, then b_eq.
        row_facts: Within which of them a row holds, `mapgrad.problems.RowFacts`.
        objective: What the file priced the variables with, [num_vars] float64, to be minimised; None where the program
            comes from no file. It plays no part in solving, comparing and hashing.
        offset: The constant of that objective.

    Raises:
        ProblemError: sizes disagree, a number is NaN or infinite where it mustn't be, bounds leave a variable no
            value, or `decision` or `shape` doesn't fit.
    """

    def __init__(
        self,
        *,
        A_ub: Matrix | None = None,  # noqa: N803 (this and A_eq are linprog's names)
        b_ub: ArrayLike | None = None,
        A_eq: Matrix | None = None,  # noqa: N803
        b_eq: ArrayLike | None = None,
        lower: ArrayLike = 0,
        upper: ArrayLike = 1,
        integrality: ArrayLike = 1,
        decision: ArrayLike | None = None,
        fixed: ArrayLike | None = None,
        shape: int | Sequence[int] | None = None,
        semicontinuous: ArrayLike | None = None,
        sos: Iterable[tuple[Any, ...]] = (),
        indicators: Iterable[tuple[Any, ...]] = (),
    ) -> None:
        size = arguments.number_of_variables(A_ub=A_ub, A_eq=A_eq, lower=lower, upper=upper, integrality=integrality)
        (less, most), (equal, right) = arguments.rows("ub", A_ub, b_ub, size), arguments.rows("eq", A_eq, b_eq, size)
        self.matrix = equal.below(less)
        self.row_lower = np.concatenate((np.full(len(most), -np.inf), right))
        self.row_upper = np.concatenate((most, right))
        vars(self).update(A_ub=less, b_ub=most, A_eq=equal, b_eq=right)
        self.integrality = arguments.integrality(integrality, size)
        self.lower, self.upper = arguments.box(lower, upper, self.integrality)
        self.decision = arguments.decision(decision, size)
        self.fixed = arguments.fixed(fixed, size - len(self.decision))
        self._shape = arguments.shape(shape, len(self.decision))
        self.semicontinuous = features.semicontinuous(semicontinuous, size)
        self.sos = features.sos(sos, size)
        self.indicators = features.indicators(indicators, self.integrality, self.lower, self.upper)
        self.objective = None
        self.offset = 0.0

    @staticmethod
    def from_rows(
        matrix: Matrix,
        row_lower: ArrayLike,
        row_upper: ArrayLike,
        *,
        lower: ArrayLike = 0,
        upper: ArrayLike = 1,
        integrality: ArrayLike = 1,
        decision: ArrayLike | None = None,
        fixed: ArrayLike | None = None,
        shape: int | Sequence[int] | None = None,
        semicontinuous: ArrayLike | None = None,
        sos: Iterable[tuple[Any, ...]] = (),
        indicators: Iterable[tuple[Any, ...]] = (),
    ) -> IntegerProgram:
        """Return the program of rows that have two sides, row_lower ≤ matrix x ≤ row_upper.

        Args:
            matrix: [m, num_vars] numbers, dense or a `scipy.sparse` matrix or `SparseRows`.
            row_lower: [m] numbers or one for all; -inf where a row has no lower side.
            row_upper: [m] numbers or one for all; +inf where a row has no upper side. A row without any is dropped.
            lower: This and the others are as in the constructor.
            upper: See there.
            integrality: See there.
            decision: See there.
            fixed: See there.
            shape: See there.
            semicontinuous: See there.
            sos: See there.
            indicators: See there.

        Raises:
            ProblemError: as the constructor; or no number lies between the sides of a row.
        """
        left = arguments.matrix("matrix", matrix)
        low, high = arguments.sides(row_lower, row_upper, left.shape[0])
        rowless = IntegerProgram(
            A_ub=SparseRows([], [], [0], (0, left.shape[1])),
            b_ub=[],
            lower=lower,
            upper=upper,
            integrality=integrality,
            decision=decision,
            fixed=fixed,
            shape=shape,
            semicontinuous=semicontinuous,
            sos=sos,
            indicators=indicators,
        )
        kept = np.isfinite(low) | np.isfinite(high)
        return rowless._with(matrix=left.select(kept), row_lower=low[kept], row_upper=high[kept])

    def replace(self, **changes: Any) -> IntegerProgram:
        """Return a program of the same coefficients with other sides, bounds or prices; what both share is kept once.

        Args:
            changes: Arguments of the constructor or of `from_rows` by name, but for the coefficients: `row_lower` and
                `row_upper` of the rows of `matrix`, or `b_ub` and `b_eq` if upper sides alone come first and equations
                then; and all from `lower` on. One number stands for all. A row may lose its last side, and stays. A new
                `decision` leaves each variable its utility in `fixed`, 0 if θ priced it, and makes `shape` that of a
                vector, unless these are given too. `objective` and `offset` are kept.

        Raises:
            ProblemError: as the constructor and `from_rows`; or `b_ub` or `b_eq` doesn't fit these rows.
            TypeError: there is no such argument, or it holds coefficients.
        """
        sibling = self._with(**changed(self, changes))
        if not changes.keys() & set(_STRUCTURE):
            shared = vars(self).keys() & {"others", "structure", "row_facts", "indicator_facts"}
            vars(sibling).update({name: vars(self)[name] for name in shared})
        return sibling

    def scaled(self, bits: int) -> IntegerProgram:
        """Return the program with other rows for the same points: for engines, whose tolerances are absolute.

        Args:
            bits: The largest coefficient of each row gets to [2^bits, 2^(bits + 1)) in absolute value; see
                `RowFacts.scaled`.
        """
        low, high = (self.row_facts.scaled_sides(bits, side) for side in (self.row_lower, self.row_upper))
        return self._with(matrix=self.row_facts.scaled(bits), row_lower=low, row_upper=high)

    def _with(self, **attributes: Any) -> IntegerProgram:
        return made(IntegerProgram, {name: getattr(self, name) for name in _STORED} | attributes)

    @cached_property
    def structure(self) -> str:
        """What programs have in common that one native model can serve, one after the other, as a hashable key.

        Equal for programs that may differ in `row_lower`, `row_upper`, `lower`, `upper` and `fixed` alone.
        """
        return digest_of("structure", self, _STRUCTURE)

    def reformulated(self, native: Collection[str] = ()) -> IntegerProgram:
        """Return an equivalent program that uses no features but some: this one where there is nothing to do.

        Its first columns are those of this program, with the same `decision`; 0/1 variables without utilities follow,
        which switch the bounds of variables, or sides of rows as far as these bounds allow.

        Args:
            native: Those of `features` that may stay.

        Raises:
            UnsupportedProblemError: a variable lacks a finite bound that is needed.
        """
        kept = self.features & set(native)
        if kept == self.features:
            return self
        if kept not in self._reformulations:
            self._reformulations[kept] = self._with(**reformulation(self, kept))
        return self._reformulations[kept]

    @cached_property
    def _reformulations(self) -> dict[frozenset[str], IntegerProgram]:
        return {}

    @cached_property
    def digest(self) -> str:
        """A stable name of the content: equal for equal problems, in every process and on every machine."""
        title = f"{type(self).__module__.partition('.')[0]}.{type(self).__qualname__}"
        added: list[str] = []
        if type(self) is not IntegerProgram:
            known = IntegerProgram.fields
            added = [name for name in type(self).fields if name not in known]
        return digest_of(title, self, ("structure", "row_lower", "row_upper", "lower", "upper", "fixed", *added))

    @staticmethod
    def from_mps(path: str | PathLike[str], *, max_bytes: int = 512 * 2**20) -> IntegerProgram:
        """Read a program from an MPS file, fixed or free; θ prices every variable, in column order.

        What the format leaves open: integer variables without bounds are 0/1; bounds and right sides from 1e20 on are
        infinite; a negative upper bound without a lower one makes that -inf, with a warning, as in CPLEX and Gurobi;
        the right side of the objective is minus its constant; PuLP's comment ``*SENSE:Maximize`` counts. Bounds of type
        SC and SI and the sections SOS and INDICATORS are read as CPLEX, Gurobi and SCIP write them.

        Args:
            path: Of a file whose name ends in .mps, .mps.gz or .mps.bz2.
            max_bytes: The most that the file may hold, unpacked.

        Returns:
            The program, with the file's costs in `objective` and `offset`, negated where the file asks to maximise.

        Raises:
            FileNotFoundError: there is no such file.
            ProblemError: the file is malformed, too large, or no mixed-integer linear program; the line is named.
        """
        from mapgrad.problems._mps_reader import read_mps  # bz2 and gzip take longer to import than all problems

        return IntegerProgram._from_file(path, read_mps(path, max_bytes))

    @staticmethod
    def from_lp(path: str | PathLike[str], *, max_bytes: int = 512 * 2**20) -> IntegerProgram:
        """Read a program from an LP file (.lp, .lp.gz or .lp.bz2) as HiGHS reads it; otherwise like `from_mps`.

        Semi-continuous variables are read; special ordered sets and indicator rows aren't.

        Raises:
            FileNotFoundError: there is no such file.
            MissingDependencyError: highspy isn't installed.
            ProblemError: as `from_mps`; what HiGHS alone finds wrong comes without a line.
        """
        from mapgrad.problems._lp_reader import read_lp

        return IntegerProgram._from_file(path, read_lp(path, max_bytes))

    @staticmethod
    def _from_file(path: str | PathLike[str], model: FileModel) -> IntegerProgram:
        others = {name: getattr(model, name) for name in (*_BOUNDS, *FEATURES)}
        try:
            program = IntegerProgram.from_rows(model.matrix, model.row_lower, model.row_upper, **others)
        except ProblemError as error:
            raise ProblemError(f"{path} holds no program: {error}") from error
        vars(program).update(objective=frozen_array(model.costs, np.float64), offset=model.offset)
        return program

    def to_mps(self, path: str | PathLike[str], theta: ArrayLike | None = None) -> None:
        """Write all but `decision`, `fixed` and `shape` to a .mps, .mps.gz or .mps.bz2 file, as `from_mps` reads it.

        Args:
            path: The file.
            theta: [*shape], for the costs −θ and −`fixed`; −inf fixes a variable at 0. None for `objective` and
                `offset`, zeros without them.

        Raises:
            ProblemError: a finite bound or right side is 1e20 or more in absolute value, or a semi-continuous variable
                has a negative lower bound or the upper bound 0; or θ has another shape, NaN or +inf.
        """
        from mapgrad.problems._mps_writer import write_mps

        full = self._full
        write_mps(full if theta is None else full._with(**priced(self, theta)), path)  # noqa: SLF001 (as `self._with`)

    def to_ilp(self) -> IntegerProgram:
        """Return this program itself."""
        return self

    def full(self) -> IntegerProgram:
        """Return the same constraints with every variable priced, in column order: shape (num_vars,)."""
        return self._full

    @cached_property
    def _full(self) -> IntegerProgram:
        if self.shape == (self.num_vars,) and np.array_equal(self.decision, np.arange(self.num_vars)):
            return self
        return self.replace(decision=None)

    def embed(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the utilities of all variables, [N, num_vars]: θ [N, *shape] at `decision`, `fixed` elsewhere."""
        utilities = np.empty((len(theta), self.num_vars))
        utilities[:, self.decision] = theta.reshape(len(theta), len(self.decision))
        utilities[:, self.others] = self.fixed
        return utilities

    def extract(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what θ prices, [N, *shape], of values of all variables, [N, num_vars]."""
        return x[:, self.decision].reshape(len(x), *self.shape)

    def completion_values(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return max ⟨fixed, y⟩ over the y that complete each state, by SciPy's milp.

        Args:
            z: [N, *shape] float64, states of this problem; not written to.

        Returns:
            float64 array [N].

        Raises:
            MissingDependencyError: scipy isn't installed, and is needed.
            ProblemError: a state isn't one, or what the others may add to it has no limit.
        """
        if not self.fixed.any():
            return super().completion_values(z)
        if self.features:
            return self.reformulated().completion_values(z)
        return membership.completion_values(self, z)

    def __repr__(self) -> str:
        """The constructor's call, without what is left at its default."""
        plain = {"lower": 0, "upper": 1, "integrality": 1} if len(self.row_upper) else {"upper": 1, "integrality": 1}
        default = {name: np.full(self.num_vars, value) for name, value in plain.items()}
        default |= {"decision": np.arange(self.num_vars), "fixed": np.zeros(len(self.others))}
        default |= {"b_ub": np.empty(0), "b_eq": np.empty(0), "shape": self.decision.shape}
        default |= {"semicontinuous": np.zeros(self.num_vars), "sos": (), "indicators": ()}
        hidden = {name for name, value in default.items() if np.array_equal(getattr(self, name), value)}
        hidden |= {"A_" + name[2:] for name in hidden if name.startswith("b_")}
        title, names = type(self).__name__, type(self).fields
        if self.num_inequalities is None:
            rows = ("matrix", "row_lower", "row_upper")
            title, names = f"{title}.from_rows", (*rows, *(name for name in names if name not in _LINPROG))
        shown = (f"{name}={short(getattr(self, name))}" for name in names if name not in hidden)
        return f"{title}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) is not IntegerProgram:
            return super().__reduce__()
        return made, (IntegerProgram, {name: getattr(self, name) for name in _STORED})

    def in_box(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        return membership.in_box(self, z)

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self.features and len(self.others):
            return self.reformulated().are_states(z)
        return membership.are_states(self, z)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        if not self.integrality[self.decision].all():
            raise ProblemError(f"{self!r} prices continuous variables: its states can't be enumerated")
        if not all(np.isfinite(bound[self.decision]).all() for bound in (self.lower, self.upper)):
            raise ProblemError(f"{self!r} prices variables without bounds: its states can't be enumerated; bound them")
        budget = self.enumeration_budget()
        for candidates in integer_points(self, budget):
            budget.spend(_COMPLETION_STEPS * len(candidates) if len(self.others) else 0)
            yield from candidates[self.are_states(candidates)]
