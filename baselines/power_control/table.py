"""All policies by name."""

from __future__ import annotations

from baselines.power_control.policies import LADDERS, act, start
from baselines.power_control.simulate import Policy
from hlo_frontend.errors import InputError

POLICIES: dict[str, Policy] = {
    name: Policy(name, parameters, start, act) for name, parameters in LADDERS.items()
}


def get_policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        InputError: there is none.
    """
    if name not in POLICIES:
        raise InputError(f"--policy {name}: expected some of {', '.join(POLICIES)}, or all")
    return POLICIES[name]
