"""open_clip's tokenizers and transforms are read as they are, and its models by name."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from conftest import picture
from isthmus.encoders.compose import seen_part
from isthmus.encoders.open_clip_texts import OpenClipTexts, tokens_of
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, ModelError, OptionError
from zoo import random_model

open_clip = pytest.importorskip(
    "open_clip", reason="needs open_clip, which needs torchvision: pip install 'isthmus[open_clip]'"
)
from zoo_open_clip import CONTEXT, OPEN_CLIP, VERSION, byte_pairs, text, transforms, vision, wrapped  # noqa: E402
from zoo_tokenizers import bert_tokenizer, clip_tokenizer  # noqa: E402


@pytest.fixture(scope="module")
def reader() -> Any:
    one = OPEN_CLIP["vit"]()
    return isthmus.load(one.model, processor=one.processor).processing


WORDS = [
    ("A dog &amp; a CAT", ["A", "dog", "&amp;", "a", "CAT"]),
    ("  don't   stop, 3.14 \n", ["don't", "stop", ",", "3.14"]),
    ("naïve café: ÉTÉ!", ["naïve", "café", ":", "ÉTÉ", "!"]),
    ("it’s a “dog”", ["it’s", "a", "“", "dog", "”"]),
    ("一只狗 🐶 dog", ["一", "只", "狗", "🐶", "dog"]),
    ("snow_ball &lt;b&gt;", ["snow_ball", "&lt;", "b", "&gt;"]),
]


@pytest.mark.parametrize(("given", "expected"), WORDS)
def test_words_are_found_in_the_users_text(reader: Any, given: str, expected: list[str]) -> None:
    one = OPEN_CLIP["vit"]()
    inputs, (layout,), _ = reader.texts([given], truncate=True)
    assert [given[word.start : word.end] for word in layout.words] == expected
    assert inputs["input_ids"].tolist() == one.tokenizer([given], context_length=CONTEXT).tolist()
    decoded = one.tokenizer.decode([int(inputs["input_ids"][0, piece.position]) for piece in layout.pieces])
    assert decoded.split() == one.tokenizer.decode(one.tokenizer.encode(given)).split()


def test_pieces_show_their_own_characters() -> None:
    tokens = tokens_of(byte_pairs()).tokens("Unbelievably &amp; SUPERCALIFRAGILISTIC")
    shown = ["Unbelievably &amp; SUPERCALIFRAGILISTIC"[a:b] for a, b in tokens.places]
    own = [byte_pairs().decode([token]).strip() for token in tokens.ids]
    assert "".join(shown) == "Unbelievably&amp;SUPERCALIFRAGILISTIC"
    assert [piece.lower() for piece in shown if piece != "&amp;"] == [piece for piece in own if piece != "&"]


@pytest.mark.parametrize("kind", ["clip", "bert", *["clips"] * (VERSION >= (3, 0))])
def test_wrapped_tokenizers_tell_pieces_and_special_tokens(kind: str) -> None:
    """In the mode "clips" a class token stands behind the padding."""
    inner = bert_tokenizer(max_tokens=CONTEXT) if kind == "bert" else clip_tokenizer(max_tokens=CONTEXT)
    if kind == "clips":
        inner = bert_tokenizer(max_tokens=CONTEXT)
        inner.add_special_tokens({"bos_token": "[MASK]", "eos_token": "[UNK]"})
    outer = wrapped(inner, **{"tokenizer_mode": "clips"} if kind == "clips" else {})
    reader = OpenClipTexts(outer, length=CONTEXT, device=torch.device("cpu"))
    given = "A dog &amp; two  BEARS"
    inputs, (layout, cut), notes = reader.texts([given, "a dog " * 20], truncate=True)
    assert [given[word.start : word.end] for word in layout.words] == ["A", "dog", "&amp;", "two", "BEARS"]
    assert inputs["input_ids"].tolist() == outer([given, "a dog " * 20]).tolist()
    names = [name for name, _ in sorted(layout.special, key=lambda one: one[1])]
    first = {"clip": "BOS", "bert": "CLS", "clips": "BOS"}[kind]
    assert names[:3] == [first, "EOS", "PAD"]
    assert names[-1] == ("CLS" if kind == "clips" else "PAD")
    assert notes[0] == ""
    assert notes[1].startswith("cut from")
    assert len(cut.pieces) == CONTEXT - (3 if kind == "clips" else 2)


def test_texts_that_cannot_be_used_are_refused(reader: Any) -> None:
    texts = reader.texts
    with pytest.raises(InputError, match=r"42 tokens with its start and end, but the model reads at most 24"):
        texts(["one " * 40], truncate=False)
    with pytest.raises(InputError, match="empty"):
        texts([" "], truncate=False)
    _, (layout,), (note,) = texts(["a dog <end_of_text> in a tree"], truncate=False)
    assert note == "the model stops reading at character 6, which it takes for the end of the text"
    assert len(layout.pieces) == 6


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("shortest", {"resize_mode": "shortest"}),
    ("longest", {"resize_mode": "longest", "fill_color": 0}),
    ("squash", {"resize_mode": "squash"}),
    ("bilinear", {"interpolation": "bilinear"}),
    ("tall", {"image_size": (64, 40)}),
    ("wide", {"image_size": (40, 65)}),
]


@pytest.mark.parametrize("size", [(90, 70), (70, 91), (33, 200), (64, 64), (20, 11)])
@pytest.mark.parametrize(("name", "options"), STEPS)
def test_the_crop_shows_what_the_model_sees(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """The part that is told, cut out and resized by Pillow, is what the transforms give."""
    image = picture(3, size)
    preprocess = open_clip.image_transform(
        **{"image_size": 48, "is_train": False, "mean": (0,) * 3, "std": (1,) * 3, **options}
    )
    values = preprocess(image)
    box = seen_part(preprocess, size)
    height, width = values.shape[1:]
    kind = Image.Resampling.BILINEAR if name == "bilinear" else Image.Resampling.BICUBIC
    pad = math.ceil(max(0, -box.left, -box.top, box.right - size[0], box.bottom - size[1]))
    whole = Image.new("RGB", (size[0] + 2 * pad, size[1] + 2 * pad))
    whole.paste(image, (pad, pad))
    corners = (box.left + pad, box.top + pad, box.right + pad, box.bottom + pad)
    expected = np.asarray(whole.resize((width, height), kind, box=corners)).transpose(2, 0, 1) / 255
    found = np.abs(values.numpy() - expected)
    assert float(np.median(found)) < 0.01
    assert float(found.mean()) < 0.03


def test_transforms_for_training_are_refused() -> None:
    one = OPEN_CLIP["vit"]()
    training = open_clip.image_transform((40, 40), is_train=True)
    with pytest.raises(OptionError, match="RandomResizedCrop, which Isthmus cannot follow: give the one"):
        isthmus.load(one.model, processor=(training, one.tokenizer)).processing.pictures([open_picture(picture())])


@pytest.mark.parametrize("processor", [None, "ViT-B-32", (lambda x: x,), {"image_processor": 1}])
def test_a_model_object_needs_its_two_halves(processor: Any) -> None:
    with pytest.raises(OptionError, match=r"processor=\(preprocess, tokenizer\)"):
        isthmus.load(OPEN_CLIP["vit"]().model, processor=processor)


@pytest.mark.parametrize("name", ["vit", "roberta"])
def test_halves_the_wrong_way_round_are_refused(name: str) -> None:
    one = OPEN_CLIP[name]()
    with pytest.raises(OptionError, match="The tokenizer stands first: swap the two"):
        isthmus.load(one.model, processor=(one.tokenizer, one.preprocess))


def test_other_tokenizers_and_sizes_are_refused() -> None:
    one = OPEN_CLIP["vit"]()
    with pytest.raises(OptionError, match=r"open_clip\.get_tokenizer"):
        isthmus.load(one.model, processor=(one.preprocess, lambda texts, context_length: torch.zeros(1, 24)))
    with pytest.raises(OptionError, match="force_image_size"):
        isthmus.load(one.model, processor=one.processor, image_size=64)
    with pytest.raises(OptionError, match="leave attention out"):
        isthmus.load("open_clip:RN50/openai", attention="eager")


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny architecture of open_clip's registry, "isthmus-tiny", and a file of weights for it."""
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    config = {"embed_dim": 16, "vision_cfg": vision(), "text_cfg": text()}
    factory._MODEL_CONFIGS["isthmus-tiny"] = config
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    weights = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(random_model(lambda: open_clip.CLIP(16, vision(), text())).state_dict(), weights)
    return weights


