"""XLA's own HLO parser, printer and cost analysis, out of jaxlib.

This is the only module that touches jaxlib's private interface. A jaxlib that has moved it gives
one clear error; see `_api`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

from hlo_frontend.errors import InputError

_VERSION = version("jaxlib")
_MESSAGE_LENGTH = 240
_NEGATIVE_TILE = re.compile(r":T\([^)]*-")
_END = re.compile(r"\s*\}(, execution_thread=.*)?\s*$")
_PARAMETER = re.compile(r'\s+[^"]*? = [^"]*? parameter\((\d+)\)')


class _Api(NamedTuple):
    """What is used of jaxlib."""

    from_text: Any
    module: Any
    print_options: Any
    cost_analysis: Any
    client: Any


@cache
def _api() -> _Api:
    """The private interface, and a CPU client, without which jaxlib's cost analysis cannot run.

    The client is one of its own: the user may have told JAX to use no CPU (`JAX_PLATFORMS`).

    Raises:
        InputError: this jaxlib does not have it.
    """
    try:
        hlo = import_module("jaxlib._hlo")
        return _Api(
            hlo.hlo_module_from_text,
            hlo.HloModule,
            hlo.HloPrintOptions,
            import_module("jaxlib._jax").hlo_module_cost_analysis,
            import_module("jaxlib.xla_client").make_cpu_client(),
        )
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"jaxlib {_VERSION} does not offer XLA's HLO parser where this version looks"
            f" for it ({error}); install jaxlib 0.10.2"
        ) from error


def text_to_proto(text: str, where: str) -> bytes:
    """Parses HLO text into a serialized `HloModuleProto`.

    Args:
        text: HLO module text.
        where: names the input in the error message.

    Raises:
        InputError: the parser refuses it.
    """
    _check_fatal(text, where)
    try:
        return bytes(_api().from_text(text).as_serialized_hlo_module_proto())
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise _refusal(where, error) from error


def normalized(proto: bytes, where: str) -> bytes:
    """The module read and written by this jaxlib's XLA: checked, and free of version differences.

    Raises:
        InputError: XLA refuses it.
    """
    try:
        module = _api().module.from_serialized_hlo_module_proto(proto)
        return bytes(module.as_serialized_hlo_module_proto())
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise _refusal(where, error) from error


def proto_to_text(proto: bytes, *, metadata: bool) -> str:
    """HLO text of a serialized module; without `metadata` it names no source file.

    Large constants are elided.
    """
    options = _api().print_options()
    options.print_metadata = metadata
    return str(_api().module.from_serialized_hlo_module_proto(proto).to_string(options))


def cost_analysis(proto: bytes) -> dict[str, float] | None:
    """XLA's `HloCostAnalysis` of a serialized module, by property; None where XLA has none.

    Bytes are logical: they know nothing of tiles.
    """
    try:
        module = _api().module.from_serialized_hlo_module_proto(proto)
        return dict(_api().cost_analysis(_api().client, module))
    except RuntimeError:
        return None


def _check_fatal(text: str, where: str) -> None:
    """Refuses damage at which XLA's parser would not report an error but abort the process."""
    numbers: list[int] = []
    for count, line in enumerate(text.splitlines(), start=1):
        match = _PARAMETER.match(line)
        if match:
            numbers.append(int(match[1]))
        elif _END.match(line):
            if sorted(numbers) != list(range(len(numbers))):
                raise InputError(
                    f"{where}: the parameters of the computation that ends in line {count} are not"
                    " numbered 0, 1, 2, ...; lines are missing or doubled: write the dump again"
                )
            numbers = []
    if _NEGATIVE_TILE.search(text):
        raise InputError(f"{where}: a tile of a layout is negative; write the dump again")


def _refusal(where: str, error: Exception) -> InputError:
    """One line out of XLA's message, which may quote the input over many lines."""
    message = str(error)
    place = re.search(r"was parsing (\d+):(\d+): error: ([^\n]*)", message)
    if place:
        line, column, reason = place.groups()
        detail = f"line {line}, column {column}: {reason}"
    else:
        detail = message.strip().split("\n", maxsplit=1)[0]
    detail = " ".join(detail.split())[:_MESSAGE_LENGTH]
    return InputError(
        f"{where}: XLA's parser (jaxlib {_VERSION}) refuses this HLO: {detail};"
        " the file is damaged or comes from another XLA version: write the dump again with this"
        " one"
    )
