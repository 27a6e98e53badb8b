"""Who solves: the contract for plugin authors, the hook and the registry."""

from mapgrad.solvers._contract import (
    BatchSolver,
    InstanceSolver,
    MAPSolver,
    Solution,
    Solutions,
    SolverSpec,
    Status,
    Traits,
)

__all__ = ["BatchSolver", "InstanceSolver", "MAPSolver", "Solution", "Solutions", "SolverSpec", "Status", "Traits"]
