"""Integer programs: linear constraints on integer and continuous variables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError, UndecidedError
from mapgrad.problems import _arguments as arguments
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._enumeration import integer_points
from mapgrad.problems._identity import short
from mapgrad.problems._optional import optional_module
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from mapgrad.problems._arguments import Matrix
    from mapgrad.problems._file_model import FileModel

_INTEGER_TOLERANCE: Final = 1e-6
_ROW_TOLERANCE: Final = 1e-6
_INTEGER_ROW_TOLERANCE: Final = 1e-9  # such a row is evaluated at integers: only its own coefficients are rounded
_COMPLETION_NODES: Final = 100_000
_INFEASIBLE: Final = 2  # among the statuses of scipy.optimize.milp
_COMPLETION_STEPS: Final = 2_000  # a call of SciPy takes as long as some two thousand steps elsewhere


class IntegerProgram(Problem):
    """All x with A_ub x ≤ b_ub, A_eq x = b_eq and lower ≤ x ≤ upper, some or all of them integer, as θ prices them.

    θ and z speak of the variables `decision`, in that order; z is a state if some values of the others complete it.
    What a solver maximises is ⟨θ, z⟩ + ⟨fixed, y⟩, with y the others. Arguments are named as in
    `scipy.optimize.linprog`.

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

    Attributes:
        num_vars: Number of variables.
        matrix: All rows, those of A_ub first.
        row_lower: [m + k] float64: -inf for the rows of A_ub, b_eq for those of A_eq.
        row_upper: [m + k] float64: b_ub, then b_eq.
        objective: What the file priced the variables with, [num_vars] float64, to be minimised; None where the program
            comes from no file. It plays no part in solving, comparing and hashing.
        offset: The constant of that objective.

    Raises:
        ProblemError: sizes disagree, a number is NaN or infinite where it mustn't be, bounds leave a variable no
            value, or `decision` or `shape` doesn't fit.
    """

    A_ub: SparseRows
    b_ub: NDArray[np.float64]
    A_eq: SparseRows
    b_eq: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]
    decision: NDArray[np.int64]
    fixed: NDArray[np.float64]
    objective: NDArray[np.float64] | None
    offset: float
    _shape: tuple[int, ...]

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
    ) -> None:
        size = arguments.number_of_variables(A_ub=A_ub, A_eq=A_eq, lower=lower, upper=upper, integrality=integrality)
        self.A_ub, self.b_ub = arguments.rows("ub", A_ub, b_ub, size)
        self.A_eq, self.b_eq = arguments.rows("eq", A_eq, b_eq, size)
        self.integrality = arguments.integrality(integrality, size)
        self.lower, self.upper = arguments.box(lower, upper, self.integrality)
        self.decision = arguments.decision(decision, size)
        self.fixed = arguments.fixed(fixed, size - len(self.decision))
        self._shape = arguments.shape(shape, len(self.decision))
        self.objective = None
        self.offset = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of θ and z."""
        return self._shape

    @property
    def num_vars(self) -> int:
        """Number of variables, priced by θ or not."""
        return self.A_ub.shape[1]

    @cached_property
    def matrix(self) -> SparseRows:
        """The coefficients of all rows, those of A_ub first."""
        return self.A_eq.below(self.A_ub)

    @cached_property
    def row_lower(self) -> NDArray[np.float64]:
        """Lower bounds of all rows, read-only: -inf for those of A_ub, b_eq for those of A_eq."""
        return frozen_array(np.concatenate((np.full(len(self.b_ub), -np.inf), self.b_eq)), np.float64)

    @cached_property
    def row_upper(self) -> NDArray[np.float64]:
        """Upper bounds of all rows, read-only: b_ub, then b_eq."""
        return frozen_array(np.concatenate((self.b_ub, self.b_eq)), np.float64)

    def scaled_rows(self, bits: int = 0) -> tuple[SparseRows, NDArray[np.float64], NDArray[np.float64]]:
        """Return all rows times powers of two: for engines, whose tolerances are absolute.

        Args:
            bits: The largest coefficient of each row gets to [2^bits, 2^(bits + 1)) in absolute value.

        Returns:
            What `matrix`, `row_lower` and `row_upper` become.
        """
        largest = np.zeros(len(self.row_upper))
        np.maximum.at(largest, self.matrix.row_of_entry, np.abs(self.matrix.data))
        _, exponents = np.frexp(largest)
        shifts = np.where(largest > 0, bits + 1 - exponents, 0)
        data = np.ldexp(self.matrix.data, shifts[self.matrix.row_of_entry])
        matrix = SparseRows(data, self.matrix.indices, self.matrix.indptr, self.matrix.shape)
        return matrix, np.ldexp(self.row_lower, shifts), np.ldexp(self.row_upper, shifts)

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bound of each priced variable: two read-only arrays of shape `shape`, maybe infinite."""
        lower, upper = (bound[self.decision].reshape(self.shape) for bound in (self.lower, self.upper))
        return frozen_array(lower, np.float64), frozen_array(upper, np.float64)

    @cached_property
    def largest(self) -> float:
        """The largest finite bound of a priced integer variable, in absolute value: 0 without any."""
        priced = self.decision[self.integrality[self.decision]]
        bounds = np.abs(np.concatenate((self.lower[priced], self.upper[priced])))
        return float(bounds[np.isfinite(bounds)].max(initial=0))

    @cached_property
    def unbounded_integers(self) -> NDArray[np.bool_]:
        """Which coordinates of z are integer and lack a bound: bool array of shape `shape`, read-only."""
        lacking = ~np.isfinite(self.lower) | ~np.isfinite(self.upper)
        return frozen_array((self.integrality & lacking)[self.decision].reshape(self.shape), np.bool_)

    @property
    def kappa(self) -> float:
        """Half the number of priced 0/1 variables, and at least 1: what a set has that is neither sparse nor dense."""
        binary = self.integrality & (self.lower == 0) & (self.upper == 1)
        return max(1.0, int(binary[self.decision].sum()) / 2)

    @cached_property
    def others(self) -> NDArray[np.int64]:
        """The columns that θ doesn't price, ascending, read-only."""
        priced = np.zeros(self.num_vars, dtype=np.bool_)
        priced[self.decision] = True
        return frozen_array(np.flatnonzero(~priced), np.int64)

    @classmethod
    def from_mps(cls, path: str | PathLike[str], *, max_bytes: int = 512 * 2**20) -> IntegerProgram:
        """Read a program from an MPS file, fixed or free; θ prices every variable, in column order.

        A row of two sides becomes two rows of A_ub, the upper sides of all rows first and then the lower ones, negated.
        What the format leaves open: integer variables without bounds are 0/1; bounds and right sides from 1e20 on are
        infinite; a negative upper bound without a lower one makes that -inf, with a warning, as in CPLEX and Gurobi;
        the right side of the objective is minus its constant; PuLP's comment ``*SENSE:Maximize`` counts.

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

        return _from_file(cls, path, read_mps(path, max_bytes))

    @classmethod
    def from_lp(cls, path: str | PathLike[str], *, max_bytes: int = 512 * 2**20) -> IntegerProgram:
        """Read a program from an LP file (.lp, .lp.gz or .lp.bz2) as HiGHS reads it; otherwise like `from_mps`.

        Raises:
            FileNotFoundError: there is no such file.
            MissingDependencyError: highspy isn't installed.
            ProblemError: as `from_mps`; what HiGHS alone finds wrong comes without a line.
        """
        from mapgrad.problems._lp_reader import read_lp

        return _from_file(cls, path, read_lp(path, max_bytes))

    def to_mps(self, path: str | PathLike[str]) -> None:
        """Write all in full form to a .mps, .mps.gz or .mps.bz2 file, for `from_mps` to read an equal program.

        The costs are `objective` and `offset`, zeros without them. The format has no place for `decision`, `fixed` and
        `shape`.

        Raises:
            ProblemError: a finite bound or right side is 1e20 or more in absolute value.
        """
        from mapgrad.problems._mps_writer import write_mps

        write_mps(self._full, path)

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
        unpriced = ("A_ub", "b_ub", "A_eq", "b_eq", "lower", "upper", "integrality")
        program = IntegerProgram(**{name: getattr(self, name) for name in unpriced})
        vars(program).update(objective=self.objective, offset=self.offset)
        return program

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
        x = np.zeros((len(z), self.num_vars))
        x[:, self.decision] = z.reshape(len(z), len(self.decision))
        integer = self.integrality[self.others]
        values = np.empty(len(z))
        for number, activity in enumerate(self.matrix.activities(x)):
            result = self._complete(self.row_lower - activity, self.row_upper - activity, self.fixed)
            if result.status != 0:
                raise ProblemError(
                    f"what a state of {self!r} is worth can't be told: SciPy's milp says {result.message!r}"
                )
            values[number] = self.fixed @ np.where(integer, result.x.round(), result.x)
        return values

    def __repr__(self) -> str:
        """The constructor's call, without what is left at its default."""
        plain = {"lower": 0, "upper": 1, "integrality": 1} if len(self.row_upper) else {"upper": 1, "integrality": 1}
        default = {name: np.full(self.num_vars, value) for name, value in plain.items()}
        default |= {"decision": np.arange(self.num_vars), "fixed": np.zeros(len(self.others))}
        default |= {"b_ub": np.empty(0), "b_eq": np.empty(0), "shape": self.decision.shape}
        hidden = {name for name, value in default.items() if np.array_equal(getattr(self, name), value)}
        hidden |= {"A_" + name[2:] for name in hidden if name.startswith("b_")}
        shown = (f"{name}={short(getattr(self, name))}" for name in self.fields if name not in hidden)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        _, content = super().__reduce__()
        return _restore, (*content, self.objective, self.offset)

    def in_box(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        flat, integer = z.reshape(len(z), len(self.decision)), self.integrality[self.decision]
        lower, upper = self.lower[self.decision], self.upper[self.decision]
        with np.errstate(invalid="ignore"):  # inf - inf, where z is refused anyway
            whole = ~integer | (np.abs(flat - flat.round()) <= _INTEGER_TOLERANCE)
            room = _ROW_TOLERANCE * np.maximum(1, np.abs(flat))
            inside = np.isfinite(flat) & whole & (flat >= lower - room) & (flat <= upper + room)
        return np.logical_and.reduce(inside, axis=1)

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        x = np.zeros((len(z), self.num_vars))
        x[:, self.decision] = z.reshape(len(z), len(self.decision))
        x[:, self.integrality] = x[:, self.integrality].round()
        activity = self.matrix.activities(x)
        room = self._row_tolerance * np.maximum(self.matrix.magnitudes(x), np.abs(self.row_upper))
        room = np.minimum(room, self._most_room)
        held = (activity >= self.row_lower - room) & (activity <= self.row_upper + room)
        answers: NDArray[np.bool_] = np.logical_and.reduce(held | ~self._is_settled, axis=1)
        if len(self.others):
            for number in np.flatnonzero(answers):
                least, most = (bound - activity[number] for bound in (self.row_lower, self.row_upper))
                answers[number] = self._completes(least - room[number], most + room[number])
        return answers

    @cached_property
    def _row_tolerance(self) -> NDArray[np.float64]:
        """The tolerance of each row, relative to the largest of its terms."""
        continuous = self.matrix.touches(~self.integrality)
        return np.where(continuous, _ROW_TOLERANCE, _INTEGER_ROW_TOLERANCE)

    @cached_property
    def _most_room(self) -> NDArray[np.float64]:
        """Half of one for rows of integers only, where a miss is a whole number: no tolerance may hide that."""
        fraction = np.flatnonzero(self.matrix.data % 1)
        whole = (self._row_tolerance == _INTEGER_ROW_TOLERANCE) & (self.row_upper % 1 == 0)
        whole[self.matrix.row_of_entry[fraction]] = False
        return np.where(whole, 0.5, np.inf)

    @cached_property
    def _is_settled(self) -> NDArray[np.bool_]:
        """Which rows speak of priced variables only."""
        other = np.zeros(self.num_vars, dtype=np.bool_)
        other[self.others] = True
        return ~self.matrix.touches(other)

    def _completes(self, row_lower: NDArray[np.float64], row_upper: NDArray[np.float64]) -> bool:
        """Tell whether the other variables can bring their part of each row within these bounds."""
        result = self._complete(row_lower, row_upper, np.zeros(len(self.others)))
        if result.x is None and result.status != _INFEASIBLE:
            raise UndecidedError(f"whether z can be completed isn't known: SciPy's milp says {result.message!r}")
        return result.x is not None

    def _complete(
        self, row_lower: NDArray[np.float64], row_upper: NDArray[np.float64], utilities: NDArray[np.float64]
    ) -> Any:
        """Return what SciPy says of the best values for the other variables, within these bounds on their rows."""
        optimize = optional_module(
            "scipy.optimize", "to complete z by values of the variables that θ doesn't price, a program", "scipy"
        )
        for presolve in (True, False):  # HiGHS's presolve may end in an error that it doesn't make without
            result = optimize.milp(
                -utilities,
                integrality=self.integrality[self.others],
                bounds=optimize.Bounds(self.lower[self.others], self.upper[self.others]),
                constraints=optimize.LinearConstraint(self._other_columns, row_lower, row_upper),
                options={"mip_rel_gap": 0.0, "node_limit": _COMPLETION_NODES, "presolve": presolve},
            )
            if result.x is not None or result.status == _INFEASIBLE:
                break
        return result

    @cached_property
    def _other_columns(self) -> Any:
        return self.matrix.to_scipy()[:, self.others]

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        if not self.integrality[self.decision].all():
            raise ProblemError(f"{self!r} prices continuous variables: its states can't be enumerated")
        if not all(np.isfinite(bound[self.decision]).all() for bound in (self.lower, self.upper)):
            raise ProblemError(f"{self!r} prices variables without bounds: its states can't be enumerated; bound them")
        budget = self.enumeration_budget()
        for candidates in integer_points(self, budget):
            budget.spend(_COMPLETION_STEPS * len(candidates) if len(self.others) else 0)
            yield from candidates[self.are_states(candidates)]


def _from_file(cls: type[IntegerProgram], path: str | PathLike[str], model: FileModel) -> IntegerProgram:
    try:
        return _restore(cls, model.arguments(), model.costs, model.offset)
    except ProblemError as error:
        raise ProblemError(f"{path} holds no program: {error}") from error


def _restore(
    cls: type[IntegerProgram], content: dict[str, Any], objective: NDArray[np.float64] | None, offset: float
) -> IntegerProgram:
    program = cls(**content)
    vars(program).update(objective=None if objective is None else frozen_array(objective, np.float64), offset=offset)
    return program
