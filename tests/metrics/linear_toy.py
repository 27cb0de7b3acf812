"""A dual encoder whose cosine is linear in what is kept of each side, so that every metric can be worked out by hand.

A picture has 2 x 2 patches of 2 x 2 pixels and embeds as `(a, sqrt(1 - a^2), 0)`, a text embeds as
`(b, 0, sqrt(1 - b^2))`. Both have length one, so their cosine is exactly `a b`, with

    a = 0.1 + sum over patches of READ[i] x mean value of patch i,
    b = 0.1 + sum over tokens, BOS and EOS among them, of WORDS[token].

Replaced by zero, a patch or token takes its own term away and nothing else. Everything is float64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder, Frame, PreparedImage
from isthmus.encoders.layout import content_of, image_layout, text_layout
from isthmus.encoders.pictures import Picture
from isthmus.encoders.tower import Side, Tower
from isthmus.encoders.weights import fingerprint, version_of
from isthmus.explanation import Box
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs, pairs_of

BASE = 0.1
READ = (0.4, 0.5, -0.2, 0.25)
# Padding is loud: a leak of it drives b beyond 1, where there is no embedding.
WORDS = {"PAD": 5.0, "BOS": 0.05, "EOS": 0.05, "red": 0.25, "dog": -0.1, "runs": 0.15, "big": 0.1, "cat": 0.2}
WORDS["far"] = -0.2
_IDS = {word: number for number, word in enumerate(WORDS)}

# Terms of the patches of three pictures; a = 0.7, 0.3, -0.1. The texts: b = 0.5, 0.2, 0.9.
TERMS = ((0.4, 0.2, -0.1, 0.1), (-0.1, 0.3, -0.2, 0.2), (0.1, -0.4, 0.3, -0.2))
TEXTS = ("red dog runs", "cat far", "big red cat runs")
A = (0.7, 0.3, -0.1)
B = (0.5, 0.2, 0.9)


class _Block(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.factor * hidden


class _Reader(nn.Module):
    """Runs two blocks that undo each other; the module that holds the stack."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(2.0), _Block(0.5)])

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 2, stride=2, bias=False).double()
        self.read = nn.Parameter(torch.tensor((0.0, *READ), dtype=torch.float64))
        self.table = nn.Embedding(len(WORDS), 1).double()
        self.image_reader, self.text_reader = _Reader(), _Reader()
        with torch.no_grad():
            self.stem.weight.fill_(1 / 12)
            self.table.weight.copy_(torch.tensor(list(WORDS.values()), dtype=torch.float64)[:, None])

    def embed_image(self, inputs: Any) -> Tensor:
        patches = self.stem(inputs["pixel_values"]).flatten(2).transpose(1, 2)
        hidden = self.image_reader(nn.functional.pad(patches, (0, 0, 1, 0)))  # a CLS of zero in front
        a = BASE + (hidden[..., 0] * self.read).sum(-1)
        return torch.stack([a, (1 - a**2).sqrt(), torch.zeros_like(a)], -1)

    def embed_text(self, inputs: Any) -> Tensor:
        hidden = self.text_reader(self.table(inputs["input_ids"]))
        b = BASE + (hidden[..., 0] * inputs["attention_mask"]).sum(-1)
        return torch.stack([b, torch.zeros_like(b), (1 - b**2).sqrt()], -1)


class _Processing:
    """Pictures are `PreparedImage`s; words are tokens."""

    def pictures(self, pictures: Sequence[Any]) -> Any:
        values = torch.stack([one.pixel_values for one in pictures])
        frame = Frame(Box(0.0, 0.0, 4.0, 4.0), (4, 4), (4, 4))
        return {"pixel_values": values}, [frame] * len(values), [image_layout((2, 2), patch=2)] * len(values)

    def texts(self, texts: Sequence[str], *, truncate: bool) -> Any:
        spans = [[one.span() for one in re.finditer(r"\S+", text)] for text in texts]
        width = 2 + max(map(len, spans))
        ids = torch.full((len(texts), width), _IDS["PAD"])
        layouts = []
        for row, text, own in zip(ids, texts, spans, strict=True):
            names = ["BOS", *(text[a:b] for a, b in own), "EOS"]
            row[: len(names)] = torch.tensor([_IDS[name] for name in names])
            blank = [(0, 0)] * (width - len(own) - 1)
            special = ["BOS", *[None] * len(own), "EOS", *["PAD"] * (len(blank) - 1)]
            layouts.append(text_layout(text, [(0, 0), *own, *blank], special))
        mask = (ids != _IDS["PAD"]).long()
        return {"input_ids": ids, "attention_mask": mask}, layouts, [""] * len(texts)

    def shown(self, prepared: PreparedImage) -> Picture:
        pixels = (prepared.pixel_values.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        return Picture(Image.fromarray(np.ascontiguousarray(pixels)))


def picture(terms: Sequence[float]) -> PreparedImage:
    """A picture whose patches contribute `terms` to a."""
    values = torch.tensor(terms, dtype=torch.float64) / torch.tensor(READ, dtype=torch.float64)
    large = values.view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return PreparedImage(large.expand(3, 4, 4).clone())


def linear_toy() -> DualEncoder:
    """The toy; its reference set is one picture with a = 0.3 and the texts "cat" (b = 0.4) and "big far" (b = 0.1)."""
    model, processing = _Linear().eval(), _Processing()
    shown = processing.pictures([picture((0.05, 0.05, 0.05, 0.05))])
    said = processing.texts(["cat", "big far"], truncate=False)
    image = Tower(
        "image",
        model,
        model.embed_image,
        model.image_reader,
        "blocks",
        stem_input="pixel_values",
        reference=lambda: [(shown[0], content_of(shown[2]))],
    )
    text = Tower(
        "text",
        model,
        model.embed_text,
        model.text_reader,
        "blocks",
        lookup=(model, "table"),
        reference=lambda: [(said[0], content_of(said[1]))],
    )
    loaded = (fingerprint(model), version_of(model))
    return DualEncoder("linear toy", loaded, "", model, image, text, processing, None)


def linear_pairs(rows: Sequence[int] = (0, 1, 2), *, seed: int = 0) -> Pairs:
    """The three pairs of the toy, or some of them, named by their number."""
    images, texts = [picture(TERMS[i]) for i in rows], [TEXTS[i] for i in rows]
    return pairs_of(linear_toy(), images, texts, ids=[f"pair {i}" for i in rows], seed=seed)


def truths(side: Side, row: int) -> list[float]:
    """What each patch, or token, of a pair contributes to its cosine."""
    if side == "image":
        return [B[row] * term for term in TERMS[row]]
    return [A[row] * WORDS[word] for word in TEXTS[row].split()]


def given(pairs: Pairs, side: Side, *scores: Sequence[float]) -> Judged:
    """Hand-made maps of a side, one for each pair."""
    maps = [np.array(one, dtype=np.float64) for one in scores]
    shaped = [one.reshape(2, 2) if side == "image" else one for one in maps]
    return Judged(pairs, {side: tuple(Map(one) for one in shaped)}, "by hand")


def true_maps(pairs: Pairs, side: Side, *, factor: float = 1.0) -> Judged:
    """The true importances, times a factor."""
    rows = [int(name.split()[1]) for name in pairs.ids]
    return given(pairs, side, *([factor * one for one in truths(side, row)] for row in rows))
