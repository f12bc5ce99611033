"""Search over any game: `gumbel` for the moves of a batch of games, `play` for whole games."""

from compiler_rl.search.play import play

__all__ = ["play"]
