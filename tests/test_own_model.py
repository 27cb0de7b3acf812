"""A user's own PyTorch model: the one of docs/models.md, and what is said where a part is missing or does not fit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus
from cheap import CHEAP
from conftest import EXAMPLES, ROOT, picture
from isthmus.encoders.layout import Piece
from isthmus.errors import IsthmusError, ModelError, OptionError
from isthmus.methods import METHODS
from state import untouched
from zoo_tokenizers import clip_tokenizer

TEXTS = ["dog", "a dog on the grass", "two brown bears sit near the river at night"]
PICTURES = [picture(i, size) for i, size in enumerate([(90, 70), (64, 128), (200, 60)])]
MEAN = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
OWN = {"tokenizer": clip_tokenizer(max_tokens=16), "max_tokens": 16}


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    """What the page's own code leaves behind."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("## A model of your own")[2]
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        exec(compile(code, "docs/models.md", "exec"), names)
    return names


@pytest.mark.parametrize("side", ["image", "text"])
def test_the_documented_model_resumes_to_its_own_embedding(documented: dict[str, Any], side: str) -> None:
    model, net = documented["model"], documented["net"].eval()
    if side == "image":
        inputs, _, _ = model.processing.pictures([*map(_opened, PICTURES)])
        with torch.no_grad():
            own = net.see(inputs["pixel_values"])
    else:
        inputs, _, _ = model.processing.texts(TEXTS, truncate=False)
        with torch.no_grad():
            own = net.read(inputs["input_ids"], inputs["attention_mask"])
    for layer in range(model.tower(side).depth + 1):
        split = model.tower(side).split(inputs, layer)
        torch.testing.assert_close(split.embedding, own, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(split.resume(split.hidden), own, rtol=1e-4, atol=1e-5)


def _opened(one: Any) -> Any:
    from isthmus.encoders.pictures import open_picture

    return open_picture(one)


@pytest.mark.parametrize("method", ["nib", "occlusion", "integrated-gradients", "gradcam", "rise", "m2ib"])
def test_the_documented_model_keeps_the_invariants(documented: dict[str, Any], method: str) -> None:
    model, options = documented["model"], {"method": method, **CHEAP.get(method, {})}
    with untouched(documented["net"]):
        together = isthmus.explain(model, PICTURES, TEXTS, **options)
    for one, image, text in zip(together, PICTURES, TEXTS, strict=True):
        alone = isthmus.explain(model, image, text, **options)
        assert one.image.scores.shape == (7, 7)
        assert [word.text for word in one.text.words] == text.split()
        assert (one.image.special, one.text.special) == ((), ())
        for a, b in (
            (one.image.scores, alone.image.scores),
            ([w.score for w in one.text.words], [w.score for w in alone.text.words]),
        ):
            np.testing.assert_allclose(a, b, atol=5e-6 * max(1, np.abs(b).max()))
    again = isthmus.explain(model, PICTURES, TEXTS, **options)
    assert [(one.image, one.text) for one in again] == [(one.image, one.text) for one in together]


def test_nib_is_complete_on_the_documented_model(documented: dict[str, Any]) -> None:
    found = isthmus.explain(documented["model"], PICTURES[0], TEXTS[1], steps="auto")
    assert found.image.completeness.relative_delta < 0.01
    assert found.text.completeness.relative_delta < 0.01


@pytest.mark.parametrize("method", ["chefer", "grad-eclip", "attnlrp", "clip-surgery", "textspan"])
def test_methods_that_read_attention_refuse_what_they_cannot_read(documented: dict[str, Any], method: str) -> None:
    """torch's own attention has one map for queries, keys and values, and gives no weights unless it is asked."""
    with pytest.raises(IsthmusError) as caught, untouched(documented["net"]):
        isthmus.explain(documented["model"], PICTURES[0], TEXTS[0], method=method)
    assert str(caught.value).endswith(".")


def test_torchs_second_path_is_back_afterwards(documented: dict[str, Any]) -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    isthmus.explain(documented["model"], PICTURES[0], TEXTS[0])
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_masked_copy_is_what_the_users_own_code_gives(documented: dict[str, Any]) -> None:
    """Occlusion by removal against the net itself, run on a text whose mask lacks the word."""
    net, model = documented["net"].eval(), documented["model"]
    found = isthmus.explain(model, PICTURES[0], TEXTS[1], method="occlusion", replacement={"text": "remove"})
    image = model.image.embed(model.processing.pictures([_opened(PICTURES[0])])[0])
    inputs, layouts, _ = model.processing.texts([TEXTS[1]], truncate=False)
    for piece, token in zip(layouts[0].pieces, found.text.tokens, strict=True):
        mask = inputs["attention_mask"].clone()
        mask[0, piece.position] = 0
        with torch.no_grad():
            whole, less = (net.read(inputs["input_ids"], m) for m in (inputs["attention_mask"], mask))
        cosines = [torch.cosine_similarity(one, image).item() for one in (whole, less)]
        assert token.score == pytest.approx(cosines[0] - cosines[1], abs=1e-5)


class Eyes(nn.Module):
    """A picture tower of which each part can be left out."""

    def __init__(self, *, convolution: bool = True, scrambled: bool = False) -> None:
        super().__init__()
        self.convolution, self.scrambled = convolution, scrambled
        self.patches = nn.Conv2d(3, 12, 8, stride=8) if convolution else nn.Linear(192, 12)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(12, 12), nn.GELU()) for _ in range(2))

    def forward(self, pixels: Tensor) -> Tensor:
        if self.convolution:
            state = self.patches(pixels).flatten(2).transpose(1, 2)
        else:
            state = self.patches(nn.functional.unfold(pixels, 8, stride=8).transpose(1, 2))
        if self.scrambled:
            state = state.flip(1)
        for block in self.blocks:
            state = block(state)
        return state.mean(1)


