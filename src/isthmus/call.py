"""One call of explain: its options checked, and its batches run."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from isthmus import __version__
from isthmus.assembly import Row, image_attribution, joint_attribution, jsonable, rows_of, text_attribution
from isthmus.encoders.counting import counted, uncounted
from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.explanation import Explanation, Provenance
from isthmus.methods import registry
from isthmus.methods.joint import Half, Interaction
from isthmus.preparing import Batch, Preparing
from isthmus.targets import (
    Contrast,
    Direction,
    FixedTarget,
    Pair,
    Target,
    bank_embeddings,
    bank_side,
    describe,
    mean_embedding,
    named,
    target_vector,
)

_SIDES: tuple[Side, Side] = ("image", "text")
_PICTURES = (Path, Image.Image, Picture, PreparedImage)  # as an option: the picture that stands in for this one


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
    joint: bool = False
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

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
        bank = self.options.get("bank")
        if bank is not None and not isinstance(bank, Mapping) and bank_side(bank) not in (None, *self.sides):
            raise OptionError(
                "This bank serves a side that is not explained: give texts for a picture, and pictures for a text."
            )
        if self.joint and self.method.joint is None:
            able = ", ".join(sorted(name for name, one in registry.METHODS.items() if one.joint is not None))
            raise OptionError(f"{self.method.name} has no joint map: choose one of {able}.")
        if self.joint and (self.against or not isinstance(self.target, Pair)):
            raise OptionError("A joint map explains the cosine of the pair: leave target and against out.")
        if self.joint and self.preset is not None:
            raise OptionError("A joint map has no preset: leave it out.")
        if self.against:
            if not isinstance(self.target, Pair):
                raise OptionError("Give a target or against, not both: Contrast has an against of its own.")
            Contrast(against=self.against)  # refuses a mixture
        if isinstance(self.target, Contrast) and self.target.explains not in self.sides:
            raise OptionError(f"This Contrast explains the {self.target.explains}, which sides leaves out.")

    def cut(self, side: Side) -> float | None:
        """The layer at which the method is going to split a tower, as far as that is known before it runs."""
        layer = self.options.get("layer", self.method.cut.get(self.preset or ""))
        layer = layer.get(side) if isinstance(layer, Mapping) else layer
        known = side in self.sides and isinstance(layer, (float, int)) and not isinstance(layer, bool)
        return layer if known else None

    def run(self, preparing: Preparing, pairs: Sequence[int]) -> list[Explanation]:
        """Explain one batch of pairs, of those that are being prepared."""
        began = time.perf_counter()
        with counted() as passes:
            batches = preparing.of(pairs)
            rows: dict[Side, list[Row]] = {}
            notes: dict[Side, tuple[str, ...]] = {}
            for side in self.sides:
                target = self._vectors(side, batches, len(pairs))
                options = self._arguments(side, batches[side])
                found = self.method.function(self.model.tower(side), batches[side].inputs, target.vector, **options)
                rows[side], notes[side] = rows_of(found), target.notes
            joint = self._joint(batches) if self.joint else None
        per_pair = {name: number / len(pairs) for name, number in passes.items()}
        provenance = self._provenance((time.perf_counter() - began) / len(pairs), per_pair)
        all_of = [self._explanation(i, batches, rows, notes, provenance) for i in range(len(pairs))]
        return all_of if joint is None else [self._with_joint(one, joint, i, batches) for i, one in enumerate(all_of)]

    def _with_joint(self, one: Explanation, joint: Interaction, row: int, batches: Mapping[Side, Batch]) -> Explanation:
        image, text = (batches[side].layouts[row] for side in _SIDES)
        return replace(one, joint=joint_attribution(joint, row, image, text))

    def _joint(self, batches: Mapping[Side, Batch]) -> Interaction:
        assert self.method.joint is not None, "check() refuses a method without a joint map"
        image, text = (Half(self.model.tower(s), batches[s].inputs, batches[s].layouts) for s in _SIDES)
        options = {name: self._as_pixels(value) for name, value in self.options.items()}
        found: Interaction = self.method.joint(
            image, text, **{name: value for name, value in options.items() if name in self.method.joint_options}
        )
        return found

    def _as_pixels(self, value: Any) -> Any:
        """A picture among the options as the image tower takes it; it says nothing of the text."""
        if not isinstance(value, _PICTURES):
            return value

        def pixels() -> Tensor:
            picture = value if isinstance(value, PreparedImage) else open_picture(value)
            found: Tensor = self.model.processing.pictures([picture])[0][self.model.image.stem_input]
            return found

        return {"image": self._once(f"pixels {id(value)}", pixels)}

    def _arguments(self, side: Side, batch: Batch) -> dict[str, Any]:
        """What the method's function takes beside the tower, its inputs and the target."""
        options = {k: v if k == "bank" else self._as_pixels(v) for k, v in self.options.items()}
        options = {k: v.get(side) if isinstance(v, Mapping) else v for k, v in options.items()}
        if self.method.needs_bank:
            options["bank"] = self._once(f"bank of the {side}", lambda: self._bank(side, options.get("bank")))
        if self.preset is not None:
            options["preset"] = self.preset
        if self.method.needs_layouts:
            options["layouts"] = batch.layouts
        return {name: value for name, value in options.items() if value is not None}

    def _bank(self, side: Side, items: Any) -> Tensor:
        """`(M, D)` unit embeddings that the method compares with: the user's, or those of the reference set."""
        if items is not None and bank_side(items) in (None, side):
            return bank_embeddings(self.model, items, truncate=self.truncate)
        return self.model.tower("text" if side == "image" else "image").reference_embeddings()

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What all batches of a call share is made once."""
        if name not in self._kept:
            with uncounted():
                self._kept[name] = make()
        return self._kept[name]

    def _vectors(self, side: Side, batches: Mapping[Side, Batch], count: int) -> FixedTarget:
        """The target vector `(B, D)` of each pair."""
        if isinstance(self.target, Direction) or self._contrasted(side):
            target = self.target
            assert not isinstance(target, Pair)
            fixed = self._once("target", lambda: target_vector(self.model, target, truncate=self.truncate))
            width = next(iter(batches.values())).embeddings.shape[1]
            if len(fixed.vector) != width:
                raise OptionError(f"The target has {len(fixed.vector)} dimensions, but the joint space has {width}.")
            return FixedTarget(fixed.vector.expand(count, -1), fixed.notes)
        partner = batches["text" if side == "image" else "image"].embeddings
        if self.against and Contrast(against=self.against).explains == side:
            less = self._once("against", lambda: mean_embedding(self.model, self.against, truncate=self.truncate))
            return FixedTarget(partner - less.vector, less.notes)
        return FixedTarget(partner)

    def _contrasted(self, side: Side) -> bool:
        return isinstance(self.target, Contrast) and self.target.explains == side

    def _described(self, side: Side, partner: Any, batch: int) -> str:
        of_batch = self.method.name == "nib" and self.preset == "paper"  # the quirk of that preset alone
        if of_batch and side == "text" and batch > 1 and isinstance(self.target, Pair):
            return f"cosine with the mean of the batch's {batch} pictures"
        if self.against and Contrast(against=self.against).explains == side:
            return describe(Contrast(for_=(partner,), against=self.against), "")
        target = self.target if isinstance(self.target, Direction) or self._contrasted(side) else Pair()
        return describe(target, "the picture" if side == "text" else repr(partner))

    def _explanation(
        self,
        i: int,
        batches: Mapping[Side, Batch],
        rows: Mapping[Side, list[Row]],
        notes: Mapping[Side, tuple[str, ...]],
        provenance: Provenance,
    ) -> Explanation:
        shown = batches["image"].shown[i] if "image" in batches else None
        caption = batches["text"].texts[i] if "text" in batches else ""
        image = text = similarity = None
        read = (batches["text"].notes[i],) if "text" in batches and batches["text"].notes[i] else ()
        if "image" in rows:
            batch = batches["image"]
            name = self._described("image", caption, len(batch.layouts))
            said = notes["image"] if "text" in rows else (*notes["image"], *read)  # told once
            image = image_attribution(rows["image"][i], batch.layouts[i], batch.frames[i], name, said)
        if "text" in rows:
            batch = batches["text"]
            name = self._described("text", shown and shown.picture, len(batch.layouts))
            text = text_attribution(rows["text"][i], batch.layouts[i], caption, name, (*notes["text"], *read))
        if len(batches) == 2:
            similarity = float((batches["image"].embeddings[i] * batches["text"].embeddings[i]).sum())
        return Explanation(
            image=image,
            text=text,
            picture=None if shown is None else shown.pixels,
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
                **_library(self.model.model),
            },
            device=name,
            dtype=_told(self.model.dtype, self.model.image.autocast),
            seconds=seconds,
            passes=passes,
            seed=self.options.get("seed", 0) if self.method.random else None,
        )


def _told(dtype: torch.dtype, autocast: torch.dtype | None) -> str:
    name = str(dtype).removeprefix("torch.")
    return name if autocast is None else f"{name}, matrix products in {str(autocast).removeprefix('torch.')}"


def _library(model: Any) -> dict[str, str]:
    """The version of the library that a model is of, where it tells one."""
    name = type(model).__module__.partition(".")[0]
    modules = (sys.modules.get(place) for place in (name, f"{name}.version"))
    version = next((found for one in modules if isinstance(found := getattr(one, "__version__", None), str)), None)
    return {} if version is None else {name: version}
