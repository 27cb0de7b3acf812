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
    """

    module: str
    query: str
    key: str
    value: str
    output: str
    plain: bool = True

    @classmethod
    def named(cls, module: str) -> Attention:
        """Of a module with the names that CLIP gives its maps."""
        query, key, value, output = (f"{module}.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
        return cls(module, query, key, value, output)
