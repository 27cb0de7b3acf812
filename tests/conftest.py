"""Fixtures: the bundled model, tiny random CLIPs, real pictures."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
EXAMPLES = ROOT / "examples"

# Whether the installed transformers can give CLIP pictures of another size than it was trained on (4.48 and later).
INTERPOLATES = "interpolate_pos_encoding" in inspect.signature(CLIPModel.get_image_features).parameters

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # more threads than cores only wait


@pytest.fixture(scope="session")
def mini() -> Any:
    import isthmus

    return isthmus.load("mini", device="cpu")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "reference" / "published.npz").is_file():
        pytest.skip(f"needs the team's shared data, which is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def reference(shared: Path) -> Any:
    """What the paper's published code gives, with its pairs."""
    arrays = dict(np.load(shared / "reference" / "published.npz"))
    return arrays, json.loads((shared / "reference" / "pairs.json").read_text())


@pytest.fixture(scope="session")
def dog() -> Path:
    return EXAMPLES / "dog.jpg"


@pytest.fixture
def run(mini: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command line in this process, with the bundled model loaded once; gives code, stdout, stderr."""
    import isthmus
    from isthmus import cli

    load = isthmus.explainer.load
    monkeypatch.setattr("isthmus.explainer.load", lambda name, **k: mini if name == "mini" else load(name, **k))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        out = capsys.readouterr()
        return int(caught.value.code or 0), out.out, out.err

    return call


def tiny_clip(
    *,
    image_size: int = 56,
    patch: int = 8,
    depth: int = 3,
    width: int = 32,
    max_tokens: int = 77,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    eos: int = 2,
    seed: int = 0,
) -> Any:
    """A random CLIP with random biases (transformers initialises them to zero, which hides mistakes)."""
    from transformers import CLIPConfig, CLIPModel

    common = {"num_hidden_layers": depth, "hidden_size": width, "intermediate_size": 2 * width}
    vision = {**common, "num_attention_heads": 2, "image_size": image_size, "patch_size": patch}
    text = {
        **common,
        "num_attention_heads": 4,
        "vocab_size": 8192,
        "max_position_embeddings": max_tokens,
        "eos_token_id": eos,
        "bos_token_id": 8190,
        "pad_token_id": 8191,
    }
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    config._attn_implementation = attention
    model = CLIPModel._from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Makes a DualEncoder of a tiny random CLIP, with mini's tokenizer and a processor of its own size."""
    from transformers import AutoTokenizer

    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # transformers 4
        from transformers import CLIPImageProcessor as Processor

    import isthmus
    from isthmus.encoders.transformers import MINI

    def make(*, load_size: Any = None, **options: Any) -> Any:
        model = tiny_clip(**options)
        side = options.get("image_size", 56)
        tokenizer = AutoTokenizer.from_pretrained(MINI)
        tokenizer.model_max_length = options.get("max_tokens", 77)
        processor = {
            "image_processor": Processor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
            "tokenizer": tokenizer,
        }
        return isthmus.load(model, processor=processor, image_size=load_size)

    return make


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP in a folder, so that other processes can load it too."""
    from zoo_clip import clip

    folder = tmp_path_factory.mktemp("tiny") / "tiny-clip"
    clip().save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Any:
    import isthmus

    return isthmus.load(tiny_folder, device="cpu")


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Any:
    """A seeded random picture of `(width, height)`, smooth enough to survive resizing."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
