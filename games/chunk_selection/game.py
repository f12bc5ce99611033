"""The chunk-selection game as `games.base.Game` describes one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from games.chunk_selection import rules, solution, validator
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.rules import Arrays
from games.chunk_selection.solution import Selection


class ChunkSelection:
    """Satisfies `games.base.Game`; what each part does is written there."""

    name = "chunk_selection"
    unit = "expected loss"
    arrays = staticmethod(rules.make_arrays)
    init = staticmethod(rules.init)
    legal_actions = staticmethod(rules.legal_actions)
    step = staticmethod(rules.step)
    observe = staticmethod(rules.observe)
    prior_logits = staticmethod(rules.prior_logits)
    prior_value = staticmethod(rules.prior_value)
    objective = staticmethod(solution.objective)
    lower_bound = staticmethod(solution.lower_bound)
    validate = staticmethod(validator.validate)

    def num_actions(self, arrays: Arrays) -> int:
        """Each candidate of the bucket, and stopping."""
        return len(arrays.tokens) + 1

    def solution(self, problem: ChunkSelectionProblem, actions: npt.ArrayLike) -> Selection:
        """What was added before the game stopped."""
        order: list[int] = []
        left = problem.budget
        for action in np.asarray(actions).tolist():
            if action >= problem.size or action in order or problem.tokens[action] > left:
                break
            order.append(int(action))
            left -= int(problem.tokens[action])
        return Selection(tuple(order))


GAME = ChunkSelection()
