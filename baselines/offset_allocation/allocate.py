"""The allocator that users call: heuristics first, then the exact search in two threads."""

from __future__ import annotations

from baselines.offset_allocation.exact import Descent
from baselines.offset_allocation.heuristics import HEURISTICS
from baselines.offset_allocation.incumbent import Incumbent
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets


def allocate(
    problem: OffsetProblem,
    *,
    time_limit: float,
    seed: int = 0,
    workers: int = 2,
    nodes: int | None = None,
) -> Result[Offsets]:
    """Offsets within the capacity if they are found in time, else the lowest peak found.

    Never worse than the heuristics. To lower the peak as far as it goes, give a problem with a
    smaller capacity, down to `problem.max_load`.

    Args:
        problem: what to allocate.
        time_limit: seconds; the first heuristic runs to its end in any case.
        seed: of the exact search.
        workers: threads of the exact search.
        nodes: a budget in decisions instead of the time limit; with one worker the result is then
            deterministic.

    Returns:
        The best solution. Where it does not fit, `detail["infeasible"]` says whether none can; and
        the peak is then the lowest found, lowest of all if it equals `bound`. Ctrl-C has the same
        effect as the time limit.
    """
    best = Incumbent(problem)
    bound = problem.max_load[0]
    detail: dict[str, object] = {"nodes": 0, "infeasible": bound > problem.capacity}
    try:
        for heuristic in HEURISTICS.values():
            result = heuristic(problem, time_limit=time_limit, seed=seed)
            best.offer(result.method, result.solution.offset)
            if best.peak <= problem.capacity:
                break
        else:
            descent = Descent(best, problem.capacity, seed, time_limit, nodes)
            descent.run(workers)
            bound, detail = descent.bound, descent.detail()
    except KeyboardInterrupt:
        if not best.curve:
            raise
    return best.result(best.method, bound=float(bound), **detail)
