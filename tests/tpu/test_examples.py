"""The bundled dumps: they parse, they come in pairs, and they name no directory."""

import gzip
import re

import pytest
from jaxlib import _hlo

from hlo_frontend.errors import InputError
from hlo_frontend.examples import EXAMPLES, example_path


def read(name: str) -> str:
    return gzip.decompress(example_path(name).read_bytes()).decode()


@pytest.mark.parametrize("name", EXAMPLES)
def test_parses_and_names_no_directory(name: str) -> None:
    text = read(name)
    assert "is_scheduled=true" in text.splitlines()[0]
    assert not re.search(r'"[^"\n]*/[^"\n]*\.py"', text)
    assert not re.search(r'"/(work|tmp|root|home|usr)/', text)
    module = _hlo.hlo_module_from_text(text)
    assert sum(len(c.instructions()) for c in module.computations()) > 50


def test_every_program_comes_with_and_without_assignment() -> None:
    assigned = {name for name in EXAMPLES if not name.endswith(".nomsa")}
    assert {f"{name}.nomsa" for name in assigned} == set(EXAMPLES) - assigned
    for program in ("mlp", "alexnet", "strassen49", "decode", "scan_transformer", "resnet50"):
        assert f"{program}.v5e" in assigned


def test_assignment_is_off_where_the_name_says_so() -> None:
    for name in EXAMPLES:
        assert ("S(1)" in read(name)) != name.endswith(".nomsa"), name


def test_what_the_examples_are_there_to_show() -> None:
    assert "input_output_alias" in read("decode.v5e")
    assert "dynamic-update-slice" in read("decode.v5e")
    assert " while(" in read("scan_transformer.v5e")


def test_total_size_stays_small() -> None:
    assert sum(example_path(name).stat().st_size for name in EXAMPLES) < 600 * 1024


def test_unknown_example_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown, expected one of"):
        example_path("nonesuch")
