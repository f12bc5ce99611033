"""What training days said, see `experiments/train_power.py`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def tuned() -> Any:
    """What `train_power` wrote.

    `fit` and numbers of the `forecast`, `sensor` of the shield, `numbers` of the other families by
    oversubscription.
    """
    return json.loads(Path(__file__).with_name("tuned.json").read_text())
