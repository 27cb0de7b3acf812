"""Names of a block's parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

_HEADS = ("num_heads", "num_attention_heads")


@dataclass(frozen=True)
class Attention:
    """The self-attention of a block, as paths from the block.

    Attributes:
        module: what holds it; under eager attention it gives a tuple whose second part are the weights.
        query, key, value: the linear maps from states to queries, keys and values; all the same one where it gives
            them side by side.
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

    @property
    def fused(self) -> bool:
        """Whether one map gives queries, keys and values side by side."""
        return self.query == self.key == self.value

    @classmethod
    def named(cls, module: str) -> Attention:
        """Of a module with the names that CLIP gives its maps."""
        query, key, value, output = (f"{module}.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
        return cls(module, query, key, value, output)


def heads_of(holder: nn.Module) -> int | None:
    """How many heads a module of attention has; None where it does not tell."""
    return next((n for name in _HEADS if isinstance(n := getattr(holder, name, None), int)), None)