def test_loads_by_name_and_weights(registered: Path) -> None:
    name = f"open_clip:isthmus-tiny/{registered}"
    found = isthmus.explain(isthmus.load(name, device="cpu"), picture(), "a dog")
    assert found.provenance.model == name
    assert found.provenance.versions["open_clip"] == open_clip.version.__version__
    direct = open_clip.CLIP(16, vision(), text())
    direct.load_state_dict(torch.load(registered))
    again = isthmus.load(direct.eval(), processor=(transforms(40), byte_pairs()))
    assert isthmus.explain(again, picture(), "a dog").image == found.image
    half = isthmus.load(name, device="cpu", dtype="bfloat16", image_size=56)
    assert half.dtype == torch.bfloat16
    assert isthmus.explain(half, picture(), "a dog").image.scores.shape == (7, 7)
    if VERSION >= (3, 0):
        folder = isthmus.load(f"open_clip:local-dir:{registered.parent}", device="cpu")
        assert folder.revision == isthmus.load(name, device="cpu").revision


@pytest.mark.parametrize("quick", [True, False])
def test_weights_choose_their_activation(registered: Path, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    known = {"own": {"hf_hub": "nobody/nothing/", "quick_gelu": quick}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "isthmus-tiny", known)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(registered))
    model = isthmus.load("open_clip:isthmus-tiny/own", device="cpu").model
    kinds = {type(tower.resblocks[0].mlp.gelu).__name__ for tower in (model.transformer, model.visual.transformer)}
    assert kinds == {"QuickGELU" if quick else "GELU"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-33/openai", r"no model 'ViT-B-33'.*ViT-B-32"),
        ("isthmus-tiny", r"no weights '' of isthmus-tiny: name them as in open_clip:isthmus-tiny/WEIGHTS"),
        ("RN50/nothing", r"no weights 'nothing' of RN50.*one of .*openai"),
        ("isthmus-tiny/BROKEN", r"cannot load 'isthmus-tiny/.*check the name, the file and the network"),
        ("hf-hub:nobody/nothing-of-the-kind", r"cannot load 'hf-hub:nobody/nothing-of-the-kind'"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    registered: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    broken = registered.parent / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=said) as caught:
        isthmus.load("open_clip:" + name.replace("BROKEN", str(broken)), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_name_needs_no_processor(registered: Path) -> None:
    with pytest.raises(OptionError, match="leave it out"):
        isthmus.load(f"open_clip:isthmus-tiny/{registered}", processor=(transforms(40), byte_pairs()))


def test_a_model_that_pools_nothing_is_refused() -> None:
    model = random_model(lambda: open_clip.CLIP(16, vision(pool_type="none"), text()))
    with pytest.raises(ModelError, match="does not pool its positions"):
        isthmus.load(model, processor=(transforms(40), byte_pairs()))


def test_a_tower_with_channels_last_is_refused() -> None:
    from timm.models.swin_transformer import SwinTransformer

    model = copy.deepcopy(OPEN_CLIP["convnext"]().model)
    model.visual.trunk = SwinTransformer(
        img_size=64, patch_size=4, embed_dim=8, depths=(2, 2, 2), num_heads=(1, 2, 4), window_size=4, num_classes=0
    )
    with pytest.raises(ModelError, match=r"not \(batch, channels, rows, columns\)"):
        isthmus.load(model, processor=(transforms(64), byte_pairs()))
