"""The model programs trace to what their names promise; no compiler is needed for that."""

import jax
import pytest

from experiments.programs import PROGRAMS
from experiments.programs.__main__ import parse_spec
from hlo_frontend.errors import InputError


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "resnet50_train"])
def test_traces(name: str) -> None:
    fn, args = PROGRAMS[name]()
    assert jax.tree.leaves(jax.eval_shape(fn, *args))


def test_strassen_makes_49_products_and_is_right() -> None:
    fn, _ = PROGRAMS["strassen49"](size=8)
    a, b = jax.random.normal(jax.random.key(0), (2, 8, 8))
    assert str(jax.make_jaxpr(fn)(a, b)).count("dot_general") == 49
    assert jax.numpy.allclose(fn(a, b), a @ b, atol=1e-4)


def test_spec() -> None:
    assert parse_spec("mlp") == ("mlp", {})
    assert parse_spec("mlp:layers=2,width=512") == ("mlp", {"layers": 2, "width": 512})
    for bad in ("nonesuch", "mlp:depth=2", "mlp:layers=two", "mlp:layers"):
        with pytest.raises(InputError):
            parse_spec(bad)
