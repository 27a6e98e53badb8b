"""Who runs a solver's rows: the caller itself, threads, processes, or any executor. No module here imports torch."""

from mapgrad.workers._locks import new_lock
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._traces import detach, text_of
from mapgrad.workers._workers import Workers, WorkersLike, require_workers

__all__ = [
    "Job",
    "Runner",
    "Workers",
    "WorkersLike",
    "detach",
    "new_lock",
    "require_workers",
    "text_of",
]
