"""Heads of attention: what each adds to an embedding, and in what words (TextSpan; Gandelsman et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.reference import shapes_of, together
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.errors import InputError, OptionError
from isthmus.exemplars import phrases_of, pictures_of, whole
from isthmus.methods.decomposition import (
    Flow,
    Head,
    agree,
    bias_of,
    first_block,
    flow_of,
    projections_of,
    pulled,
    through,
)
from isthmus.targets import embeddings_of


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Embeddings `(B, D)`, not normalised, as sums of parts: `heads + mlp + rest + constants`, in float32 or better.

    L blocks from `first` on have H heads over T positions of c channels each. What goes through a head from each
    position is kept before it is projected, `(B, L, H, T, c)`, and projected when asked for: see `tokens`, `along`.

    Attributes:
        first: the first block that is taken apart.
        heads: `(B, L, H, D)` direct effect of each head, over all positions.
        mlp: `(B, L, D)` direct effect of each MLP.
        rest: `(B, D)` of the state that enters block `first`.
        constants: `(B, D)` of the biases of attention and head: nobody's.
        embedding: `(B, D)` the tower's own.
    """

    first: int
    heads: Tensor
    mlp: Tensor
    rest: Tensor
    constants: Tensor
    embedding: Tensor
    _flow: Tensor | None = field(repr=False)
    _out: Tensor = field(repr=False)
    _scale: Tensor = field(repr=False)

    def tokens(self, layer: int) -> Tensor:
        """`(B, H, T, D)` direct effects by head and position of block `layer` (as the tower counts).

        Raises:
            OptionError: no such block here, or positions were not kept (`decompose(..., tokens=True)`).
        """
        if not self.first <= layer < self.first + self.heads.shape[1]:
            raise OptionError(f"Blocks {self.first} to {self.first + self.heads.shape[1] - 1} are here, not {layer}.")
        one = layer - self.first
        return torch.einsum("bhtc,hcd,b->bhtd", self._kept()[:, one], self._out[one], self._scale)

    def along(self, vectors: Tensor) -> Tensor:
        """`(B, L, H, T, M)` dot products of all direct effects with vectors `(M, D)`: maps of M prompts at once.

        Sum over L and H and divide by `embedding.norm(dim=-1)` for units of the cosine.

        Raises:
            OptionError: positions were not kept, or the vectors have another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.embedding.shape[1]:
            raise OptionError(f"vectors must be (M, {self.embedding.shape[1]}), not {tuple(vectors.shape)}.")
        read = self._out @ vectors.to(self._out).T
        return torch.einsum("blhtc,lhcm,b->blhtm", self._kept(), read, self._scale)

    def _kept(self) -> Tensor:
        if self._flow is None:
            raise OptionError("Positions were not kept: call decompose with tokens=True.")
        return self._flow


def decompose(
    tower: Tower, inputs: Inputs, *, start_layer: float = 0, tokens: bool = True, memory: int | None = None
) -> Decomposition:
    """Take a tower's embeddings apart into direct effects of heads, positions and MLPs.

    The mathematics is that of `isthmus.methods.decomposition`; one pass gives what all prompts need.

    Args:
        tower, inputs: one side, B inputs of T positions.
        start_layer: the first block to take apart.
        tokens: keep positions, `B L H T c` numbers (25 MB for a picture in ViT-L/14), beside the heads' sums.
        memory: budget in bytes.

    Raises:
        OptionError: no such block.
        ModelError: attention without v_proj and out_proj; a head that pools more than one position, or is not a
            LayerNorm and a linear map.
    """
    with torch.inference_mode(False), torch.no_grad():
        first = first_block(tower, start_layer)
        split = tower.split(inputs, first)
        parts = _Parts(split, memory, tokens)
        in_chunks(parts.run, len(split.hidden), rows_at_once(split, memory))
        return parts.whole(first)


class _Parts:
    """Gathers a Decomposition chunk by chunk; the map from residual to embedding is that of the first input."""

    def __init__(self, split: Split, memory: int | None, tokens: bool) -> None:
        self.split, self.memory, self.tokens = split, memory, tokens
        self.embedding = split.embedding.to(accumulator(split.embedding.dtype))
        self.matrix = self.offset = self.out = self.embedding
        self.found: dict[int, dict[str, Tensor]] = {}

    def run(self, part: slice) -> None:
        rows = torch.arange(part.start, part.stop, device=self.embedding.device)
        seen = flow_of(self.split, rows)
        vectors = self.embedding[:1].expand(len(rows), -1)
        head = pulled(seen.head, seen.final, rows, vectors, self.memory)
        ends = head.at(seen.final)
        if part.start == 0:
            every = torch.eye(self.embedding.shape[1]).to(self.embedding)
            same = seen.final[:1].expand(len(every), -1, -1)
            self.matrix = pulled(seen.head, same, rows[:1].expand(len(every)), every, self.memory).weights
            self.offset = head.embedding[0] - self.matrix @ ends[0]
            self.out = torch.stack([projections_of(seen, layer) @ self.matrix.T for layer in seen.blocks])
        base = vectors[0] @ self.matrix
        scale = (head.weights @ base) / (base @ base)
        expected = ends @ self.matrix.T * scale[:, None] + self.offset
        otherwise = f"The {self.split.tower.side} tower's head is more than a LayerNorm and a linear map"
        agree(expected, head.embedding, self.split.hidden.dtype, otherwise)
        self.found[part.start] = self._parts(seen, head, scale)

    def _parts(self, seen: Flow, head: Head, scale: Tensor) -> dict[str, Tensor]:
        flows, heads, mlps, biases = [], [], [], torch.zeros_like(head.weights)
        entered = head.at(seen.hidden)
        for i, layer in enumerate(seen.blocks):
            flow = through(seen, layer, head.pooled)
            heads.append(torch.einsum("bhc,hcd,b->bhd", flow.sum(2), self.out[i], scale))
            left, attended = head.at(seen.left[layer]), head.at(seen.attended[layer])
            mlps.append((left - entered - attended) @ self.matrix.T * scale[:, None])
            entered = left
            biases = biases + bias_of(seen, layer)
            flows += [flow] if self.tokens else []
        found = {
            "heads": torch.stack(heads, 1),
            "mlp": torch.stack(mlps, 1),
            "rest": head.at(seen.hidden) @ self.matrix.T * scale[:, None],
            "constants": biases @ self.matrix.T * scale[:, None] + self.offset,
            "_scale": scale,
        }
        return found | ({"_flow": torch.stack(flows, 1)} if self.tokens else {})

    def whole(self, first: int) -> Decomposition:
        chunks = [self.found[start] for start in sorted(self.found)]
        parts: dict[str, Any] = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        parts.setdefault("_flow", None)
        return Decomposition(first=first, embedding=self.embedding, _out=self.out, **parts)


@dataclass(frozen=True)
class HeadName:
    """What a head of attention writes about, in words.

    Attributes:
        layer, head: block and head, both counted from 0.
        variance: variance of the head's direct effect over the pictures, summed over the joint space.
        phrases: `(phrase, share)`, in the order in which they were picked; `share` is the part of the variance, from 0
            to 1, along what the phrase adds to those before it.
    """

    layer: int
    head: int
    variance: float
    phrases: tuple[tuple[str, float], ...]

    @property
    def explained(self) -> float:
        """Part of the variance along all phrases, from 0 to 1."""
        return sum(share for _, share in self.phrases)


def name_heads(
    model: DualEncoder,
    pictures: Any,
    phrases: Sequence[str],
    *,
    per_head: int = 20,
    rank: int = 80,
    last_layers: int = 4,
    truncate: bool = False,
    batch_size: int = 32,
    memory: int | None = None,
) -> tuple[HeadName, ...]:
    """Name the heads of the image tower with phrases (TextSpan, Gandelsman et al., ICLR 2024, algorithm 1).

    Direct effects of a head on the embeddings of many pictures vary along a few directions; each phrase in turn is
    that along which they vary most, and is then projected out of the effects and of all phrases. The paper uses
    thousands of pictures and some 3,500 phrases; few of either give names that say little.

    Args:
        model: a loaded model.
        pictures: at least two pictures, paths, or folders (see `isthmus.exemplars.pictures_of`), or a Bank.
        phrases: what heads may be about.
        per_head: phrases for a head, at most; fewer where nothing is left to explain.
        rank: phrases are first projected on as many directions of largest variance.
        last_layers: how many of the last blocks, whose heads act on the embedding most directly; all if there are
            no more.
        truncate: cut phrases that are longer than the model reads.
        batch_size: pictures at once.
        memory: budget in bytes.

    Returns:
        One HeadName for each head, block by block.

    Raises:
        InputError: fewer than two pictures, no phrase, or one that cannot be used.
        OptionError: a number out of its range.
        ModelError: a tower of another build, see `decompose`.
    """
    numbers = {"per_head": per_head, "rank": rank, "last_layers": last_layers, "batch_size": batch_size}
    for name, value in numbers.items():
        whole(name, value)
    items, said = pictures_of(pictures), phrases_of(phrases)
    if len(items) < 2:
        raise InputError("Heads are named by how they vary over pictures: give at least two.")
    texts = embeddings_of(model, said, truncate=truncate)[0].double().cpu()
    first = max(0, model.image.depth - last_layers)
    effects = _effects(model, items, first, batch_size, memory).double().cpu()
    found = []
    for layer in range(effects.shape[1]):
        for head in range(effects.shape[2]):
            data = effects[:, layer, head]
            picked = text_span(data, texts, count=per_head, rank=rank)
            named = tuple((said[index], share) for index, share in picked)
            found.append(HeadName(first + layer, head, float(data.var(0, unbiased=False).sum()), named))
    return tuple(found)


def text_span(data: Tensor, texts: Tensor, *, count: int, rank: int) -> list[tuple[int, float]]:
    """Greedy choice of texts that span how data varies (algorithm 1 of the paper).

    Args:
        data: `(N, D)` direct effects; their mean is taken off.
        texts: `(M, D)` embeddings, projected on the `rank` directions of largest variance first.
        count, rank: see `name_heads`.

    Returns:
        `(index of the text, share of the variance that goes with it)`, at most `count`, in the order of choice; it
        ends where no text is left that varies with the data.
    """
    data = data - data.mean(0)
    total = float(data.square().sum())
    basis = torch.linalg.svd(data, full_matrices=False).Vh[:rank]
    texts = texts @ basis.T @ basis
    longest, found = float(texts.square().sum(-1).max()), []
    for _ in range(min(count, len(texts))):
        size = texts.square().sum(-1)
        spread = (data @ texts.T).square().sum(0)
        # What is left of a text that those before it span is rounding.
        spread[size <= 1e-12 * longest] = 0
        best = int((spread == spread.max()).nonzero()[0])
        share = float(spread[best] / size[best]) / total if total > 0 and spread[best] > 0 else 0.0
        if share <= 1e-12:
            break
        direction = texts[best] / size[best].sqrt()
        data = data - (data @ direction)[:, None] * direction
        texts = texts - (texts @ direction)[:, None] * direction
        found.append((best, share))
    return found


def _effects(model: DualEncoder, items: Sequence[Any], first: int, batch_size: int, memory: int | None) -> Tensor:
    """`(N, L, H, D)` direct effects of heads on the embeddings of pictures; those of one input size run together."""
    found: dict[int, Tensor] = {}
    for start in range(0, len(items), batch_size):
        by_size: dict[tuple[Any, ...], list[tuple[int, Inputs]]] = {}
        for i, item in enumerate(items[start : start + batch_size], start):
            picture = item if isinstance(item, PreparedImage) else open_picture(item)
            inputs = model.processing.pictures([picture])[0]
            by_size.setdefault(shapes_of(inputs), []).append((i, inputs))
        for same in by_size.values():
            joined = together([inputs for _, inputs in same])
            parts = decompose(model.image, joined, start_layer=first, tokens=False, memory=memory)
            found |= zip([i for i, _ in same], parts.heads, strict=True)
    return torch.stack([found[i] for i in range(len(items))])
