"""Who solves: the contract for plugin authors, the hook, the registry and its look-ups."""

from mapgrad.solvers._contract import BatchSolver, InstanceSolver, MAPSolver, SolverSpec, Traits
from mapgrad.solvers._counter_noise import CounterNoise
from mapgrad.solvers._engines import EngineAnswer, EngineCall
from mapgrad.solvers._entries import SolverEntry, cost_of
from mapgrad.solvers._executor_names import executor_behind, executor_named, refusal_of_workers
from mapgrad.solvers._executor_specs import ExecutorSpec
from mapgrad.solvers._function import FunctionSolver, context_names, require_no_reserved
from mapgrad.solvers._hookspecs import hookimpl
from mapgrad.solvers._kernels import Shortcut, kernel
from mapgrad.solvers._limits import Limits
from mapgrad.solvers._listing import SolverInfo, entries_for, list_solvers
from mapgrad.solvers._lowering import Lowering, lower
from mapgrad.solvers._native_models import advice_on
from mapgrad.solvers._program_solver import ProgramSolver
from mapgrad.solvers._registry import register, unregister
from mapgrad.solvers._requests import Block, Progress, Request
from mapgrad.solvers._resolve import SolverFactory, SolverLike, require_solver, resolve, successor_of

__all__ = [
    "BatchSolver",
    "Block",
    "CounterNoise",
    "EngineAnswer",
    "EngineCall",
    "ExecutorSpec",
    "FunctionSolver",
    "InstanceSolver",
    "Limits",
    "Lowering",
    "MAPSolver",
    "ProgramSolver",
    "Progress",
    "Request",
    "Shortcut",
    "SolverEntry",
    "SolverFactory",
    "SolverInfo",
    "SolverLike",
    "SolverSpec",
    "Traits",
    "advice_on",
    "context_names",
    "cost_of",
    "entries_for",
    "executor_behind",
    "executor_named",
    "hookimpl",
    "kernel",
    "list_solvers",
    "lower",
    "refusal_of_workers",
    "register",
    "require_no_reserved",
    "require_solver",
    "resolve",
    "successor_of",
    "unregister",
]
