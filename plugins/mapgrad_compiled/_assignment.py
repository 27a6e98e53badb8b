"""Assignments of rows to columns."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

import mapgrad
from mapgrad_compiled._kernels import INFEASIBLE, INTEGER, ROWS, STATES, STATUSES, subroutine, utilities


class Hungarian(mapgrad.InstanceSolver[mapgrad.Assignment, None]):
    """Shortest augmenting paths on the dense matrix, from prices that one bid of each row has set.

    Let c = −θ be costs, people i the smaller side of the matrix and jobs j the larger one. Prices v keep c_ij − v_j
    smallest at each person's job, and where jobs are left over v_j ≤ 0, with 0 for the free ones: so the linear
    program's optimality conditions hold. Each person in turn takes the job of smallest c_ij − v_j, and lowers its price
    until the second best is as good. Whoever loses a job by that gets one at last, by a shortest path in c_ij − v_j
    (Jonker and Volgenant, Computing 38, 1987). A row takes at most n² m steps for n people and m jobs.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> None:
        """Make the kernel ready."""
        _assign.ready()

    def solve_rows(self, state: None, block: mapgrad.Block) -> None:
        """Write an assignment of each row."""
        _assign(utilities(block), *self.problem.shape, block.z, block.status)


_vectorised: Final = njit(error_model="numpy", fastmath={"nnan", "nsz"})
"""For loops over numbers that are never NaN and whose zeros need no sign: else their minimum is found one by one."""


@_vectorised
def _smallest(values: Any) -> Any:
    low = np.inf
    for value in values:
        low = min(low, value)
    return low


@_vectorised
def _place(values: Any, value: Any, person_of: Any) -> Any:
    """Return the first free job of a value, or the first of that value where none is free."""
    count = len(values)
    place = 2 * count
    for j in range(count):
        key = j if person_of[j] < 0 else count + j
        place = min(place, key if values[j] == value else 2 * count)
    return place if place < count else place - count


@subroutine
def _bid(cost: Any, price: Any, person_of: Any, job_of: Any, distance: Any, waiting: Any) -> Any:
    """Give jobs to who bids most; return how many people wait for one, or -1 where someone may have none."""
    count = 0
    for i in range(len(cost)):
        own = cost[i]
        for j in range(len(own)):
            distance[j] = own[j] - price[j]
        low = _smallest(distance)
        if low == np.inf:
            return -1
        j = _place(distance, low, person_of)
        distance[j] = np.inf
        gap = _smallest(distance) - low
        loser = person_of[j]
        if loser >= 0 and (gap == 0.0 or gap == np.inf):
            loser = i
        else:
            person_of[j], job_of[i] = i, j
            if gap < np.inf:
                price[j] -= gap
        if loser >= 0:
            waiting[count] = loser
            count += 1
    return count


@subroutine
def _search(
    first: Any,
    cost: Any,
    price: Any,
    person_of: Any,
    job_of: Any,
    distance: Any,
    came_from: Any,
    open_price: Any,
    settled: Any,
    settled_at: Any,
) -> Any:
    """Give someone a job by a shortest path of changes; return whether there is one."""
    own = cost[first]
    for j in range(len(own)):
        open_price[j] = price[j]
        distance[j] = own[j] - price[j]
        came_from[j] = first
    count = 0
    while True:
        low = _smallest(distance)
        if low == np.inf:
            return False
        end = _place(distance, low, person_of)
        i = person_of[end]
        if i < 0:
            break
        settled[count], settled_at[count] = end, low
        count += 1
        distance[end], open_price[end] = np.inf, -np.inf  # nobody reaches it again
        own = cost[i]
        ahead = low - (own[end] - price[end])
        for j in range(len(own)):
            reached = own[j] - open_price[j] + ahead
            is_nearer = reached < distance[j]
            distance[j] = reached if is_nearer else distance[j]
            came_from[j] = i if is_nearer else came_from[j]
    for k in range(count):
        price[settled[k]] += settled_at[k] - low
    while i != first:
        i = came_from[end]
        person_of[end] = i
        job_of[i], end = end, job_of[i]
    return True


@mapgrad.kernel(ROWS, INTEGER, INTEGER, STATES, STATUSES)
def _assign(theta: Any, rows: Any, cols: Any, z: Any, status: Any) -> None:
    people, jobs = min(rows, cols), max(rows, cols)
    cost = np.empty((people, jobs))
    # Arrays of their own: views of one might overlap for all LLVM knows, which makes loops over them half as fast.
    price, distance, open_price, settled_at = np.empty(jobs), np.empty(jobs), np.empty(jobs), np.empty(jobs)
    person_of, came_from, settled = np.empty(jobs, np.int64), np.empty(jobs, np.int64), np.empty(jobs, np.int64)
    job_of, waiting = np.empty(people, np.int64), np.empty(people, np.int64)
    for row in range(len(theta)):
        utility, state = theta[row].reshape((rows, cols)), z[row].reshape((rows, cols))
        for i in range(rows):
            for j in range(cols):
                if rows <= cols:
                    cost[i, j] = -utility[i, j]
                else:
                    cost[j, i] = -utility[i, j]
        person_of[:] = -1
        price[:] = 0.0
        if people == jobs:
            price[:] = np.inf
            for i in range(people):
                for j in range(jobs):
                    price[j] = min(price[j], cost[i, j])
        count = -1
        if price.max() < np.inf:
            count = _bid(cost, price, person_of, job_of, distance, waiting)
        for number in range(count):
            person = waiting[number]
            if not _search(
                person, cost, price, person_of, job_of, distance, came_from, open_price, settled, settled_at
            ):
                count = -1
                break
        if count < 0:
            status[row] = INFEASIBLE
            continue
        state[...] = 0.0
        for i in range(people):
            if rows <= cols:
                state[i, job_of[i]] = 1.0
            else:
                state[job_of[i], i] = 1.0
