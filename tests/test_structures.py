"""Every way in which a tower may pool and lay out its positions, on tiny modules, against the modules' own code.

CLS, mean, last token, argmax of the ids, first end token, attention head; registers; with and without BOS; padding on
either side; and convolutional towers cut at modules that a user names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus
from cheap import CHEAP
from conftest import picture
from isthmus.encoders.pictures import open_picture
from state import untouched

WIDTH, BOS, END, PAD = 16, 97, 98, 0
PICTURES = [picture(i, size) for i, size in enumerate([(90, 70), (64, 128), (200, 60)])]
TEXTS = ["dog", "a dog on the grass", "two brown bears near the river"]
MEAN = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
METHODS = ["nib", "gradcam", "occlusion", "integrated-gradients"]
SIGNED = {"gradcam": {"relu": False}}  # cut off, a text of one token may have no map


class Block(nn.Module):
    """Self-attention over what a mask `(B, 1, T, T)` leaves, and an MLP, on a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        queries, keys, values = self.qkv(self.norm1(state)).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        state = state + self.out(mixed.transpose(1, 2).flatten(2))
        return state + self.mlp(self.norm2(state))


class Vision(nn.Module):
    """A vision transformer; `pool` is "cls", "mean" or "head", `registers` stand behind the CLS."""

    def __init__(self, pool: str, *, registers: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.patches = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.before = nn.Parameter(torch.randn(1, (pool == "cls") + registers, WIDTH))
        self.places = nn.Parameter(torch.randn(1, self.before.shape[1] + 16, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.probe = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.head = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.projection = nn.Linear(WIDTH, 8)

    def forward(self, pixels: Tensor) -> Tensor:
        state = self.patches(pixels).flatten(2).transpose(1, 2)
        state = torch.cat([self.before.expand(len(state), -1, -1), state], 1) + self.places
        for block in self.blocks:
            state = block(state)
        if self.pool == "head":
            pooled = self.head(self.probe.expand(len(state), -1, -1), state, state)[0][:, 0]
        else:
            pooled = state[:, 0] if self.pool == "cls" else state[:, self.before.shape[1] :].mean(1)
        return self.projection(pooled)


class Reading(nn.Module):
    """A text transformer that is causal or heeds a mask; `pool` says which position it reads."""

    def __init__(self, pool: str, *, causal: bool, masked: bool) -> None:
        super().__init__()
        self.pool, self.causal, self.masked = pool, causal, masked
        self.tokens, self.places = nn.Embedding(100, WIDTH), nn.Embedding(12, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.projection = nn.Linear(WIDTH, 8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool)
        seen = (seen.tril() if self.causal else seen)[None, None]
        numbers = torch.arange(ids.shape[1]).expand_as(ids)
        if self.masked:
            seen = (seen & mask[:, None, None].bool()) | torch.eye(ids.shape[1], dtype=torch.bool)
            numbers = (mask.cumsum(1) - 1).clamp(min=0)
        state = self.tokens(ids) + self.places(numbers)
        for block in self.blocks:
            state = block(state, seen)
        return self.projection(self.pooled(state, ids, mask))

    def pooled(self, state: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        rows = torch.arange(len(ids))
        if self.pool == "mean":
            return (state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if self.pool == "argmax":  # the end token's id is the highest
            return state[rows, ids.argmax(1)]
        if self.pool == "first end":
            return state[rows, (ids == END).int().argmax(1)]
        if self.pool == "first":
            return state[rows, mask.int().argmax(1)]
        return state[:, -1]


class Turning(nn.Module):
    """A residual block of a convolutional tower."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU())
        self.short = nn.Conv2d(before, after, 1, stride)

    def forward(self, state: Tensor) -> Tensor:
        return self.body(state) + self.short(state)


class Residual(nn.Module):
    """Stages whose blocks have names, a pooling between them, a head: no list holds the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Turning(8, 8, 1), Turning(8, 8, 1))
        self.layer2 = nn.Sequential(Turning(8, 12, 2), Turning(12, 12, 1))
        self.head = nn.Linear(12, 8)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.layer2(nn.functional.avg_pool2d(self.layer1(self.stem(pixels)), 2)).mean((2, 3)))


def tokenizer(*, start: bool, end: bool) -> Callable[[str], list[tuple[int, int, int]]]:
    def tokenize(text: str) -> list[tuple[int, int, int]]:
        words = [(1 + sum(map(ord, m[0])) % 90, m.start(), m.end()) for m in re.finditer(r"\w+", text)]
        return [*([(BOS, 0, 0)] if start else []), *words, *([(END, len(text), len(text))] if end else [])]

    return tokenize


def encoder(vision: nn.Module, reading: Reading, *, image_stack: Any = "blocks", **text: Any) -> Any:
    torch.manual_seed(0)
    for module in (vision, reading):
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0.0, 0.4)
    vision.eval(), reading.eval()
    options = {"start": text.pop("start", True), "end": text.pop("end", True)}
    return isthmus.from_towers(
        isthmus.Tower(
            "image", vision, lambda x: vision(x["pixel_values"]), vision, image_stack, stem_input="pixel_values"
        ),
        isthmus.Tower(
            "text",
            reading,
            lambda x: reading(x["input_ids"], x["attention_mask"]),
            reading,
            "blocks",
            lookup=(reading, "tokens"),
        ),
        image_processor=isthmus.image_processor(32, **MEAN),
        tokenizer=tokenizer(**options),
        max_tokens=12,
        pad=PAD,
        **text,
    )


def inputs_of(model: Any, side: str) -> Any:
    if side == "image":
        return model.processing.pictures([open_picture(one) for one in PICTURES])[0]
    return model.processing.texts(TEXTS, truncate=False)[0]


def check(model: Any, side: str, methods: list[str] = METHODS, **options: Any) -> None:
    """The tower resumes to its own code's output, batches equal singles, and nothing is left behind."""
    tower, inputs = model.tower(side), inputs_of(model, side)
    with torch.no_grad():
        own = tower.encode(inputs)
    for layer in range(tower.depth + 1):
        split = tower.split(inputs, layer)
        torch.testing.assert_close(split.embedding, own)
        torch.testing.assert_close(split.resume(split.hidden), own, rtol=1e-4, atol=1e-4)
    for method in methods:
        given = {"method": method, "sides": side, **CHEAP.get(method, {}), **SIGNED.get(method, {}), **options}
        with untouched(tower.model):
            together = isthmus.explain(model, PICTURES, TEXTS, **given)
        for one, image, text in zip(together, PICTURES, TEXTS, strict=True):
            scores, alone = (scores_of(found, side) for found in (one, isthmus.explain(model, image, text, **given)))
            assert np.abs(scores).max() > 0, method
            np.testing.assert_allclose(scores, alone, atol=5e-5 * max(1, np.abs(alone).max()), err_msg=method)


def scores_of(one: Any, side: str) -> Any:
    return one.image.scores if side == "image" else np.array([token.score for token in one.text.tokens])


TEXT_SIDE = Reading("mean", causal=False, masked=True)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pool", ["cls", "mean", "head"])
def test_pooling_of_pictures(pool: str, registers: int) -> None:
    model = encoder(Vision(pool, registers=registers), TEXT_SIDE)
    check(model, "image")
    found = isthmus.explain(model, PICTURES[0], TEXTS[0])
    assert found.image.scores.shape == (4, 4)
    expected = ["CLS", "REG1", "REG2"][: (pool == "cls") + registers]
    assert [special.name for special in found.image.special] == expected


READERS: dict[str, tuple[Reading, dict[str, Any]]] = {
    "first position, with a mask": (Reading("first", causal=False, masked=True), {}),
    "mean over the mask": (Reading("mean", causal=False, masked=True), {}),
    "mean over the mask, no BOS, no EOS": (Reading("mean", causal=False, masked=True), {"start": False, "end": False}),
    "argmax of the ids, causal, no mask": (Reading("argmax", causal=True, masked=False), {}),
    "first end token, causal, no mask": (Reading("first end", causal=True, masked=False), {"start": False}),
    "last token, padding at the left": (Reading("last", causal=True, masked=True), {"padding_side": "left"}),
    "last position, padding is read": (Reading("last", causal=False, masked=False), {"start": False}),
}


@pytest.mark.parametrize("case", READERS)
def test_pooling_of_texts(case: str) -> None:
    reading, options = READERS[case]
    model = encoder(Vision("mean"), reading, **options)
    check(model, "text")
    found = isthmus.explain(model, [PICTURES[0]] * 2, TEXTS[:2])[0]
    assert [word.text for word in found.text.words] == ["dog"]
    ends = [*(["BOS"] if options.get("start", True) else []), *(["EOS"] if options.get("end", True) else [])]
    padding = 12 - 1 - len(ends) if case == "last position, padding is read" else 0
    assert [special.name for special in found.text.special] == [*ends, *["PAD"] * padding]


def test_argmax_and_first_end_token_pool_one_position() -> None:
    """Unlike in a text that holds the end token twice: there the first counts, as argmax of equal ids gives it too."""
    ids = torch.tensor([[BOS, 5, END, 7, END, PAD]])
    found = []
    for pool in ("argmax", "first end"):
        torch.manual_seed(0)
        found.append(Reading(pool, causal=True, masked=False)(ids, torch.ones_like(ids)))
    torch.testing.assert_close(*found)


def test_what_a_causal_tower_pools_ahead_of_scores_nothing() -> None:
    """Tokens behind the first end token cannot matter, and the masking engine finds that they do not."""
    model = encoder(Vision("mean"), Reading("first end", causal=True, masked=False))
    inputs, layouts, _ = model.processing.texts(TEXTS[1:2], truncate=False)
    inputs["input_ids"][0, 2] = END
    target = torch.nn.functional.normalize(torch.randn(1, 8), dim=-1)
    found = isthmus.METHODS["occlusion"].function(model.text, inputs, target, layouts=layouts)
    assert float(found.scores[0, 1].abs()) > 1e-4
    assert float(found.scores[0, 3:].abs().max()) < 1e-6


def test_a_mask_that_is_not_heeded_is_not_offered() -> None:
    """Else removing a word by the mask would change nothing, and score it 0."""
    from isthmus.errors import OptionError

    model = encoder(Vision("mean"), Reading("argmax", causal=True, masked=False))
    assert set(inputs_of(model, "text")) == {"input_ids"}
    with pytest.raises(OptionError, match="takes no attention mask"):
        isthmus.explain(model, PICTURES[0], TEXTS[1], method="occlusion", sides="text", replacement={"text": "remove"})


NAMED = {
    "all blocks": ("layer1.0", "layer1.1", "layer2.0", "layer2.1"),
    "stages": ("layer1", "layer2"),
    "single modules": ("stem", "layer1.1.body.0", "layer2.0.short"),
}


@pytest.mark.parametrize("stack", ["all blocks", "stages"])
def test_a_convolutional_tower_is_cut_at_named_modules(stack: str) -> None:
    model = encoder(Residual(), TEXT_SIDE, image_stack=NAMED[stack])
    assert model.image.depth == len(NAMED[stack])
    check(model, "image", ["nib", "gradcam", "hirescam", "occlusion", "rise", "lime"])
    for layer, grid in ((0, (16, 16)), (model.image.depth, (4, 4))):
        found = isthmus.explain(model, PICTURES[0], TEXTS[0], method="gradcam", layer=layer, sides="image")
        assert found.image.scores.shape == grid


def test_m2ib_learns_gates_in_a_convolutional_tower() -> None:
    check(encoder(Residual(), TEXT_SIDE, image_stack=NAMED["all blocks"]), "image", ["m2ib"])


def test_nib_in_a_convolutional_tower_is_complete() -> None:
    model = encoder(Residual(), TEXT_SIDE, image_stack=NAMED["all blocks"])
    for layer in (1, 2, 3):
        found = isthmus.explain(model, PICTURES[0], TEXTS[0], layer=layer, sides="image", steps="auto")
        assert found.image.completeness.relative_delta < 0.02


def test_modules_that_do_not_follow_each_other_cannot_be_cut() -> None:
    """A residual runs beside the named modules, so that what is behind a cut is not all that remains."""
    from isthmus.errors import ModelError

    with pytest.raises(ModelError, match=r"cannot be cut at layer 3: its blocks do not read what"):
        encoder(Residual(), TEXT_SIDE, image_stack=NAMED["single modules"])
