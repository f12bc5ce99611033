"""`hlo_frontend.tpu`: what needs no libtpu first, then real compilations."""

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from hlo_frontend import tpu
from hlo_frontend.errors import InputError

needs_libtpu = [
    pytest.mark.tpu,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu not installed"),
]


def test_strip_directories_keeps_the_last_part_only() -> None:
    text = (
        'FileNames\n1 "/home/someone/project/model.py"\n2 "<stdin>"\n3 "C:\\work\\net.py"\n'
        '%a = f32[] add(%b, %c), metadata={op_name="jit(f)/add" source_file="/x/y/z.py"}\n'
        '%d = f32[] custom-call(), backend_config="/not/a/path"\n'
    )
    assert tpu.strip_directories(text) == (
        'FileNames\n1 "model.py"\n2 "<stdin>"\n3 "net.py"\n'
        '%a = f32[] add(%b, %c), metadata={op_name="jit(f)/add" source_file="z.py"}\n'
        '%d = f32[] custom-call(), backend_config="/not/a/path"\n'
    )


def test_dump_is_deterministic(tmp_path: Path) -> None:
    tpu.write_dump("HloModule m\n", tmp_path / "a.txt.gz")
    tpu.write_dump("HloModule m\n", tmp_path / "b.txt.gz")
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()) == b"HloModule m\n"


def test_unknown_chip_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'v9': unknown, expected one of v4i, v4"):
        tpu.topology("v9")


def test_missing_libtpu_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'compiler-rl\[tpu\]'"):
        tpu.topology("v5e")


class TestWithLibtpu:
    pytestmark = needs_libtpu

    @pytest.mark.parametrize("chip", tpu.TOPOLOGIES)
    def test_every_chip_compiles(self, chip: str) -> None:
        x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)
        text = tpu.scheduled_text(tpu.compile_for_tpu(lambda a, b: a @ b, (x, x), chip))
        assert "is_scheduled=true" in text

    def test_assignment_off_leaves_all_in_slow_memory(self) -> None:
        x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
        on, off = (
            tpu.scheduled_text(tpu.compile_for_tpu(lambda a: (a @ a) @ a, (x,), "v5e", options))
            for options in ({}, tpu.ASSIGNMENT_OFF)
        )
        assert "S(1)" in on
        assert "S(1)" not in off

    def test_a_jitted_function_keeps_its_donation(self) -> None:
        x = jax.ShapeDtypeStruct((512, 512), jnp.float32)
        fn = jax.jit(lambda a: a + 1, donate_argnums=0)
        assert "input_output_alias" in tpu.scheduled_text(tpu.compile_for_tpu(fn, (x,), "v5e"))

    def test_arguments_without_arrays_are_an_input_error(self) -> None:
        with pytest.raises(InputError, match="at least one array"):
            tpu.compile_for_tpu(lambda: 1, (), "v5e")

    def test_the_script_writes_both_dumps_and_is_silent_on_stderr(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [
                sys.executable,
                *["-m", "experiments.programs", "mlp:layers=2,width=512", "--out"],
                tmp_path,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        assert {path.name for path in tmp_path.iterdir()} == {
            "mlp-layers2-width512.v5e.txt.gz",
            "mlp-layers2-width512.v5e.nomsa.txt.gz",
        }
