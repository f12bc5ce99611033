"""Every kind of source gives the same program; bad ones give one line that says what to do."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hlo_frontend import InputError, Program, load, load_jax, read_text, xla_parser
from hlo_frontend.__main__ import main
from hlo_frontend.examples import example_path
from hlo_frontend.hlo_proto import ModuleProto
from hlo_frontend.xla_parser import text_to_proto

EXAMPLE = gzip.decompress(example_path("scan_transformer.v5e").read_bytes())
PROTO = text_to_proto(EXAMPLE.decode(), "example")


def same(a: Program, b: Program) -> bool:
    return replace(a, source="") == replace(b, source="")


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size >= 128:
        length, size = length + bytes([size % 128 | 128]), size // 128
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


FORMS = {
    "p.txt": EXAMPLE,
    "p.hlo": EXAMPLE,
    "p.txt.gz": gzip.compress(EXAMPLE),
    "p.pb": PROTO,
    "p.pb.gz": gzip.compress(PROTO),
    "proto.hlo.pb": field(1, PROTO),  # HloProto
    "snapshot.pb": field(1, field(1, PROTO)),  # HloSnapshot
    "misnamed.dat": PROTO,
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FORMS[name])
    program = load(path)
    assert program.source == str(path)
    assert same(program, load(EXAMPLE)) and same(program, load(str(path)))


def test_jax_function_and_compiled() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ x).sum(0)

    x = jnp.ones((32, 32))
    lowered = jax.jit(f).lower(x)
    compiled = lowered.compile()
    program = load(compiled)
    assert program.scheduled and program.steps
    assert same(program, load(lowered))
    assert same(program, load(compiled.as_text().encode()))
    for function in (f, jax.jit(f)):
        from_function = load_jax(function, jax.ShapeDtypeStruct((32, 32), jnp.float32))
        assert same(from_function, program) and from_function.source == "f"


def test_read_text_is_the_same_program_with_metadata() -> None:
    for source in (EXAMPLE, PROTO, example_path("scan_transformer.v5e")):
        text = read_text(source)
        assert same(load(text.encode()), load(EXAMPLE))
        assert "metadata={" in text and "%wide.arg_tuple.0" in text


def test_fingerprint_ignores_places_but_not_the_program() -> None:
    text = EXAMPLE.decode()
    fingerprint = load(EXAMPLE).fingerprint
    moved = re.sub(r'op_name="[^"]*"', 'op_name="elsewhere"', text)
    assert moved != text and load(moved.encode()).fingerprint == fingerprint
    renamed = text.replace("%fusion.97 ", "%fusion.970 ").replace("%fusion.97)", "%fusion.970)")
    renamed = re.sub(r"%fusion\.97,", "%fusion.970,", renamed)
    assert load(renamed.encode()).fingerprint != fingerprint
    other = text.replace("constant(8)", "constant(9)")
    assert load(other.encode()).fingerprint != fingerprint


def test_dump_folder_takes_the_largest_optimized_module(tmp_path: Path) -> None:
    small = b"HloModule s\n\nENTRY e {\n  ROOT %x = f32[] parameter(0)\n}\n"
    files = {
        "module_0000.jit_add.before_optimizations.txt": small,
        "module_0000.jit_add.cpu_after_optimizations.txt": small,
        "module_0001.jit_f.before_optimizations.txt": EXAMPLE + b"\n" * 99,
        "module_0001.jit_f.cl_1.after_optimizations.txt": EXAMPLE,
        "module_0001.jit_f.cl_1.after_optimizations_after_buffer_assignment.txt": EXAMPLE * 2,
        "module_0001.jit_f.cl_1.after_optimizations-buffer-assignment.txt": b"BufferAssignment:",
        "module_0001.jit_f.0007.pass.after_a.before_b.txt": EXAMPLE * 3,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert same(load(tmp_path), load(EXAMPLE))
    for name in files:
        if "after_optimizations" in name:
            (tmp_path / name).unlink()
    assert same(load(tmp_path), load(EXAMPLE))  # nothing optimized is left


def test_any_other_folder_must_hold_one_module(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not HLO")
    (tmp_path / "a.pb").write_bytes(PROTO)
    assert same(load(tmp_path), load(EXAMPLE))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(EXAMPLE))
    with pytest.raises(InputError, match=r"2 HLO modules .*\(a\.pb, b\.txt\.gz\).*name one"):
        load(tmp_path)


OLD = """HloModule m

