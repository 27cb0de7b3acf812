"""Names of a block's parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """The self-attention of a block, as paths from the block.

    Attributes:
        module: what holds it; under eager attention it gives a tuple whose second part are the weights.
        query, key, value: the linear maps from states to queries, keys and values.
        output: the linear map that reads what the heads give.
        plain: whether what it gives is added to the residual as it is; else it is scaled, or normalised first.
        whole: the module whose queries, keys and values come of one matrix; while they are read, an `Unfused` stands
            in for it, into which the other paths lead. None where the maps are separate.
    """

    module: str
    query: str
    key: str
    value: str
    output: str
    plain: bool = True
    whole: str | None = None

    @classmethod
    def in_one(cls, module: str, *, plain: bool = True) -> Attention:
        """Of a module whose maps are one matrix, such as `torch.nn.MultiheadAttention`; see `unfused.Unfused`."""
        query, key, value, output = (f"{module}.maps.{name}" for name in ("query", "key", "value", "output"))
        return cls(f"{module}.maps", query, key, value, output, plain, module)

    @classmethod
    def named(cls, module: str) -> Attention:
        """Of a module with the names that CLIP gives its maps."""
        query, key, value, output = (f"{module}.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
        return cls(module, query, key, value, output)
