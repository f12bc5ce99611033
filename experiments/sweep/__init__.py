"""Sweeps: every instance with every solver, limit and seed, as cells that can be resumed."""
