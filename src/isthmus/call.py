"""One call of explain: its options checked, and its batches run."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from isthmus import __version__
from isthmus.assembly import Row, image_attribution, jsonable, rows_of, summed, text_attribution
from isthmus.encoders.dual import DualEncoder, Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.pictures import Picture, display_copy, open_picture
from isthmus.encoders.tower import Inputs, Side, unit
from isthmus.errors import OptionError
from isthmus.explanation import Explanation, Provenance
from isthmus.methods import registry
from isthmus.targets import (
    Contrast,
    Direction,
    FixedTarget,
    Pair,
    Target,
    describe,
    mean_embedding,
    named,
    target_vector,
)


@dataclass(frozen=True, eq=False)
class _Batch:
    """The inputs of one side, with their unit embeddings, for each pair; frames of pictures, notes on texts."""

    inputs: Inputs
    embeddings: Tensor
    layouts: list[TokenLayout]
    frames: list[Frame]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of explain, its options checked."""

    model: DualEncoder
    method: registry.Method
    sides: tuple[Side, ...]
    target: Target
    against: tuple[Any, ...]
    preset: str | None
    truncate: bool
    batch_size: int
    options: Mapping[str, Any]

    def check(self) -> None:
        """Refuse what cannot be before anything is computed."""
        size = self.batch_size
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise OptionError(f"batch_size must be a whole number of at least 1, not {size!r}.")
        if not isinstance(self.target, (Pair, Contrast, Direction)):
            raise OptionError(f"target must be a Pair, a Contrast or a Direction, not {type(self.target).__name__}.")
        for name, value in self.options.items():
            if isinstance(value, Mapping) and not set(value) <= {"image", "text"}:
                raise OptionError(f'{name} for each side is a mapping with the keys "image" and "text", not {value!r}.')
        unknown = sorted(set(self.options) - set(self.method.options))
        if unknown:
            raise OptionError(
                f"{self.method.name} has no option {unknown[0]!r}: it has {', '.join(sorted(self.method.options))}."
            )
        if self.preset is not None and self.preset not in tuple(self.method.presets):
            there = ", ".join(self.method.presets) or "none"
            raise OptionError(f"{self.method.name} has no preset {self.preset!r}: it has {there}.")
        for side in self.sides:
            if side not in self.method.sides:
                raise OptionError(f"{self.method.name} is not defined for the {side} side: choose another method.")
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
        notes: dict[Side, tuple[str, ...]] = {}
        for side in self.sides:
            options = {k: v.get(side) if isinstance(v, Mapping) else v for k, v in self.options.items()}
            options = {k: v for k, v in options.items() if v is not None}
            if self.preset is not None:
                options["preset"] = self.preset
            target = self._vectors(side, batches, len(pairs))
            if self.method.needs_content:
                options["content"] = content_of(batches[side].layouts)
            found = self.method.function(self.model.tower(side), batches[side].inputs, target.vector, **options)
            rows[side], notes[side] = rows_of(found), target.notes
            passes.append(found.passes)
        provenance = self._provenance((time.perf_counter() - began) / len(pairs), summed(passes, len(pairs)))
        return [self._explanation(i, pictures, captions, batches, rows, notes, provenance) for i in range(len(pairs))]

    def _images(self, pictures: Sequence[Picture | PreparedImage]) -> _Batch:
        inputs, frames, layouts = self.model.processing.pictures(pictures)
        return _Batch(inputs, unit(self.model.image.embed(inputs)), layouts, frames, [])

    def _texts(self, captions: Sequence[str]) -> _Batch:
        inputs, layouts, notes = self.model.processing.texts(captions, truncate=self.truncate)
        return _Batch(inputs, unit(self.model.text.embed(inputs)), layouts, [], notes)

    def _vectors(self, side: Side, batches: Mapping[Side, _Batch], count: int) -> FixedTarget:
        """The target vector `(B, D)` of each pair."""
        if isinstance(self.target, Direction) or self._contrasted(side):
            assert not isinstance(self.target, Pair)
            fixed = target_vector(self.model, self.target, truncate=self.truncate)
            width = next(iter(batches.values())).embeddings.shape[1]
            if len(fixed.vector) != width:
                raise OptionError(f"The target has {len(fixed.vector)} dimensions, but the joint space has {width}.")
            return FixedTarget(fixed.vector.expand(count, -1), fixed.notes)
        partner = batches["text" if side == "image" else "image"].embeddings
        if self.against and Contrast(against=self.against).explains == side:
            less = mean_embedding(self.model, self.against, truncate=self.truncate)
            assert less is not None, "against is not empty"
            return FixedTarget(partner - less.vector, less.notes)
        return FixedTarget(partner)

    def _contrasted(self, side: Side) -> bool:
        return isinstance(self.target, Contrast) and self.target.explains == side

    def _described(self, side: Side, partner: Any, batch: int) -> str:
        if self.preset == "paper" and side == "text" and batch > 1 and isinstance(self.target, Pair):
            return f"cosine with the mean of the batch's {batch} pictures"
        if self.against and Contrast(against=self.against).explains == side:
            return describe(Contrast(for_=(partner,), against=self.against), "")
        target = self.target if isinstance(self.target, Direction) or self._contrasted(side) else Pair()
        return describe(target, "the picture" if side == "text" else repr(partner))

    def _explanation(
        self,
        i: int,
        pictures: Sequence[Picture | PreparedImage] | None,
        captions: Sequence[str] | None,
        batches: Mapping[Side, _Batch],
        rows: Mapping[Side, list[Row]],
        notes: Mapping[Side, tuple[str, ...]],
        provenance: Provenance,
    ) -> Explanation:
        picture = None if pictures is None else pictures[i]
        shown = self.model.processing.shown(picture) if isinstance(picture, PreparedImage) else picture
        caption = "" if captions is None else captions[i]
        image = text = similarity = None
        read = () if captions is None or not batches["text"].notes[i] else (batches["text"].notes[i],)
        if "image" in rows:
            batch = batches["image"]
            name = self._described("image", caption, len(batch.layouts))
            said = notes["image"] if "text" in rows else (*notes["image"], *read)  # told once
            image = image_attribution(rows["image"][i], batch.layouts[i], batch.frames[i], name, said)
        if "text" in rows:
            batch = batches["text"]
            name = self._described("text", shown, len(batch.layouts))
            text = text_attribution(rows["text"][i], batch.layouts[i], caption, name, (*notes["text"], *read))
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

    def _settings(self) -> dict[str, Any]:
        """The rest of what makes this call again, beside the method's options."""
        config = getattr(self.model.model, "config", None)
        settings: dict[str, Any] = {"sides": self.sides, "truncate": self.truncate, "batch_size": int(self.batch_size)}
        if isinstance(self.target, Contrast):
            settings |= {"for_": named(self.target.for_), "against": named(self.target.against)}
        elif self.against:
            settings["against"] = named(self.against)
        elif isinstance(self.target, Direction):
            settings["direction"] = self.target.name
        return settings | {"attention": str(getattr(config, "_attn_implementation", ""))}

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
            settings=self._settings(),
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
