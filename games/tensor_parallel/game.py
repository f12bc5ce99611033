"""The tensor-parallel game as `games.base.Game` describes one."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from games.tensor_parallel import rules, solution, validator
from games.tensor_parallel.moves import Arrays, Line, arrays_of, line_of
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.solution import Strategies


class TensorParallel:
    """Satisfies `games.base.Game`; what each part does is written there."""

    name = "tensor_parallel"
    unit = "cost"
    init = staticmethod(rules.init)
    legal_actions = staticmethod(rules.legal_actions)
    step = staticmethod(rules.step)
    observe = staticmethod(rules.observe)
    prior_logits = staticmethod(rules.prior_logits)
    prior_value = staticmethod(rules.prior_value)
    objective = staticmethod(solution.objective)
    lower_bound = staticmethod(solution.lower_bound)
    validate = staticmethod(validator.validate)

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[ShardingProblem, Line] = WeakKeyDictionary()

    def line(self, problem: ShardingProblem) -> Line:
        """What the moves of a problem stand for; kept while the problem is."""
        if problem not in self._lines:
            self._lines[problem] = line_of(problem)
        return self._lines[problem]

    def arrays(self, problem: ShardingProblem) -> Arrays:
        """The line of moves, padded to the sizes of its bucket."""
        return arrays_of(self.line(problem))

    def num_actions(self, arrays: Arrays) -> int:
        """Options of a move, padding included."""
        return arrays.width

    def solution(self, problem: ShardingProblem, actions: npt.ArrayLike) -> Strategies:
        """The strategies after the moves; what is no move is as planned."""
        line = self.line(problem)
        options = line.plan.copy()
        played = np.asarray(actions)
        for move, decision in enumerate(line.decisions.tolist()):
            options[decision] = line.options[move][int(played[move])]
        return Strategies(line.graph.expand(options))


GAME = TensorParallel()
