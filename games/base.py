"""What every game and every solver of it looks like from outside.

A game is one folder under `games/` of the same few files:

- `problem.py`: `Problem`, a frozen dataclass of arrays, and the constructors that make it;
- `solution.py`: `Solution`, its JSON schema, the physical objective and lower bound;
- `rules.py`: `init`, `legal_actions`, `step`, `observe` in JAX, over a small `State`;
- `validator.py`: an independent numpy checker that shares no code with the rules;
- `picture.py`: the solution as people want to see it;
- `instances.py`: `read_instance(...)`, a problem by what a sweep's file says about it;
- `generator.py`, where an agent can be trained: `training_problem(seed)`, `test_problems(count)`.

Its solvers are in `baselines/<game>/`, whose `__init__` names them: `HEURISTICS` (fast, always run
first), `IMPROVE` (local search, which also takes `start`, `moves` and `stop`), `EXACT`, and
`prepare()`, which loads what is compiled, before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

SolutionT = TypeVar("SolutionT")


@dataclass(frozen=True)
class Result(Generic[SolutionT]):
    """What one solver made of one problem; a table compares these like with like.

    Attributes:
        method: name of the solver.
        solution: the solution; it has passed the game's validator where `solve()` returns it.
        objective: its objective in the game's unit (lower is better).
        bound: a proven lower bound on any solution's objective, None if the solver proves none.
        wall_s: seconds the solver took.
        proved_optimal: the objective equals the bound within the solver's stated tolerance.
        curve: (seconds since the solver started, objective) at each improvement.
        detail: JSON-able facts that explain the result (evaluations, simulations, who won).
    """

    method: str
    solution: SolutionT
    objective: float
    bound: float | None = None
    wall_s: float = 0.0
    proved_optimal: bool = False
    curve: tuple[tuple[float, float], ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


# (problem, *, time_limit seconds, seed) -> Result: the same for greedy, annealing, CP-SAT.
Baseline = Callable[..., "Result[Any]"]


class Exact(NamedTuple):
    """A game's exact solver.

    Attributes:
        name: in tables.
        solve: its Result has a bound, and is proved if it is within `tolerance` of it.
        tolerance: relative gap that counts as none.
    """

    name: str
    solve: Baseline
    tolerance: float


class Game(Protocol):
    """The parts of a game that search, `solve()` and the shared tests call.

    `problem` is the static frozen dataclass; `arrays(problem)` is its padded JAX view, one shape
    per size bucket, which the functions of the rules take as their first argument, so that they
    can be jitted and vmapped over problems and states alike.
    """

    name: str
    unit: str

    def arrays(self, problem: Any) -> Any:
        """The problem as a pytree of padded arrays with masks; equal shapes within a bucket."""

    def init(self, arrays: Any) -> Any:
        """The state before the first move."""

    def legal_actions(self, arrays: Any, state: Any) -> Any:
        """bool[num_actions]; at least one is True until the game is done."""

    def step(self, arrays: Any, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """(state, reward, done); the rewards of a game add up to its normalised saving."""

    def observe(self, arrays: Any, state: Any) -> Any:
        """What a network or a prior sees: a pytree of features of the move to be made.

        Leaves that lead with num_actions are of the actions; in a dict, `edges`
        f32[num_actions, num_actions, ...] is of pairs of them.
        """

    def num_actions(self, arrays: Any) -> int:
        """Number of actions (a static property of the bucket)."""

    def prior_logits(self, arrays: Any, state: Any) -> Any:
        """f32[num_actions]: the game's own prior over actions, from features of the move."""

    def prior_value(self, arrays: Any, state: Any) -> Any:
        """f32[]: the game's own estimate of the rewards still to come."""

    def solution(self, problem: Any, actions: Any) -> Any:
        """The solution that a full sequence of actions stands for."""

    def objective(self, problem: Any, solution: Any) -> float:
        """The solution's objective in `unit`; lower is better."""

    def lower_bound(self, problem: Any) -> float:
        """A proven lower bound on the objective of any solution."""

    def validate(self, problem: Any, solution: Any) -> list[str]:
        """Every broken rule as one line; [] for a valid solution."""


@runtime_checkable
class StochasticGame(Game, Protocol):
    """A game in which chance moves too: its problem holds scenarios, recorded in advance.

    `step` replays what chance did in them. Search over `step` would see the future, so that a
    player may only look ahead by `sampled_step`; `solve()` starts no search on such a game.
    """

    def sampled_step(self, arrays: Any, state: Any, action: Any, key: Any) -> tuple[Any, Any, Any]:
        """As `step`, with chance drawn by a JAX key instead of replayed."""
