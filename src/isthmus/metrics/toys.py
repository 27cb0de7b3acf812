"""Toys: tiny CLIPs with random weights in float64, about each of which something is known for certain.

They are what the axioms are measured on. Nothing is downloaded, and no generator but their own is used. A picture has
3 x 3 patches, so that methods that can try all coalitions do; a text has up to 16 positions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.tower import Inputs, Side, Tower
from isthmus.encoders.transformers import MINI
from isthmus.explainer import load
from isthmus.metrics.rewrites import REWRITES, rewrite

WIDTH, HEADS, DEPTH, JOINT = 32, 4, 3, 16
PATCH, ROWS, TOKENS = 8, 3, 16
_VOCABULARY, _START, _END = 8192, 8190, 8191  # those of mini's tokenizer
_HEAD_WIDTH = WIDTH // HEADS
# Puts the logit of what is ignored so far under the others that a softmax gives it a weight under 1e-30.
_IGNORED = 70.0

CAPTIONS = ("a small dog runs over the wet grass", "two red cars in front of a house", "the old man eats green soup")
_REFERENCE = ("a cat", "a man rides a horse", "the sea at night", "three birds sit on a branch", "a plate of food")


@dataclass(frozen=True, eq=False)
class Case:
    """A toy and inputs of one side about which something is known.

    Attributes:
        model: the toy.
        side: the side that is explained.
        inputs: pictures or texts.
        places: which of the content (patches row by row, or tokens of the text) it is known of.
    """

    model: DualEncoder
    side: Side
    inputs: tuple[Any, ...]
    places: tuple[int, ...] = ()

    def read(self) -> tuple[Inputs, list[TokenLayout]]:
        """The inputs as the tower takes them, and what each position is."""
        if self.side == "image":
            inputs, _, layouts = self.model.processing.pictures(self.inputs)
        else:
            inputs, layouts, _ = self.model.processing.texts(self.inputs, truncate=False)
        return inputs, layouts


def pictures(count: int = 3, *, seed: int = 0) -> tuple[PreparedImage, ...]:
    """Random pictures for the toys, `(3, 24, 24)` in float64."""
    generator = torch.Generator().manual_seed(1000 + seed)
    side = PATCH * ROWS
    return tuple(
        PreparedImage(torch.randn(3, side, side, generator=generator, dtype=torch.float64)) for _ in range(count)
    )


def toy(*, seed: int = 0) -> DualEncoder:
    """A CLIP of 3 blocks a side, about which nothing in particular is known."""
    return _loaded(_clip(seed))


def base(side: Side, *, seed: int = 0) -> Case:
    """The plain toy with three inputs of a side."""
    return Case(toy(seed=seed), side, pictures(seed=seed) if side == "image" else CAPTIONS)


def dummy(side: Side, *, seed: int = 0) -> Case:
    """A toy whose embedding does not depend on what is at `places`, whatever their states, before any block.

    A text holds an end-of-text id: attention is causal and the model pools there, so what follows it is not read. In
    the picture's tower attention is masked away from one patch in every block, and the model pools CLS.
    """
    if side == "text":
        texts = tuple(f"{start} <|endoftext|> runs over" for start in ("a dog", "two cars", "red house"))
        return Case(toy(seed=seed), side, texts, places=(3, 4))  # behind two words and the end itself
    model, place = _clip(seed), 4

    def hide(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["inputs_embeds"]
        mask = states.new_zeros(1, 1, 1, 1 + ROWS * ROWS)
        mask[..., 1 + place] = torch.finfo(states.dtype).min
        count, length = states.shape[:2]
        return args, {**kwargs, "attention_mask": mask.expand(count, 1, length, -1).contiguous()}

    model.vision_model.encoder.register_forward_pre_hook(hide, with_kwargs=True)
    return Case(_loaded(model), side, pictures(seed=seed), places=(place,))


def saturated(side: Side, *, seed: int = 0) -> Case:
    """A toy that ignores what is at `places` for what it holds, and reads whatever else is put there.

    What is at the place carries a mark in two channels that no block writes to; each head's keys read the mark, and
    the softmax gives it a weight of 0, to within 1e-30. The score's gradient by the place is 0, but the score changes
    when the place is replaced. It is the flat part of the function on which gradients fail (Sundararajan et al., ICML
    2017, section 2.1), in a transformer.
    """
    model, generator = _clip(seed), torch.Generator().manual_seed(2000 + seed)
    plus, minus, place = WIDTH - 2, WIDTH - 1, 4
    with torch.no_grad():
        tower = model.vision_model if side == "image" else model.text_model
        _ignore_marks(tower, plus, minus)
        if side == "text":
            table = tower.embeddings.token_embedding.weight
            table[:, [plus, minus]] = 0.0
            marked = [_processor()["tokenizer"](text)["input_ids"][1 + place] for text in CAPTIONS]
            table[marked, plus], table[marked, minus] = 1.0, -1.0
            return Case(_loaded(model), side, CAPTIONS, places=(place,))
        pattern = torch.randn(3, PATCH, PATCH, generator=generator, dtype=torch.float64)
        pattern -= pattern.mean((1, 2), keepdim=True)  # so that the picture's mean colour holds no mark
        pattern /= pattern.norm()
        stem = tower.embeddings.patch_embedding.weight
        stem[plus], stem[minus] = pattern, -pattern
        # No other patch holds the mark, and what the marked one holds beside it does not matter to it.
        shown = [_marked(one.pixel_values, pattern, place) for one in pictures(seed=seed)]
    return Case(_loaded(model), side, tuple(map(PreparedImage, shown)), places=(place,))


def symmetric(side: Side, *, seed: int = 0) -> Case:
    """A toy to whose embedding two places are one and the same: swapping what they hold never changes it.

    They hold the same, and their position embeddings are equal. In a text, attention is causal, so that a later word
    sees more than an earlier one; the toy has a single text block, whose pooled position reads both words alike and
    nothing that they have read.
    """
    model = _clip(seed, text_depth=DEPTH if side == "image" else 1)
    if side == "text":
        first, second = 1, 5
        positions = model.text_model.embeddings.position_embedding.weight
        texts = ("one red dog beside the red cat", "two red cars before a red house", "some red hats on the red table")
    else:
        first, second = 1, 6
        positions = model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions[1 + second] = positions[1 + first]  # position 0 is CLS, or the start of the text
    if side == "text":
        return Case(_loaded(model), side, texts, places=(first, second))
    shown = []
    for one in pictures(seed=seed):
        values = one.pixel_values.clone()
        _patch(values, second).copy_(_patch(values, first))
        shown.append(PreparedImage(values))
    return Case(_loaded(model), side, tuple(shown), places=(first, second))


def _patch(values: Tensor, place: int) -> Tensor:
    row, column = divmod(place, ROWS)
    return values[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]


def _marked(values: Tensor, pattern: Tensor, place: int) -> Tensor:
    found = values.clone()
    for other in range(ROWS * ROWS):
        patch = _patch(found, other)
        patch -= (patch * pattern).sum() * pattern
    _patch(found, place).add_(3.0 * pattern)
    return found


def _ignore_marks(tower: Any, plus: int, minus: int) -> None:
    """Let the keys of all heads read `minus - plus`, and no query care for anything else in that channel of theirs."""
    tower.embeddings.position_embedding.weight[:, [plus, minus]] = 0.0
    norms = [block.layer_norm1 for block in tower.encoder.layers]
    if hasattr(tower, "pre_layrnorm"):
        tower.embeddings.class_embedding[[plus, minus]] = 0.0
        norms.append(tower.pre_layrnorm)
    for norm in norms:
        norm.weight[[plus, minus]], norm.bias[[plus, minus]] = 1.0, 0.0
    own = range(0, WIDTH, _HEAD_WIDTH)
    for block in tower.encoder.layers:
        attention = block.self_attn
        for writing in (attention.out_proj, block.mlp.fc2):
            writing.weight[[plus, minus]], writing.bias[[plus, minus]] = 0.0, 0.0
        for channel in own:
            attention.q_proj.weight[channel], attention.q_proj.bias[channel] = 0.0, 1.0
            attention.k_proj.weight[channel], attention.k_proj.bias[channel] = 0.0, 0.0
            strength = _IGNORED * _HEAD_WIDTH**0.5
            attention.k_proj.weight[channel, plus] = -strength
            attention.k_proj.weight[channel, minus] = strength


def rewritten(model: DualEncoder, *, seed: int = 0) -> dict[str, DualEncoder]:
    """Copies of a toy with other weights that compute the same embeddings, by the name of the rewrite."""
    found = {}
    for number, name in enumerate(REWRITES):
        copy = _empty(len(model.text.blocks))
        copy.load_state_dict(model.model.state_dict())
        rewrite(copy, name, seed=3000 + 10 * seed + number)
        found[name] = _loaded(copy)
    return found


def _clip(seed: int, *, text_depth: int = DEPTH) -> Any:
    """A CLIPModel with weights of a size at which attention is neither even nor all on one position."""
    model, generator = _empty(text_depth), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            linear = parameter.ndim > 1 and not name.endswith(("token_embedding.weight", "position_embedding.weight"))
            if linear:
                parameter.copy_(drawn / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * drawn)
            else:
                parameter.copy_((0.2 if name.endswith("bias") else 0.7) * drawn)
    return model


def _empty(text_depth: int) -> Any:
    """A CLIPModel in float64, its weights as transformers draws them; torch's own generator is left as it was."""
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": HEADS}
    vision = {**common, "num_hidden_layers": DEPTH, "image_size": PATCH * ROWS, "patch_size": PATCH}
    text = {
        **common,
        "num_hidden_layers": text_depth,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": TOKENS,
        "bos_token_id": _START,
        "eos_token_id": _END,
        "pad_token_id": _END,
    }
    with torch.random.fork_rng(devices=()):
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=JOINT))
    return model.double().eval()


@functools.cache
def _processor() -> dict[str, Any]:
    from transformers import AutoTokenizer

    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # transformers 4
        from transformers import CLIPImageProcessor as Processor

    side = PATCH * ROWS
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer.model_max_length = TOKENS
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return {"image_processor": Processor(**sizes), "tokenizer": tokenizer}


def _loaded(model: Any) -> DualEncoder:
    """The toy as a dual encoder, with a small reference set of its own."""
    found = load(model, processor=_processor())
    shown, _, drawn = found.processing.pictures(pictures(6, seed=999))
    read, said, _ = found.processing.texts(_REFERENCE, truncate=True)
    return replace(
        found,
        image=_with_reference(found.image, shown, drawn),
        text=_with_reference(found.text, read, said),
    )


def _with_reference(tower: Tower, inputs: Inputs, layouts: Sequence[TokenLayout]) -> Tower:
    batch = (inputs, content_of(layouts))
    return replace(tower, reference=lambda: (batch,), _proved=set(), _means={})
