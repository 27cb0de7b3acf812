"""load() and explain(): one call for one pair or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.call import Call
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.memory import pairs_in_chunks
from isthmus.encoders.open_clip import is_open_clip, load_open_clip
from isthmus.encoders.precision import autocast_to, fastest_dtype
from isthmus.encoders.sharing import sharing
from isthmus.encoders.tower import Side
from isthmus.encoders.transformers import load_transformers
from isthmus.errors import InputError, OptionError
from isthmus.explanation import Explanation
from isthmus.methods import registry
from isthmus.preparing import Preparing, planned
from isthmus.targets import Contrast, Pair, Target

_SIDES: tuple[Side, ...] = ("image", "text")
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load(
    model: str | Path | nn.Module | DualEncoder = "mini",
    *,
    processor: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attention: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    autocast: str | None = None,
) -> DualEncoder:
    """Load a dual encoder.

    Args:
        model: "mini" (bundled, for demonstration and tests, needs no network), a Hugging Face hub name or a
            local folder of a transformers dual encoder (CLIP, SigLIP, ALIGN, ...), or such a model object, which
            stays as it is. Models of open_clip are "open_clip:NAME/WEIGHTS" ("open_clip:RN50/openai", or a file of
            weights), "open_clip:hf-hub:NAME", or an object of it.
        processor: with a model object, its processor (anything with an image_processor and a fast tokenizer); with
            one of open_clip `(preprocess, tokenizer)`, its transforms for inference and its tokenizer.
        device: "cpu", "cuda", "mps"; "auto" (or None) takes the fastest there is, and leaves a model object be.
        dtype: "float32" (default), "bfloat16", "float16" or "float64", or "auto" for bfloat16 where the device computes
            it in hardware, else float32; for models that are loaded here.
        attention: "sdpa" or "eager"; None leaves the choice to transformers. Not for open_clip.
        image_size: another input size than the processor's, a number or `(height, width)`, multiples of the
            patch; the position embedding is then interpolated. A model object of open_clip keeps its own.
        autocast: "bfloat16" runs matrix products of float32 weights in bfloat16, of a model object too; closer to
            float32 than `dtype="bfloat16"`, which also rounds the weights and what is passed on between blocks.

    Raises:
        ModelError: no such model, another kind of model, or a damaged one.
        OptionError: no such device or dtype.
    """
    if isinstance(model, DualEncoder):
        if any(option is not None for option in (processor, device, dtype, attention, image_size, autocast)):
            raise OptionError("This model is loaded already: give the options where it is loaded first.")
        return model
    if not isinstance(model, (str, Path, nn.Module)) or model == "":
        raise OptionError(f"A model is a name, a folder or a model object, not {model!r}.")
    given = isinstance(model, nn.Module)
    where = None if given and device in (None, "auto") else _device(device)
    if dtype is not None:
        name = str(dtype).removeprefix("torch.")
        dtype = fastest_dtype(where or torch.device("cpu")) if name == "auto" else _DTYPES.get(name)
        if dtype is None:
            raise OptionError(f"There is no such dtype: choose one of {', '.join(_DTYPES)} or auto.")
    if attention not in (None, "sdpa", "eager"):
        raise OptionError(f"attention must be sdpa or eager, not {attention!r}.")
    if given and (dtype is not None or attention is not None):
        raise OptionError("A model object keeps its dtype and attention: change them yourself before you load it.")
    if is_open_clip(model):
        assert not isinstance(model, Path)
        if attention is not None:
            raise OptionError("open_clip chooses the attention of its models: leave attention out.")
        found = load_open_clip(model, processor=processor, device=where, dtype=dtype, image_size=image_size)
        return found if autocast is None else autocast_to(found, autocast)
    found = load_transformers(
        model, processor=processor, device=where, dtype=dtype, attention=attention, image_size=image_size
    )
    return found if autocast is None else autocast_to(found, autocast)


def _device(device: str | torch.device | None) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device in (None, "auto"):
        return torch.device(next((name for name in ("cuda", "mps") if there[name]), "cpu"))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"There is no device {device!r}: choose auto, cpu, cuda or mps.") from error
    if not there.get(chosen.type, False):
        raise OptionError(f"This machine has no {chosen.type} device that torch can use: choose device=cpu.")
    return chosen


def explain(
    model: DualEncoder | str | Path | nn.Module,
    images: Any = None,
    texts: str | Sequence[str] | None = None,
    *,
    method: str = "nib",
    target: Target | None = None,
    against: Any = None,
    pairing: str = "each",
    sides: Sequence[Side] | Side | None = None,
    preset: str | None = None,
    joint: bool = False,
    truncate: bool = False,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Explanation | list[Explanation]:
    """Explain what passes between pictures and texts.

    Args:
        model: what `load` gives, or takes.
        images: a picture, or a list: path, PIL image, array `(H, W, 3)` (uint8, or float in [0, 1]), tensor, or
            `PreparedImage`. None explains texts alone, by a `target`.
        texts: a text, or a list. None explains pictures alone, by a `target`.
        method: a name of `isthmus.methods`.
        target: `Pair()` (default: the cosine of the pair), `Contrast`, or `Direction`. A Contrast of texts
            explains the picture, one of pictures the text; the other side keeps the pair.
        against: short for a Contrast of each text against these texts (or each picture against these pictures);
            one, or a list.
        pairing: "each" takes the n-th picture with the n-th text, and a single one with all of the other side;
            "all" takes every picture with every text.
        sides: the sides to explain, "image", "text", or both; by default those that the method is defined for.
        preset: "paper" for the published code's behaviour, see the method.
        joint: also give the joint map of words and regions (`Explanation.joint`), for methods that have one.
        truncate: cut texts that are longer than the model reads, in place of refusing them.
        batch_size: pairs at once, fewer where memory runs out. Results do not depend on it beyond rounding, but for
            `preset="paper"`.
        progress: called with the number of pairs done and their total.
        options: the method's own (for nib: layer, steps, rule, closed, ...), for both sides, or as a mapping
            `{"image": ..., "text": ...}`.

    Returns:
        An Explanation for one picture and one text, else a list, picture by picture.

    Raises:
        InputError: a picture or text that cannot be used.
        OptionError: an option that makes no sense.
        ModelError: a model that cannot be used.
    """
    model = model if isinstance(model, DualEncoder) else load(model)
    found_method = registry.get(method)
    if joint and (images is None or texts is None):
        raise InputError("There is one side only, but a joint map needs a picture and a text: give both.")
    call = Call(
        model=model,
        method=found_method,
        sides=_chosen_sides(found_method.sides if sides is None else sides, images, texts, target),
        target=Pair() if target is None else target,
        against=() if against is None else tuple(against) if isinstance(against, (list, tuple)) else (against,),
        preset=preset,
        truncate=truncate,
        batch_size=batch_size,
        options={name: value for name, value in options.items() if value is not None},
        joint=joint,
    )
    call.check()
    single = not _many(images) and not _many(texts)
    pictures = list(images) if _many(images) else [images]
    captions = list(texts) if _many(texts) else [texts]  # type: ignore[arg-type]
    pairs = _pairs(len(pictures), len(captions), pairing)
    found = _explained(call, pictures, captions, pairs, progress)
    found = _with_probabilities(call, found, pairs)
    return found[0] if single else found


def _explained(
    call: Call,
    pictures: Sequence[Any],
    texts: Sequence[Any],
    pairs: Sequence[tuple[int, int]],
    progress: Callable[[int, int], None] | None,
) -> list[Explanation]:
    """All pairs in their order, batch by batch; the pictures of the next one are opened meanwhile."""
    found: dict[int, Explanation] = {}
    size, in_order = call.batch_size, [*range(len(pairs))]
    as_given = call.preset is not None  # what is published may depend on the batch
    plan = (
        [in_order[start : start + size] for start in in_order[::size]]
        if as_given
        else planned(pairs, pictures, texts, size)
    )
    with (
        torch.inference_mode(False),
        torch.autocast(call.model.device.type, enabled=False),
        sharing() as shared,
        Preparing(
            call.model,
            None if pictures[0] is None else pictures,
            None if texts[0] is None else texts,
            pairs,
            truncate=call.truncate,
            shared=shared,
            cut=call.cut,
        ) as preparing,
    ):
        for batch, after in zip(plan, [*plan[1:], []], strict=True):
            preparing.ahead([*batch, *after])

            def run(part: slice, batch: list[int] = batch) -> None:
                found.update(zip(batch[part], call.run(preparing, batch[part]), strict=True))

            pairs_in_chunks(run, len(batch), call.model.model, whole=as_given)
            if progress is not None:
                progress(len(found), len(pairs))
    return [found[place] for place in in_order]


def _many(items: Any) -> bool:
    return isinstance(items, (list, tuple))


def _pairs(pictures: int, texts: int, pairing: str) -> list[tuple[int, int]]:
    if pairing not in ("each", "all"):
        raise OptionError(f'pairing must be "each" or "all", not {pairing!r}.')
    if not pictures or not texts:
        raise InputError("There is nothing to explain: the list of pictures or texts is empty.")
    if pairing == "all" or pictures == 1 or texts == 1:
        return [(i, j) for i in range(pictures) for j in range(texts)]
    if pictures != texts:
        raise InputError(
            f'{pictures} pictures and {texts} texts do not pair off: give as many of each, or pairing="all".'
        )
    return [(i, i) for i in range(pictures)]


def _chosen_sides(sides: Any, images: Any, texts: Any, target: Target | None) -> tuple[Side, ...]:
    wanted = tuple(sides) if _many(sides) else (sides,)
    if wanted == ("both",):
        wanted = _SIDES
    if not wanted or any(side not in _SIDES for side in wanted):
        raise OptionError(f'sides must be "image", "text", or both, not {sides!r}.')
    if any(_many(items) and any(item is None for item in items) for items in (images, texts)):
        raise InputError("A list of pictures or texts holds None: leave it out, with its partner.")
    if images is None and texts is None:
        raise InputError("There is nothing to explain: give a picture and a text.")
    missing: Side | None = "image" if images is None else "text" if texts is None else None
    if missing is None:
        return wanted
    left: Side = "text" if missing == "image" else "image"
    if isinstance(target, Contrast) and target.explains != left:
        raise InputError(f"This Contrast explains the {target.explains}, which is not given.")
    if target is None or isinstance(target, Pair):
        raise InputError(f"There is no {'picture' if missing == 'image' else 'text'}: give one, or a target.")
    return (left,)


def _with_probabilities(call: Call, found: list[Explanation], pairs: Sequence[tuple[int, int]]) -> list[Explanation]:
    """CLIP's softmax over the texts that a picture was compared with in this call, at least two."""
    scale = call.model.logit_scale
    texts = [item for item in call.against if isinstance(item, str)]
    if scale is None or found[0].similarity is None or texts:
        return found
    logits: dict[int, list[float]] = {}
    for one, (i, _) in zip(found, pairs, strict=True):
        logits.setdefault(i, []).append(scale * (one.similarity or 0.0))
    if max(map(len, logits.values())) < 2:
        return found
    totals = {i: _logsumexp(values) for i, values in logits.items()}
    return [
        replace(one, probability=math.exp(scale * (one.similarity or 0.0) - totals[i]))
        for one, (i, _) in zip(found, pairs, strict=True)
    ]


def _logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
