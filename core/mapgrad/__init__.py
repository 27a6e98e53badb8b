"""Any combinatorial solver as a PyTorch layer: solvers as plugins, I-MLE and its relatives as gradients."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mapgrad import exact, testing
    from mapgrad.batching import Solver, get_solver
    from mapgrad.bench import tune
    from mapgrad.decorator import differentiable
    from mapgrad.distribution import PerturbAndMAP
    from mapgrad.errors import (
        ConformanceError,
        DomainError,
        InfeasibleError,
        MapgradError,
        MissingDependencyError,
        NonFiniteError,
        PluginError,
        ProblemError,
        RowsError,
        ShapeError,
        SolverCrashError,
        SolveTimeoutError,
        UnboundedError,
        UndecidedError,
        UnknownSolverError,
        UnsupportedProblemError,
    )
    from mapgrad.gradients import (
        IMLE,
        AdaptiveIMLE,
        AdaptiveStep,
        Blackbox,
        Centred,
        Combinatorial,
        Context,
        Estimator,
        Forward,
        Gaussian,
        Gumbel,
        Laplace,
        Logistic,
        Noise,
        Pending,
        RelativeStep,
        StandardNoise,
        Step,
        StraightThrough,
        SumOfGamma,
        Target,
    )
    from mapgrad.layer import MAPLayer
    from mapgrad.pipelining import pipelined
    from mapgrad.problems import (
        Arborescence,
        Assignment,
        AsymmetricTravelingSalesman,
        Domain,
        GridShortestPath,
        IntegerProgram,
        Knapsack,
        KSubset,
        Matching,
        Problem,
        Ranking,
        ShortestPath,
        SpanningTree,
        SparseRows,
        TravelingSalesman,
        columns_of,
    )
    from mapgrad.seeding import seed_layers
    from mapgrad.solutions import Solution, Solutions, Status
    from mapgrad.solvers import (
        BatchSolver,
        Block,
        CounterNoise,
        EngineAnswer,
        EngineCall,
        InstanceSolver,
        Limits,
        MAPSolver,
        ProgramSolver,
        Request,
        SolverInfo,
        SolverSpec,
        Traits,
        hookimpl,
        kernel,
        list_solvers,
        register,
        unregister,
    )

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "AdaptiveStep",
    "Arborescence",
    "Assignment",
    "AsymmetricTravelingSalesman",
    "BatchSolver",
    "Blackbox",
    "Block",
    "Centred",
    "Combinatorial",
    "ConformanceError",
    "Context",
    "CounterNoise",
    "Domain",
    "DomainError",
    "EngineAnswer",
    "EngineCall",
    "Estimator",
    "Forward",
    "Gaussian",
    "GridShortestPath",
    "Gumbel",
    "InfeasibleError",
    "InstanceSolver",
    "IntegerProgram",
    "KSubset",
    "Knapsack",
    "Laplace",
    "Limits",
    "Logistic",
    "MAPLayer",
    "MAPSolver",
    "MapgradError",
    "Matching",
    "MissingDependencyError",
    "Noise",
    "NonFiniteError",
    "Pending",
    "PerturbAndMAP",
    "PluginError",
    "Problem",
    "ProblemError",
    "ProgramSolver",
    "Ranking",
    "RelativeStep",
    "Request",
    "RowsError",
    "ShapeError",
    "ShortestPath",
    "Solution",
    "Solutions",
    "SolveTimeoutError",
    "Solver",
    "SolverCrashError",
    "SolverInfo",
    "SolverSpec",
    "SpanningTree",
    "SparseRows",
    "StandardNoise",
    "Status",
    "Step",
    "StraightThrough",
    "SumOfGamma",
    "Target",
    "Traits",
    "TravelingSalesman",
    "UnboundedError",
    "UndecidedError",
    "UnknownSolverError",
    "UnsupportedProblemError",
    "__version__",
    "columns_of",
    "differentiable",
    "exact",
    "get_solver",
    "hookimpl",
    "kernel",
    "list_solvers",
    "pipelined",
    "register",
    "seed_layers",
    "testing",
    "tune",
    "unregister",
]

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "exact": (),
    "testing": (),
    "batching": ("Solver", "get_solver"),
    "bench": ("tune",),
    "decorator": ("differentiable",),
    "distribution": ("PerturbAndMAP",),
    "errors": (
        "ConformanceError",
        "DomainError",
        "InfeasibleError",
        "MapgradError",
        "MissingDependencyError",
        "NonFiniteError",
        "PluginError",
        "ProblemError",
        "RowsError",
        "ShapeError",
        "SolverCrashError",
        "SolveTimeoutError",
        "UnboundedError",
        "UndecidedError",
        "UnknownSolverError",
        "UnsupportedProblemError",
    ),
    "gradients": (
        "IMLE",
        "AdaptiveIMLE",
        "AdaptiveStep",
        "Blackbox",
        "Centred",
        "Combinatorial",
        "Context",
        "Estimator",
        "Forward",
        "Gaussian",
        "Gumbel",
        "Laplace",
        "Logistic",
        "Noise",
        "Pending",
        "RelativeStep",
        "StandardNoise",
        "Step",
        "StraightThrough",
        "SumOfGamma",
        "Target",
    ),
    "layer": ("MAPLayer",),
    "pipelining": ("pipelined",),
    "seeding": ("seed_layers",),
    "problems": (
        "Arborescence",
        "Assignment",
        "AsymmetricTravelingSalesman",
        "Domain",
        "GridShortestPath",
        "IntegerProgram",
        "Knapsack",
        "KSubset",
        "Matching",
        "Problem",
        "Ranking",
        "ShortestPath",
        "SpanningTree",
        "SparseRows",
        "TravelingSalesman",
        "columns_of",
    ),
    "solutions": ("Solution", "Solutions", "Status"),
    "solvers": (
        "BatchSolver",
        "Block",
        "CounterNoise",
        "EngineAnswer",
        "EngineCall",
        "InstanceSolver",
        "Limits",
        "MAPSolver",
        "ProgramSolver",
        "Request",
        "SolverInfo",
        "SolverSpec",
        "Traits",
        "hookimpl",
        "kernel",
        "list_solvers",
        "register",
        "unregister",
    ),
}
_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}


def _load(name: str) -> Any:
    """Import a public name on first use: `import mapgrad` alone loads neither torch nor NumPy."""
    if name in _NAMES:
        return import_module(f"mapgrad.{name}")
    if name == "__version__":
        from importlib.metadata import version

        value = version("mapgrad")
    elif name in _MODULES:
        value = getattr(import_module(f"mapgrad.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'mapgrad' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    __version__: str
else:
    __getattr__ = _load  # unseen by type checkers, for which any name would exist
