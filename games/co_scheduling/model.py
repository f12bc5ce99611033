"""Transformer models as the cost model sees them: the shapes of one layer, and how many there are.

The figures of `models.json` are those of the models' published configurations.
"""

from __future__ import annotations

from dataclasses import dataclass

from games.co_scheduling.files import entry, no_others, whole
from hlo_frontend.errors import InputError

BYTES = 2  # of a weight, an activation or a cached key: bf16
_REQUIRED = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")
_EXPERTS = ("experts", "experts_per_token")


@dataclass(frozen=True)
class Model:
    """A decoder of equal layers with grouped-query attention and a gated feed-forward part.

    Attributes:
        name: in the table, or the path of the user's file.
        layers: equal layers.
        hidden: width of the residual stream.
        heads, kv_heads: query heads, and key-value heads that groups of them share.
        head_dim: width of a head.
        ffn: width of the feed-forward part, of one expert where there are several.
        vocab: tokens of the vocabulary.
        experts, experts_per_token: 1 and 1 for a dense model.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    experts: int = 1
    experts_per_token: int = 1

    @property
    def kqv_width(self) -> int:
        """Columns of the joint key, query and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Parameters of a layer's matrices."""
        attention = self.hidden * (self.kqv_width + self.heads * self.head_dim)
        return attention + 3 * self.hidden * self.ffn * self.experts

    @property
    def parameters(self) -> int:
        """Parameters of all matrices: the layers, the embedding and the output head."""
        return self.layers * self.layer_weights + 2 * self.vocab * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes that the cache keeps of a token in one layer, on all devices together."""
        return 2 * self.kv_heads * self.head_dim * BYTES


def get_model(name: str) -> Model:
    """The model called `name`, or the one in a user's JSON file of that path.

    Raises:
        InputError: neither a model of the table nor a readable, complete file.
    """
    given = entry("model", "models.json", name)
    where = f"model {name}"
    no_others(where, given, (*_REQUIRED, *_EXPERTS))
    values = {key: whole(where, given, key) for key in _REQUIRED}
    values |= {key: whole(where, given, key) for key in _EXPERTS if key in given}
    model = Model(name=name, **values)
    if model.heads % model.kv_heads:
        raise InputError(
            f"{where}: {model.heads} heads do not share {model.kv_heads} key-value heads evenly"
        )
    if model.experts_per_token > model.experts:
        raise InputError(
            f"{where}: experts_per_token is {model.experts_per_token},"
            f" expected at most the {model.experts} experts"
        )
    return model
