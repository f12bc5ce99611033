"""Power control: frequency caps that fit more servers under one breaker."""

from games.power_control.game import GAME

__all__ = ["GAME"]
