"""A folder that lacks a file, or has another model's, is refused by one sentence that stands by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

import isthmus
from isthmus.encoders.hub import is_blank
from isthmus.encoders.transformers import MINI
from isthmus.errors import ModelError, OptionError
from zoo import ZOO

transformers.logging.set_verbosity_error()
V5 = int(transformers.__version__.split(".")[0]) >= 5


def saved(name: str, folder: Path) -> Path:
    ZOO[name]().save(folder)
    return folder


def halves(name: str) -> dict[str, Any]:
    return {"image_processor": ZOO[name]().image_processor, "tokenizer": ZOO[name]().tokenizer}


@pytest.mark.parametrize("name", ["clip", "align", "altclip", "siglip", "clip-roberta", "tipsv2"])
def test_a_folder_without_tokenizer(name: str, tmp_path: Path) -> None:
    """transformers 5 makes one without words for some models (CLIP, BERT), and lists what it tried for others."""
    if name not in ZOO:
        pytest.skip("this transformers lacks the model")
    for file in saved(name, tmp_path).glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing|there is no tokenizer\.json$") as refused:
        isthmus.load(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not V5, reason="transformers 4 makes no tokenizer without words")
@pytest.mark.parametrize("kind", ["CLIP", "Bert", "XLMRoberta", "Gemma", "T5"])
def test_a_processor_whose_tokenizer_has_no_words(kind: str) -> None:
    blank = getattr(transformers, f"{kind}Tokenizer")()
    assert is_blank(blank)
    with pytest.raises(OptionError, match="no word in its vocabulary"):
        isthmus.load(ZOO["clip"]().model, processor={**halves("clip"), "tokenizer": blank})


def test_no_tokenizer_of_the_zoo_is_blank() -> None:
    assert not [name for name, build in ZOO.items() if is_blank(build().tokenizer)]


def test_another_models_tokenizer() -> None:
    with pytest.raises(OptionError, match=r"another model's: its ids go up to 620, .* has 135 rows"):
        isthmus.load(ZOO["siglip"]().model, processor={**halves("siglip"), "tokenizer": ZOO["clip"]().tokenizer})


def test_added_tokens_behind_the_rows_are_no_other_models() -> None:
    one = ZOO["clip"]()
    one.tokenizer.add_tokens(["<image>"], special_tokens=True)
    parts = {"image_processor": one.image_processor, "tokenizer": one.tokenizer}
    assert isthmus.load(one.model, processor=parts).text.depth == 3
    assert not any(module._forward_pre_hooks for module in one.model.modules())


@pytest.mark.parametrize(
    ("name", "kind"), [("blip_2", "Blip2ForImageTextRetrieval"), ("clip", "CLIPForImageClassification")]
)
def test_a_checkpoint_of_a_class_that_is_no_dual_encoder(name: str, kind: str, tmp_path: Path) -> None:
    config = json.loads((saved(name, tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": [kind]}))
    with pytest.raises(ModelError, match=f"is a {kind}, which is no dual encoder"):
        isthmus.load(tmp_path)


def test_a_dual_encoder_within_another_class_is_read(tmp_path: Path) -> None:
    one = ZOO["owlvit"]()
    one.save(tmp_path)
    transformers.OwlViTForObjectDetection(one.model.config).save_pretrained(tmp_path)
    assert type(isthmus.load(tmp_path).model).__name__ == "OwlViTModel"


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(MINI, folder)
    config = json.loads((folder / "config.json").read_text())
    width = config["projection_dim"]
    (folder / "config.json").write_text(json.dumps({**config, "projection_dim": width + 1}))
    with pytest.raises(ModelError, match=rf"do not fit its config\.json: .* \({width}, .* instead of \({width + 1}, "):
        isthmus.load(folder)


def test_a_message_whose_first_line_only_announces_is_given_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("None of:\n(1) a file,\n(2) a class.")

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", fail)
    with pytest.raises(ModelError, match=r": None of: \(1\) a file, \(2\) a class\.$"):
        isthmus.load(saved("clip", tmp_path))
