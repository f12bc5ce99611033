"""The co-scheduling game as `games.base.Game` describes one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.co_scheduling import rules, solution, validator
from games.co_scheduling.problem import CoSchedulingProblem
from games.co_scheduling.rules import MENUS, NUM_ACTIONS, Arrays
from games.co_scheduling.solution import Pipeline, make_pipeline


class CoScheduling:
    """Satisfies `games.base.Game`; what each part does is written there."""

    name = "co_scheduling"
    unit = "s"
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
        """The same for every problem."""
        del arrays
        return NUM_ACTIONS

    def solution(self, problem: CoSchedulingProblem, actions: npt.ArrayLike) -> Pipeline:
        """The pipeline that the actions make: menus first, then one nano-operation each."""
        played = np.asarray(actions, dtype=np.int64)
        arrays = rules.make_arrays(problem)
        state = rules.init(arrays)
        for action in played:
            if bool(rules.is_over(arrays, state)):
                break
            state = rules.place(arrays, state, jnp.asarray(action, jnp.int32))
        structure = rules.structure_of(problem, np.asarray(state.choice[:MENUS]))
        phase = np.asarray(state.phase, dtype=np.float64)
        level = np.asarray(state.level, dtype=np.int64)
        pipeline = make_pipeline(problem, structure, phase, level)
        if pipeline is None:
            raise RuntimeError("a game ended in an order that cannot be executed")
        return pipeline


GAME = CoScheduling()
