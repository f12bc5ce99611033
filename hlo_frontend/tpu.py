"""Ahead-of-time compilation for real TPUs: the only code of the project that touches libtpu.

libtpu holds the production TPU compiler and needs no TPU to run it: JAX describes the chip by a
topology and compiles for that. The result is scheduled HLO with the compiler's own memory-space
assignment; with `ASSIGNMENT_OFF` it is the same program with everything in slow memory.

libtpu comes under the Google Cloud terms, so it is an optional extra that the user installs.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from hlo_frontend.errors import InputError

TOPOLOGIES: Mapping[str, str] = {
    "v4i": "v4 lite:2x2x1",
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
}
"""Chip name -> libtpu's name of the smallest topology of one host with that chip."""

ASSIGNMENT_OFF: Mapping[str, str] = {"xla_msa_enable": "DISABLED"}
"""Compiler options that leave every value in slow memory: the input of the memory game."""

# Logs off, and no lock file: several processes may compile ahead of time at once.
_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# What libtpu would otherwise ask the metadata server of a Cloud TPU host, and warn about.
_NO_TPU_HERE = {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}

# Where the text of an HLO module names source files: its file table, and older metadata.
_PATH = re.compile(r'(?m)(^\d+ "|source_file=")(?:[^"\n]*[/\\])([^"/\\\n]*")')


def libtpu_version() -> str:
    """Version of the installed libtpu, for example `0.0.52`."""
    _require_libtpu()
    return metadata.version("libtpu")


def quiet() -> None:
    """Keeps libtpu from writing logs, lock files and warnings; what the user has set stays.

    JAX loads libtpu with any backend, where it is installed: this has to come before the first.
    """
    settings = dict(_QUIET)
    # JAX looks for TPU chips when it is imported, and sets this where it finds none.
    if os.environ.get("TPU_SKIP_MDS_QUERY"):
        settings |= _NO_TPU_HERE
    for variable, value in settings.items():
        os.environ.setdefault(variable, value)


def topology(chip: str) -> topologies.TopologyDescription:
    """Compile-only devices of `chip`, one of `TOPOLOGIES`.

    The first call loads libtpu, which reads the environment once: `LIBTPU_INIT_ARGS` has to be set
    before. Variables that the user has set are left alone.
    """
    if chip not in TOPOLOGIES:
        raise InputError(f"chip {chip!r}: unknown, expected one of {', '.join(TOPOLOGIES)}")
    _require_libtpu()
    return _topology(TOPOLOGIES[chip])


def compile_for_tpu(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    chip: str,
    compiler_options: Mapping[str, str] | None = None,
) -> jax.stages.Compiled:
    """`fn(*args)` compiled for one core of `chip`.

    Args:
        fn: a JAX function; one that is already jitted keeps its own settings (donation, ...).
        args: its arguments, arrays or `jax.ShapeDtypeStruct`s, in pytrees: only shapes count.
        chip: one of `TOPOLOGIES`.
        compiler_options: options of the TPU compiler, for example `ASSIGNMENT_OFF`.
    """
    sharding = SingleDeviceSharding(topology(chip).devices[0])

    def placed(leaf: Any) -> Any:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            return leaf
        return jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            leaf.shape, leaf.dtype, sharding=sharding
        )

    shapes = jax.tree.map(placed, args)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes)):
        raise InputError("args: expected at least one array or jax.ShapeDtypeStruct, found none")
    jitted = fn if hasattr(fn, "lower") else jax.jit(fn)
    return jitted.lower(*shapes).compile(compiler_options=dict(compiler_options or {}))


def scheduled_text(compiled: jax.stages.Compiled) -> str:
    """The scheduled HLO text of `compiled`, without the directories of the user's source files."""
    text = compiled.as_text()
    if text is None:
        raise InputError("compiled function: this backend gives no HLO text")
    return strip_directories(text)


def strip_directories(text: str) -> str:
    """`text` (HLO) with every source file's path cut to its last part."""
    return _PATH.sub(r"\1\2", text)


def write_dump(text: str, path: Path) -> None:
    """Write `text` gzipped to `path`; equal texts give equal bytes."""
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _require_libtpu() -> None:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("libtpu is not installed: pip install 'compiler-rl[tpu]'")


@lru_cache
def _topology(name: str) -> topologies.TopologyDescription:
    quiet()
    return topologies.get_topology_desc(name, "tpu")
