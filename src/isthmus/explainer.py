"""load() and explain(): one call for one pair or many."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus import __version__
from isthmus.assembly import Row, image_attribution, jsonable, rows_of, summed, text_attribution
from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import Picture, display_copy, open_picture
from isthmus.encoders.tower import Inputs, Side, unit
from isthmus.encoders.transformers import load_clip
from isthmus.errors import InputError, OptionError
from isthmus.explanation import Explanation, Provenance
from isthmus.methods import registry
from isthmus.targets import Contrast, Direction, Pair, Target, describe, mean_embedding, target_vector

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
) -> DualEncoder:
    """Load a dual encoder.

    Args:
        model: "mini" (bundled, for demonstration and tests, needs no network), a Hugging Face hub name or a
            local folder of a transformers CLIP, or a CLIPModel object, which stays as it is.
        processor: with a model object, its processor (anything with an image_processor and a fast tokenizer).
        device: "cpu", "cuda", "mps"; "auto" (or None) takes the fastest there is, and leaves a model object be.
        dtype: "float32" (default), "bfloat16", "float16" or "float64"; for models that are loaded here.
        attention: "sdpa" or "eager"; None leaves the choice to transformers.
        image_size: another input size than the processor's, a number or `(height, width)`, multiples of the
            patch; the position embedding is then interpolated.

    Raises:
        ModelError: no such model, another kind of model, or a damaged one.
        OptionError: no such device or dtype.
    """
    if isinstance(model, DualEncoder):
        return model
    if isinstance(dtype, str):
        if dtype not in _DTYPES:
            raise OptionError(f"There is no dtype {dtype!r}: choose one of {', '.join(_DTYPES)}.")
        dtype = _DTYPES[dtype]
    given = isinstance(model, nn.Module)
    if given and dtype is not None:
        raise OptionError("A model object keeps its dtype: convert it yourself with model.to(dtype).")
    where = None if given and device in (None, "auto") else _device(device)
    return load_clip(
        model, processor=processor, device=where, dtype=dtype, attention=attention, image_size=image_size
    )


def _device(device: str | torch.device | None) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device in (None, "auto"):
        return torch.device(next((name for name in ("cuda", "mps") if there[name]), "cpu"))
    try:
        chosen = torch.device(device)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise OptionError(f"There is no device {device!r}: choose auto, cpu, cuda or mps.") from error
    if not there.get(chosen.type, True):
        raise OptionError(f"This machine has no {chosen.type} device that torch can use: choose device=cpu.")
    return chosen


def explain(
    model: DualEncoder | str | Path | nn.Module,
    images: Any = None,
    texts: str | Sequence[str] | None = None,
    *,
    method: str = "nib",
    target: Target | None = None,
    against: Sequence[Any] | None = None,
    pairing: str = "each",
    sides: Sequence[Side] | Side = _SIDES,
    preset: str | None = None,
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
        against: short for a Contrast of each text against these texts (or each picture against these pictures).
        pairing: "each" takes the n-th picture with the n-th text, and a single one with all of the other side;
            "all" takes every picture with every text.
        sides: the sides to explain, "image", "text", or both.
        preset: "paper" for the published code's behaviour, see the method.
        truncate: cut texts that are longer than the model reads, in place of refusing them.
        batch_size: pairs at once. Results do not depend on it beyond rounding, but for `preset="paper"`.
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
    call = _Call(
        model=model,
        method=registry.get(method),
        sides=_chosen_sides(sides, images, texts, target),
        target=target or Pair(),
        against=tuple(against or ()),
        preset=preset,
        truncate=truncate,
        options={name: value for name, value in options.items() if value is not None},
    )
    call.check(batch_size)
    single = not _many(images) and not _many(texts)
    pictures = list(images) if _many(images) else [images]
    captions = list(texts) if _many(texts) else [texts]  # type: ignore[arg-type]
    pairs = _pairs(len(pictures), len(captions), pairing)
    found: list[Explanation] = []
    for start in range(0, len(pairs), batch_size):
        part = [(pictures[i], captions[j]) for i, j in pairs[start : start + batch_size]]
        with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False):
            found += call.run(part)
        if progress is not None:
            progress(len(found), len(pairs))
    found = _with_probabilities(call, found, pairs)
    return found[0] if single else found


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
    wanted = (sides,) if isinstance(sides, str) else tuple(sides)
    if wanted == ("both",):
        wanted = _SIDES
    if not wanted or any(side not in _SIDES for side in wanted):
        raise OptionError(f'sides must be "image", "text", or both, not {sides!r}.')
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


@dataclass(frozen=True, eq=False)
class _Batch:
    """The inputs of one side, with their unit embeddings, for each pair."""

    inputs: Inputs
    embeddings: Tensor
    layouts: list[Any]
    extras: list[Any]


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of explain, its options checked."""

    model: DualEncoder
    method: registry.Method
    sides: tuple[Side, ...]
    target: Target
    against: tuple[Any, ...]
    preset: str | None
    truncate: bool
    options: Mapping[str, Any]

    def check(self, batch_size: int) -> None:
        """Refuse what cannot be before anything is computed."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size must be a whole number of at least 1, not {batch_size!r}.")
        unknown = sorted(set(self.options) - set(self.method.options))
        if unknown:
            raise OptionError(
                f"{self.method.name} has no option {unknown[0]!r}: it has {', '.join(sorted(self.method.options))}."
            )
        if self.preset is not None and self.preset not in self.method.presets:
            there = ", ".join(self.method.presets) or "none"
            raise OptionError(f"{self.method.name} has no preset {self.preset!r}: it has {there}.")
        for side in self.sides:
            if side not in self.method.sides:
                raise OptionError(
                    f"{self.method.name} is not defined for the {side} side: choose another method."
                )
        if self.against:
            if not isinstance(self.target, Pair):
                raise OptionError("Give a target or against, not both: Contrast has an against of its own.")
            Contrast(against=self.against)  # refuses a mixture
        if isinstance(self.target, Contrast) and self.target.explains not in self.sides:
            raise OptionError(f"This Contrast explains the {self.target.explains}, which sides leaves out.")

    def run(self, pairs: Sequence[tuple[Any, Any]]) -> list[Explanation]:
        """Explain one batch of pairs."""
        began = time.perf_counter()
        pictures = [_opened(picture) for picture, _ in pairs] if pairs[0][0] is not None else None
        captions = [text for _, text in pairs] if pairs[0][1] is not None else None
        batches: dict[Side, _Batch] = {}
        if pictures is not None:
            batches["image"] = self._images(pictures)
        if captions is not None:
            batches["text"] = self._texts(captions)
        passes: list[Mapping[str, int]] = [{"forward": len(pairs)} for _ in batches]
        rows: dict[Side, list[Row]] = {}
        for side in self.sides:
            options = {k: v.get(side) if isinstance(v, Mapping) else v for k, v in self.options.items()}
            options = {k: v for k, v in options.items() if v is not None}
            if self.preset is not None:
                options["preset"] = self.preset
            vectors = self._vectors(side, batches, len(pairs))
            found = self.method.function(self.model.tower(side), batches[side].inputs, vectors, **options)
            rows[side] = rows_of(found)
            passes.append(found.passes)
        provenance = self._provenance((time.perf_counter() - began) / len(pairs), summed(passes, len(pairs)))
        return [
            self._explanation(i, pictures, captions, batches, rows, provenance) for i in range(len(pairs))
        ]

    def _images(self, pictures: Sequence[Picture | PreparedImage]) -> _Batch:
        inputs, frames, layouts = self.model.processing.pictures(pictures)
        return _Batch(inputs, unit(self.model.image.embed(inputs)), layouts, frames)

    def _texts(self, captions: Sequence[str]) -> _Batch:
        inputs, layouts, notes = self.model.processing.texts(captions, truncate=self.truncate)
        return _Batch(inputs, unit(self.model.text.embed(inputs)), layouts, notes)

    def _vectors(self, side: Side, batches: Mapping[Side, _Batch], count: int) -> Tensor:
        """The target vector `(B, D)` of each pair."""
        if isinstance(self.target, Direction) or self._contrasted(side):
            assert not isinstance(self.target, Pair)
            vector = target_vector(self.model, self.target)
            width = next(iter(batches.values())).embeddings.shape[1]
            if len(vector) != width:
                raise OptionError(
                    f"The target has {len(vector)} dimensions, but the joint space has {width}."
                )
            return vector.expand(count, -1)
        partner = batches["text" if side == "image" else "image"].embeddings
        if self.against and Contrast(against=self.against).explains == side:
            less = mean_embedding(self.model, self.against, truncate=self.truncate)
            return partner - less
        return partner

    def _contrasted(self, side: Side) -> bool:
        return isinstance(self.target, Contrast) and self.target.explains == side

    def _described(self, side: Side, partner: Any) -> str:
        if self.against and Contrast(against=self.against).explains == side:
            return describe(Contrast(for_=(partner,), against=self.against), side, "")
        target = self.target if isinstance(self.target, Direction) or self._contrasted(side) else Pair()
        return describe(target, side, "the picture" if side == "text" else repr(partner))

    def _explanation(
        self,
        i: int,
        pictures: Sequence[Picture | PreparedImage] | None,
        captions: Sequence[str] | None,
        batches: Mapping[Side, _Batch],
        rows: Mapping[Side, list[Row]],
        provenance: Provenance,
    ) -> Explanation:
        picture = None if pictures is None else pictures[i]
        shown = self.model.processing.shown(picture) if isinstance(picture, PreparedImage) else picture
        caption = "" if captions is None else captions[i]
        image = text = similarity = None
        if "image" in rows:
            batch = batches["image"]
            name = self._described("image", caption)
            image = image_attribution(rows["image"][i], batch.layouts[i], batch.extras[i], name)
        if "text" in rows:
            batch = batches["text"]
            name = self._described("text", shown)
            text = text_attribution(rows["text"][i], batch.layouts[i], caption, name, batch.extras[i])
        if len(batches) == 2:
            similarity = float((batches["image"].embeddings[i] * batches["text"].embeddings[i]).sum())
        return Explanation(
            image=image,
            text=text,
            picture=None if shown is None else display_copy(shown),
            caption=caption,
            source="" if shown is None else shown.source,
            similarity=similarity,
            probability=None,
            provenance=provenance,
        )

    def _provenance(self, seconds: float, passes: Mapping[str, float]) -> Provenance:
        import transformers

        device = self.model.device
        name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
        return Provenance(
            model=self.model.name,
            revision=self.model.revision,
            method=self.method.name,
            preset=self.preset,
            options=jsonable(self.options),
            versions={
                "isthmus": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            device=name,
            dtype=str(self.model.dtype).removeprefix("torch."),
            seconds=seconds,
            passes=passes,
        )


def _opened(picture: Any) -> Picture | PreparedImage:
    return picture if isinstance(picture, PreparedImage) else open_picture(picture)


def _with_probabilities(
    call: _Call, found: list[Explanation], pairs: Sequence[tuple[int, int]]
) -> list[Explanation]:
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
