"""Policies played against scenarios, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from baselines.power_control import policies as ladders
from games.power_control.problem import NO_FAULTS, PowerProblem, chances_of, row_of
from games.power_control.rules import Chance, Row, State, Totals, advance, init, observation

# (parameters, state, observation, key) -> (state, action)
Act = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Policy:
    """A controller that runs inside the simulator, and outside of it.

    Attributes:
        name: in tables.
        parameters: a pytree of arrays.
        start: parameters -> the state that it keeps between decisions.
        act: (parameters, state, observation, key) -> (state, action).
        clairvoyant: it sees what no controller can: a bound, no rival.
    """

    name: str
    parameters: Any
    start: Callable[[Any], Any]
    act: Act
    clairvoyant: bool = False


_UNCAPPED = Policy("no_cap", ladders.LADDERS["no_cap"], ladders.start, ladders.act)


@cache
def _runner(start: Callable[[Any], Any], act: Act, keep: bool, by_scenario: bool) -> Any:
    """A jitted function over [P] policies x [E] scenarios."""

    def run(row: Row, chances: Chance, policy: Any, key: jax.Array) -> Any:
        def step(carry: Any, given: Any) -> Any:
            state, memory, delayed = carry
            chance, number = given
            chance = chance._replace(arrivals=chance.arrivals.astype(jnp.int32))
            seen = observation(row, state, delayed)
            memory, action = act(policy, memory, seen, jax.random.fold_in(key, number))
            state, true = advance(row, state, action, chance)
            kept = (action.astype(jnp.int8), state.applied.astype(jnp.int8), state.brake_left > 0)
            return (state, memory, chance.delayed), (*kept, true) if keep else None

        first: State = init(row)
        numbers = jnp.arange(chances.lost.shape[0])
        carry = (first, start(policy), chances.delayed[0])
        (state, _, _), kept = jax.lax.scan(step, carry, (chances, numbers))
        return state.totals, kept

    rows = Row(None, None, None, 0, None, None)  # type: ignore[arg-type]
    scenarios = jax.vmap(run, in_axes=(rows, 0, 0 if by_scenario else None, 0))
    return jax.jit(jax.vmap(scenarios, in_axes=(None, None, 0, None)))


def simulate(
    problem: PowerProblem,
    policies: Any,
    start: Callable[[Any], Any],
    act: Act,
    *,
    keep: bool = False,
    by_scenario: bool = False,
    seed: int = 0,
) -> tuple[Totals, Any]:
    """Plays policies of one kind against every scenario of the problem.

    Args:
        problem: row and scenarios.
        policies: parameters with a leading axis [P].
        start, act: of that kind of policy.
        keep: also return what happened at each step.
        by_scenario: the parameters have a second axis [E].
        seed: of the policies' own chance.

    Returns:
        Totals as numpy arrays with leading axes [P, E]; and (actions sent, actions in force,
        brake, readings) with leading axes [P, E, T], None if `keep` is not set.
    """
    keys = jax.random.split(jax.random.key(seed), problem.scenarios)
    runner = _runner(start, act, keep, by_scenario)
    done = runner(row_of(problem), chances_of(problem), policies, keys)
    totals, kept = jax.tree.map(np.asarray, done)
    return totals, kept


def play(problem: PowerProblem, policy: Policy, seed: int = 0) -> Totals:
    """Totals of one policy, leading axis [E]."""
    return record(problem, policy, seed, keep=False)[0]


def record(
    problem: PowerProblem, policy: Policy, seed: int = 0, *, keep: bool = True
) -> tuple[Totals, Any]:
    """(totals of one policy, what happened as `simulate` has it), leading axis [E]."""
    one = jax.tree.map(lambda leaf: leaf[None], policy.parameters)
    found = simulate(
        problem,
        one,
        policy.start,
        policy.act,
        keep=keep,
        by_scenario=policy.clairvoyant,
        seed=seed,
    )
    first: tuple[Totals, Any] = jax.tree.map(lambda leaf: leaf[0], found)
    return first


def unlimited(problem: PowerProblem) -> Totals:
    """Totals of the row without caps under a breaker that bears anything: what latency would be."""
    return play(replace(problem, budget_w=1e9, faults=NO_FAULTS), _UNCAPPED)
