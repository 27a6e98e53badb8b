"""States that a solver has returned for one feasible set, kept for what needs many of them and no solve."""

from mapgrad.pool._pool import StatePool, Version

__all__ = ["StatePool", "Version"]