class Words(nn.Module):
    def __init__(self, width: int = 12, *, table: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(700, width) if table else None
        self.weight = nn.Parameter(torch.randn(700, width))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(2))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        state = self.weight[ids] if self.table is None else self.table(ids)
        for block in self.blocks:
            state = block(state)
        return (state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class Featured(nn.Module):
    """An own model that speaks transformers' two methods, without a configuration."""

    def __init__(self, eyes: nn.Module, words: Any) -> None:
        super().__init__()
        self.eyes, self.words = eyes, words

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return self.eyes(pixel_values)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.words(input_ids, attention_mask)


class Alone(nn.Module):
    """No two modules of a kind run one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 12, 8, stride=8), nn.Linear(12, 12)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.patches(pixels).mean((2, 3)))


def processor() -> dict[str, Any]:
    return {"image_processor": isthmus.image_processor(32, **MEAN), "tokenizer": clip_tokenizer(max_tokens=16)}


def towers(eyes: nn.Module, words: nn.Module, **more: Any) -> tuple[isthmus.Tower, isthmus.Tower]:
    image = isthmus.Tower("image", eyes, lambda x: eyes(x["pixel_values"]), eyes, "blocks", stem_input="pixel_values")
    read: Callable[[Any], Tensor] = lambda x: words(x["input_ids"], x["attention_mask"])  # noqa: E731
    return image, isthmus.Tower("text", words, read, words, "blocks", **more)


def test_a_model_with_the_two_methods_is_read_by_its_structure() -> None:
    model = isthmus.load(Featured(Eyes(), Words()), processor=processor())
    assert (model.image.depth, model.text.depth) == (2, 2)
    for method in ("nib", "occlusion", "gradcam"):
        found = isthmus.explain(model, PICTURES[0], TEXTS[1], method=method)
        assert found.image.scores.shape == (4, 4)
        assert [word.text for word in found.text.words] == TEXTS[1].split()


def test_towers_of_two_models_need_no_common_one() -> None:
    image, text = towers(Eyes(), words := Words(), lookup=(words, "table"))
    model = isthmus.from_towers(image, text, image_processor=processor()["image_processor"], **OWN)
    assert model.name == "Eyes and Words"
    assert model.revision != isthmus.from_towers(*towers(Eyes(), words), **_parts()).revision
    found = isthmus.explain(model, PICTURES[0], TEXTS[1], method="rise", samples=12)
    assert [special.name for special in found.text.special] == ["BOS", "EOS"]


def _parts() -> dict[str, Any]:
    return {"image_processor": isthmus.image_processor(32, **MEAN), **OWN}


def test_patches_cut_without_a_convolution_need_their_side() -> None:
    image, text = towers(Eyes(convolution=False), Words())
    with pytest.raises(ModelError, match=r"No convolution .* isthmus.from_towers\(..., patch=16\)"):
        isthmus.from_towers(image, text, **_parts())
    model = isthmus.from_towers(image, text, patch=8, **_parts())
    assert isthmus.explain(model, PICTURES[0], TEXTS[0]).image.scores.shape == (4, 4)


def from_code(encode: Callable[[Any, Eyes], Any]) -> Any:
    """Eyes that are run by other code than their own."""
    image, text = towers(Eyes(), Words())
    return isthmus.from_towers(dataclasses.replace(image, encode=lambda x: encode(x, image.owner)), text, **_parts())


MISSING: dict[str, tuple[Callable[[], Any], str]] = {
    "no features": (
        lambda: isthmus.load(Alone(), processor=processor()),
        r"Alone is no dual encoder .* it has no get_image_features\. Give .* isthmus.Tower and isthmus.from_towers",
    ),
    "features that fail": (
        lambda: isthmus.load(Featured(Eyes(), lambda ids: ids), processor=processor()),
        r"Featured.get_text_features fails by itself \(.*\): take another version of its library",
    ),
    "no stack": (
        lambda: isthmus.load(Featured(Alone(), Words()), processor=processor()),
        r"No stack of blocks was found on the image side .* isthmus.Tower",
    ),
    "no patch convolution": (
        lambda: isthmus.load(Featured(Eyes(convolution=False), Words()), processor=processor()),
        r"No convolution of this image tower cuts the pixels into patches.*isthmus.from_towers\(..., patch=16\)",
    ),
    "patches in another order": (
        lambda: isthmus.load(Featured(Eyes(scrambled=True), Words()), processor=processor()),
        r"patches of this image tower do not stand row by row",
    ),
    "a stack of another name": (
        lambda: isthmus.Tower("image", Eyes(), lambda x: x, Eyes(), "layers"),
        r"Eyes holds no list of blocks 'layers': give as owner the module that runs the blocks",
    ),
    "a stack that is no list": (
        lambda: isthmus.Tower("image", Eyes(), lambda x: x, Eyes(), "patches"),
        r"holds no list of blocks 'patches'",
    ),
    "a block that is not there": (
        lambda: isthmus.Tower("image", Eyes(), lambda x: x, Eyes(), ("blocks.0", "blocks.7")),
        r"Eyes has no module 'blocks.7' for the tower's stack: it holds patches, blocks",
    ),
    "no block at all": (
        lambda: isthmus.Tower("image", Eyes(), lambda x: x, Eyes(), ()),
        r"The stack of a tower names no block",
    ),
    "a lookup that is not there": (
        lambda: isthmus.Tower("text", Words(), lambda x: x, Words(), "blocks", lookup=(Words(), "tokens")),
        r"Words has no module 'tokens' for the tower's lookup: it holds table, blocks",
    ),
    "towers the other way round": (
        lambda: isthmus.from_towers(*reversed(towers(Eyes(), Words())), **_parts()),
        r"takes the image tower first",
    ),
    "no joint space": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words(8)), **_parts()),
        r"no joint space: encode gives \(1, 12\) for one picture and \(1, 8\) for one text",
    ),
    "an encode that gives a sequence": (
        lambda: from_code(lambda x, eyes: eyes.patches(x["pixel_values"]).flatten(2)),
        r"encode of the image tower must give embeddings of shape \(batch, D\), not \(1, 12, 16\)",
    ),
    "an encode that gives something else": (
        lambda: from_code(lambda x, eyes: {"embedding": eyes(x["pixel_values"])}),
        r"encode of the image tower must give embeddings of shape \(batch, D\), not dict",
    ),
    "an image processor that tells nothing": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "image_processor": torch.tensor}),
        r"image_processor must be isthmus.image_processor\(size",
    ),
    "a tokenizer that is none": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "tokenizer": "clip"}),
        r"tokenizer must be a function",
    ),
    "a tokenizer without offsets": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "tokenizer": lambda text: [1, 2]}),
        r"a list of \(id, start, end\)",
    ),
    "a tokenizer whose offsets are wrong": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "tokenizer": lambda text: [(1, 0, 99)]}),
        r"characters that the text does not have",
    ),
    "tokens out of order": (
        lambda: isthmus.from_towers(
            *towers(Eyes(), Words()),
            **{**_parts(), "tokenizer": lambda text: [(2, len(text) - 1, len(text)), (1, 0, 1), (3, 0, 0)]},
        ),
        r"gives tokens out of order: give them in the order of their characters",
    ),
    "an encode that is none": (
        lambda: isthmus.Tower("image", Eyes(), None, Eyes(), "blocks"),
        r"encode of a tower must be a function from inputs to embeddings, not None",
    ),
    "a length that is no number": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "max_tokens": "a"}),
        r"max_tokens must be a whole number of 1 or more, not 'a'",
    ),
    "no length": (
        lambda: isthmus.from_towers(*towers(Eyes(), Words()), **{**_parts(), "max_tokens": 0}),
        r"max_tokens must be a whole number of 1 or more, not 0",
    ),
    "half a pixel": (lambda: isthmus.image_processor(56.5, **MEAN), r"size must be a whole number .* not 56\.5"),
    "three sizes": (lambda: isthmus.image_processor((32, 32, 3), **MEAN), r"size must be .* or \(height, width\)"),
    "one mean for three colours": (
        lambda: isthmus.image_processor(32, mean=0.5, std=MEAN["std"]),
        r"mean must be three numbers, of red, green and blue, not 0\.5",
    ),
    "a deviation of text": (
        lambda: isthmus.image_processor(32, mean=MEAN["mean"], std="0.5"),
        r"std must be three numbers, of red, green and blue, not '0\.5'",
    ),
    "a crop that is no square": (lambda: isthmus.image_processor((32, 64), **MEAN), r"centre crop is a square"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_said_with_its_remedy(case: str) -> None:
    make, message = MISSING[case]
    with pytest.raises((ModelError, OptionError), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


ORDERS = {
    "column by column": [4 * column + row for row in range(4) for column in range(4)],
    "other rows between": [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15],
    "all but the ends": [0, *torch.randperm(14, generator=torch.Generator().manual_seed(0)).add(1).tolist(), 15],
}


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_patches_whose_first_and_last_stand_right_may_be_out_of_order(order: str, convolution: bool) -> None:
    class Ordered(Eyes):
        def forward(self, pixels: Tensor) -> Tensor:
            if self.convolution:
                state = self.patches(pixels).flatten(2).transpose(1, 2)
            else:
                state = self.patches(nn.functional.unfold(pixels, 8, stride=8).transpose(1, 2))
            state = state[:, ORDERS[order]]
            for block in self.blocks:
                state = block(state)
            return state.mean(1)

    with pytest.raises(ModelError, match="16 patches of this image tower do not stand row by row"):
        isthmus.from_towers(*towers(Ordered(convolution=convolution), Words()), patch=8, **_parts())


def test_one_token_a_text_is_explained() -> None:
    """Its mask cannot be tried: without the only token no embedding is left, which is no fault of the weights."""
    whole = {**_parts(), "tokenizer": lambda text: [(7 + len(text), 0, len(text))]}
    model = isthmus.from_towers(*towers(Eyes(), words := Words(), lookup=(words, "table")), **whole)
    for method in ("nib", "occlusion"):
        found = isthmus.explain(model, PICTURES[0], TEXTS[1], method=method)
        assert [word.text for word in found.text.words] == [TEXTS[1]]
        assert np.isfinite(found.text.words[0].score)


@pytest.mark.parametrize("heeds", [True, False])
def test_whether_the_mask_is_heeded_is_found_on_the_first_text_of_two_tokens(heeds: bool) -> None:
    class Read(Words):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return super().forward(ids, mask if heeds else torch.ones_like(mask))

    def pairs(text: str) -> list[tuple[int, int, int]]:
        return [(len(m[0]), m.start(), m.end()) for m in re.finditer(r"\S+( \S+)?", text)]

    model = isthmus.from_towers(*towers(Eyes(), Read()), **{**_parts(), "tokenizer": pairs})
    inputs, _, _ = model.processing.texts(TEXTS[1:2], truncate=False)
    assert ("attention_mask" in inputs) == heeds


CUT_OFF: dict[str, Callable[[Any], Any]] = {
    "no_grad": lambda encode: torch.no_grad()(encode),
    "detach": lambda encode: lambda inputs: encode(inputs).detach(),
}


@pytest.mark.parametrize("way", CUT_OFF)
@pytest.mark.parametrize("side", ["image", "text"])
def test_code_without_gradients_serves_the_methods_that_need_none(way: str, side: str) -> None:
    whole = towers(Eyes(), words := Words(), lookup=(words, "table"))
    cut = (dataclasses.replace(one, encode=CUT_OFF[way](one.encode)) if one.side == side else one for one in whole)
    model = isthmus.from_towers(*cut, **_parts())
    for name in ("nib", "gradcam", "saliency", "integrated-gradients", "m2ib", "occlusion", "rise", "shapley"):
        options: Any = {"method": name, "sides": side, **CHEAP.get(name, {})}
        if METHODS[name].needs_gradients:
            with pytest.raises(ModelError, match=rf"encode of the {side} tower gives no gradient: leave out"):
                isthmus.explain(model, PICTURES[0], TEXTS[1], **options)
        else:
            isthmus.explain(model, PICTURES[0], TEXTS[1], **options)


def test_without_a_lookup_layers_are_explained_and_tokens_are_not() -> None:
    """`load` finds no embedding module in a tower that indexes a plain tensor."""
    by_structure = isthmus.load(Featured(Eyes(), Words(table=False)), processor=processor())
    by_hand = isthmus.from_towers(*towers(Eyes(), Words(table=False)), **_parts())
    for model in (by_structure, by_hand):
        assert np.isfinite([word.score for word in isthmus.explain(model, PICTURES[0], TEXTS[1]).text.words]).all()
        with pytest.raises(ModelError, match=r"give isthmus.Tower a stem_input or a lookup, or choose a method"):
            isthmus.explain(model, PICTURES[0], TEXTS[1], method="occlusion", sides="text")


def test_states_with_the_sequence_first_are_refused() -> None:
    class Turned(Words):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            state = self.table(ids).transpose(0, 1)
            for block in self.blocks:
                state = block(state)
            return state.mean(0)

    with pytest.raises(ModelError, match=r"blocks must take the batch first \(batch_first=True\)"):
        isthmus.from_towers(*towers(Eyes(), Turned()), **_parts())


def test_positions_that_no_token_is_are_refused() -> None:
    class Longer(Words):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            state = nn.functional.pad(self.table(ids), (0, 0, 1, 0))
            for block in self.blocks:
                state = block(state)
            return state[:, 0] + state.mean(1)

    with pytest.raises(ModelError, match=r"tokens enter the text tower, but its blocks read \d+ positions"):
        isthmus.from_towers(*towers(Eyes(), Longer()), **_parts())


def test_pictures_of_another_size_than_the_model_takes_are_refused(documented: dict[str, Any]) -> None:
    prepared = isthmus.PreparedImage(torch.zeros(3, 64, 56))
    with pytest.raises(IsthmusError, match="takes pictures of 56 x 56 pixels alone, not 56 x 64"):
        isthmus.explain(documented["model"], prepared, TEXTS[0])


def test_a_picture_is_pressed_or_cropped_as_the_processor_is_told() -> None:
    wide = EXAMPLES / "bear.jpg"
    for crop in (True, False):
        shape = 32 if crop else (32, 64)
        model = isthmus.from_towers(
            *towers(Eyes(), Words()), image_processor=isthmus.image_processor(shape, crop=crop, **MEAN), **OWN
        )
        found = isthmus.explain(model, wide, TEXTS[0])
        height, width = found.image.heatmap().shape
        box = found.image.crop
        seen = (box.right - box.left, box.bottom - box.top)
        short = min(height, width)  # resized to 32 whole pixels on its shorter side, and as many or more on the other
        assert seen == (pytest.approx((short, short), rel=1 / 32) if crop else (width, height))
        assert found.image.scores.shape == ((4, 4) if crop else (4, 8))


def test_a_function_that_tokenises_is_padded_cut_and_named() -> None:
    from isthmus.encoders.texts import TextReader
    from isthmus.encoders.tokens import Tokens

    def tokenize(text: str) -> list[tuple[int, int, int]]:
        words = [(5 + i, m.start(), m.end()) for i, m in enumerate(re.finditer(r"\w+", text))]
        return [(1, 0, 0), *words, (2, len(text), len(text))]

    for side, keep in (("right", slice(0, 4)), ("left", slice(1, 5))):
        tokens = Tokens(tokenize, pad=9, padding_side=side)
        reader = TextReader(tokens, max_tokens=5, device=torch.device("cpu"))
        inputs, layouts, notes = reader.texts(["red dog", "one two three four five"], truncate=True)
        assert inputs["input_ids"][0, keep].tolist() == [1, 5, 6, 2]
        assert inputs["input_ids"][1].tolist() == [1, 5, 6, 7, 2]  # the end stays where a text is cut
        assert sorted(inputs["input_ids"][0].tolist())[-1] == 9
        assert inputs["attention_mask"].sum(1).tolist() == [4, 5]
        start = 0 if side == "right" else 1
        assert layouts[0].pieces == (Piece(start + 1, 0, 3), Piece(start + 2, 4, 7))
        assert layouts[0].special == (("BOS", start), ("EOS", start + 3))
        assert notes == ["", "cut from 7 to 5 tokens"]
    with pytest.raises(OptionError, match='"right" or "left"'):
        Tokens(tokenize, padding_side="both")


def test_every_method_runs_on_the_documented_model_or_says_why(documented: dict[str, Any]) -> None:
    ran, refused = set(), {}
    for name in METHODS:
        try:
            isthmus.explain(documented["model"], PICTURES[0], TEXTS[1], method=name, **CHEAP.get(name, {}))
            ran.add(name)
        except (ModelError, OptionError) as error:
            refused[name] = str(error)
    assert ran >= {"nib", "m2ib", "rise", "lime", "occlusion", "shapley", "banzhaf", "integrated-gradients", "gradcam"}
    assert all(re.search(r"(?i)attention|activation", said) for said in refused.values()), refused