ENTRY e {
  %x = f32[4]{0} parameter(0)
  ROOT %c = f32[4]{0} custom-call(%x), custom_call_target="t", api_version=API_VERSION_UNSPECIFIED
}
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
        (gzip.compress(EXAMPLE)[:-100], "damaged gzip"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"a poem\n", "no line starts with HloModule"),
        (b"HloModule m\n", "line 2, column 1: expects name"),
        (bytes(range(256)) * 9, "neither text nor a protobuf"),
        (PROTO[: len(PROTO) // 2], "neither text nor a protobuf"),
        (EXAMPLE[: len(EXAMPLE) // 2], r"refuses this HLO: line \d+, column \d+: "),
        (OLD.encode(), "Invalid API version: API_VERSION_UNSPECIFIED.*another XLA version"),
        (OLD.replace("custom-call(", "no-such-op(").encode(), "no-such-op"),
        (b"HloModule m\n\nENTRY e {\n  ROOT %x = f32[] parameter(1)\n}\n", "ends in line 5"),
        (
            b"HloModule m\n\nENTRY e {\n  ROOT %x = f32[4]{0:T(-3)} parameter(0)\n}\n",
            "tile of a layout is negative",
        ),
    ],
)
def test_bad_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_inconsistent_proto() -> None:
    """XLA's reader does not verify: an element that a tuple does not have gets through to us."""
    module = ModuleProto.FromString(PROTO)
    for computation in module.computations:
        for instruction in computation.instructions:
            if instruction.opcode == "get-tuple-element":
                instruction.tuple_index = 99
    with pytest.raises(InputError, match="contradicts itself"):
        load(module.SerializeToString())


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read \\(No such file or directory\\)"):
        load(tmp_path / "missing.txt")
    with pytest.raises(InputError, match="no HLO module in this folder"):
        load(tmp_path)
    with pytest.raises(InputError, match="int: expected a path"):
        load(3)
    with pytest.raises(InputError, match=r"function: .*use load_jax"):
        load(lambda x: x)


def test_another_jaxlib_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(xla_parser, "import_module", moved)
    xla_parser._api.cache_clear()
    with pytest.raises(InputError, match=r"jaxlib .* does not offer XLA's HLO parser.*install"):
        load(EXAMPLE)
    monkeypatch.undo()
    assert load(EXAMPLE).steps


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(EXAMPLE.rstrip()) - 1))
@example(cut=EXAMPLE.index(b"\n}\n") + 2)  # after a whole computation that is not the entry
def test_truncated_text(cut: int) -> None:
    check_refused(EXAMPLE[:cut])


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(PROTO) - 1))
def test_truncated_proto(cut: int) -> None:
    check_refused(PROTO[:cut])


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(EXAMPLE) - 1), byte=st.sampled_from(b"0123456789ab%(){}[],=. \n"))
def test_a_changed_letter(place: int, byte: int) -> None:
    check_refused(EXAMPLE[:place] + bytes([byte]) + EXAMPLE[place + 1 :], may_pass=True)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_garbage(content: bytes) -> None:
    check_refused(content)


def check_refused(content: bytes, *, may_pass: bool = False) -> None:
    """Either a program or one line."""
    try:
        load(content)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert may_pass


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example_path("scan_transformer.v5e"))]) == 0
    out = capsys.readouterr().out
    assert "steps        53 (" in out
    assert "loop         while: steps 12-49, 8 times" in out
    assert "assignment   16 stays in fast memory" in out
    assert main([str(tmp_path / "missing")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert main([]) == 2


def test_module_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "hlo_frontend", str(example_path("mlp.v5e"))],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "assignment   8 stays in fast memory, 5 copied in" in result.stdout
    assert result.stderr == ""
