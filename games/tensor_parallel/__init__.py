"""Tensor-parallel strategies: how each tensor of a model is split over a mesh of devices."""

from games.tensor_parallel.game import GAME

__all__ = ["GAME"]
