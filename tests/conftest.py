"""Puts this folder on the path, for the checks that several folders of tests share."""

from __future__ import annotations

import os
import tempfile

# Tests compile the same functions of JAX again and again: once is enough for one run of a worker.
# Set before anything imports JAX; commands that tests start inherit it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="compiler-rl-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _FOLDER.name
