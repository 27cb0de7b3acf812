"""What the speed benchmarks run on: CLIPs of well-known shapes with random weights, pictures and captions, all seeded.

Speed does not depend on what weights say; completeness does, so compare it within a run only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import isthmus

TOKENIZER = Path(isthmus.__file__).parent / "encoders" / "mini"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BIASES = 0.1  # transformers starts biases at zero, which no trained model has


@dataclass(frozen=True)
class Stack:
    """The blocks of one tower: channels, number, heads, and channels inside the MLP."""

    width: int
    depth: int
    heads: int
    inner: int


@dataclass(frozen=True)
class Shape:
    """A model's sizes.

    Attributes:
        title: what it is called.
        image, text: the towers.
        pixels, patch: sides of picture and patch.
        joint: dimensions of the joint space.
        layer: the layer of the published code, 9; of so400m's 27 and tiny's few blocks the same share of depth.
        rows: replacements of a hidden state, or pairs, that the other contestants run at once.
        product: side of the matrix product that is taken for what the machine can do.
    """

    title: str
    image: Stack
    text: Stack
    pixels: int
    patch: int
    joint: int
    layer: int
    rows: int
    product: int

    @property
    def positions(self) -> int:
        """Of the image tower: CLS and the patches."""
        return 1 + (self.pixels // self.patch) ** 2


SHAPES = {
    "tiny": Shape("tiny", Stack(64, 4, 2, 256), Stack(48, 4, 2, 192), 56, 14, 32, layer=3, rows=32, product=256),
    "b32": Shape(
        "ViT-B/32",
        Stack(768, 12, 12, 3072),
        Stack(512, 12, 8, 2048),
        224,
        32,
        512,
        layer=9,
        rows=32,
        product=4096,
    ),
    "l14": Shape(
        "ViT-L/14",
        Stack(1024, 24, 16, 4096),
        Stack(768, 12, 12, 3072),
        224,
        14,
        768,
        layer=9,
        rows=8,
        product=4096,
    ),
    "so400m": Shape(
        "CLIP with the sizes of SigLIP so400m/14",
        Stack(1152, 27, 16, 4304),
        Stack(1152, 27, 16, 4304),
        224,
        14,
        1152,
        layer=20,
        rows=8,
        product=4096,
    ),
}


def options_of(shape: Shape, setting: str) -> dict[str, Any]:
    """Options of `isthmus.explain`: all defaults, or a late layer with three plain nodes to a floor."""
    if setting == "default":
        return {}
    return {"layer": shape.layer, "closed": "floor", "rule": "gauss-legendre", "steps": 3}


SETTINGS = {
    "default": "all defaults: layer 0, 10 nodes",
    "light": 'layer 9 (as deep in others), `closed="floor"`, 3 plain nodes',
}


def clip(shape: Shape, *, dtype: str = "float32", device: str = "cpu", attention: str = "sdpa", seed: int = 0) -> Any:
    """A transformers CLIPModel of random weights, biases among them, in eval mode."""
    from transformers import CLIPConfig, CLIPModel

    def tower(stack: Stack) -> dict[str, Any]:
        sizes = (stack.width, stack.depth, stack.heads, stack.inner)
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return dict(zip(names, sizes, strict=True))

    ends = {"bos_token_id": 8190, "eos_token_id": 8191, "pad_token_id": 8191}  # of the bundled model's tokenizer
    config = CLIPConfig(
        text_config={**tower(shape.text), "vocab_size": 49408, "max_position_embeddings": 77, **ends},
        vision_config={**tower(shape.image), "image_size": shape.pixels, "patch_size": shape.patch},
        projection_dim=shape.joint,
    )
    config._attn_implementation = attention
    torch.manual_seed(seed)
    model: nn.Module = CLIPModel._from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter += _BIASES * torch.randn(parameter.shape, generator=generator)
    return model.to(device, DTYPES[dtype]).eval()


def encoder_of(model: nn.Module, shape: Shape) -> isthmus.DualEncoder:
    """What `isthmus.load` makes of the model, with the bundled model's tokenizer."""
    from transformers import AutoTokenizer

    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # transformers 4
        from transformers import CLIPImageProcessor as Processor

    crop = {"height": shape.pixels, "width": shape.pixels}
    parts = {
        "image_processor": Processor(size={"shortest_edge": shape.pixels}, crop_size=crop),
        "tokenizer": AutoTokenizer.from_pretrained(TOKENIZER),
    }
    return isthmus.load(model, processor=parts)


@dataclass(frozen=True)
class Pairs:
    """Pictures as the model takes them, `(N, 3, H, W)`, captions, and their token ids `(1, T)` without padding."""

    pixels: Tensor
    texts: list[str]
    ids: list[Tensor]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.texts)

    @property
    def pictures(self) -> list[isthmus.PreparedImage]:
        """The pictures as a user gives those that are resized and normalised already."""
        return [isthmus.PreparedImage(one) for one in self.pixels.cpu()]

    def first(self, count: int) -> Pairs:
        """The first pairs."""
        return Pairs(self.pixels[:count], self.texts[:count], self.ids[:count])

    def parts(self, size: int) -> Iterator[Pairs]:
        """The pairs in batches of at most `size`."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Pairs(self.pixels[part], self.texts[part], self.ids[part])


def pairs_of(shape: Shape, count: int, device: str = "cpu", *, seed: int = 0) -> Pairs:
    """Smooth random pictures with captions; the n-th pair is the same whatever the count."""
    from transformers import AutoTokenizer

    pixels = []
    for i in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        coarse = torch.randn(1, 3, 7, 7, generator=generator)
        pixels.append(nn.functional.interpolate(coarse, size=shape.pixels, mode="bicubic", align_corners=False)[0])
    texts, tokenizer = captions(count), AutoTokenizer.from_pretrained(TOKENIZER)
    ids = [torch.tensor([tokenizer(text)["input_ids"]], device=device) for text in texts]
    return Pairs(torch.stack(pixels).to(device), texts, ids)


_WHO = ("man", "woman", "boy", "girl", "small dog", "brown horse", "cat", "player", "young couple", "child")
_DOES = ("sits on a bench", "stands", "walks slowly", "waits", "plays with a ball", "looks up", "rests", "runs")
_PLACE = ("beside the old red bus", "in front of a house", "on the beach", "near a fence in the snow", "by the lake")
_WHEN = ("today", "at night", "in the sun")


def captions(count: int) -> list[str]:
    """Different captions of 6 to 14 words, 1,200 at most; neighbours differ, for 119 is prime to 1,200."""
    made = list(itertools.product(_WHO, _DOES, _PLACE, _WHEN))
    return ["a {} {} {} {}".format(*made[(i * 119) % len(made)]) for i in range(count)]
