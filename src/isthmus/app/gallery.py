"""Several pictures with one text: what is kept of each, in which order they are shown, and what hints at odd cues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

from isthmus.app.question import Answer, Question
from isthmus.app.stored import Stored
from isthmus.app.uploads import Upload
from isthmus.app.view import View, delta_of, grid, payload
from isthmus.drawing.scale import region_scale, word_scale
from isthmus.encoders.pictures import Picture, display_copy
from isthmus.explanation import Array, Explanation


@dataclass(frozen=True, eq=False)
class Item:
    """One picture: its file, its explanation without the decoded picture, and its card."""

    upload: Upload
    explanation: Explanation
    card: View

    def answer(self, question: Question) -> Answer:
        """The answer as it was; `question` is what was asked, with the picture decoded again."""
        whole = replace(self.explanation, picture=display_copy(Picture(question.picture)))
        return Answer(question, whole, whole.provenance.seconds)


@dataclass(eq=False)
class Gallery:
    """What a visitor's pictures gave; `left_out` has a label and a reason for each that gave nothing."""

    model: str
    text: str
    method: str = "nib"
    options: Mapping[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def question(self, upload: Upload) -> Question:
        """What is asked of a picture, decoded."""
        picture = upload.picture()
        Stored(picture, upload.data)  # what is kept of it, here already
        return Question(self.model, picture, self.text, None, self.method, self.options)

    @property
    def done(self) -> int:
        """How many files have given something, or were left out."""
        return len(self.items) + len(self.left_out)

    def add(self, upload: Upload, answer: Answer) -> None:
        """Keep what a picture gave."""
        card = payload(answer, title=upload.name, small=True)
        card["cardFacts"] = facts_of(answer.explanation)
        self.items.append(Item(upload, replace(answer.explanation, picture=None), card))

    def ordered(self, by: str) -> list[Item]:
        """The items by one of `ORDERS`, the largest first; those without such a value at the end."""
        values = [(ORDERS[by](item.explanation), item) for item in self.items]
        there = [(value, item) for value, item in values if value is not None]
        there.sort(key=lambda one: -one[0])
        return [item for _, item in there] + [item for value, item in values if value is None]

    def view(self, by: str) -> View | None:
        """Cards in an order, all on one scale; None without any."""
        if not self.items:
            return None
        found = [item.explanation for item in self.items]
        limits = {"limit": region_scale(found).limit, "wordLimit": word_scale(found).limit}
        return grid([item.card | limits for item in self.ordered(by)]) | {"select": True}


@dataclass(frozen=True, eq=False)
class Restored(Sequence[Explanation]):
    """The explanations of a gallery, in its order, each whole again when it is looked at, and named by its file."""

    gallery: Gallery

    def __len__(self) -> int:
        """How many there are."""
        return len(self.gallery.items)

    @overload
    def __getitem__(self, place: int) -> Explanation: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Explanation]: ...
    def __getitem__(self, place: int | slice) -> Explanation | Sequence[Explanation]:
        """One of them, with its picture decoded again."""
        if isinstance(place, slice):
            return [self[n] for n in range(len(self))[place]]
        item = self.gallery.items[place]
        return replace(item.answer(self.gallery.question(item.upload)).explanation, source=item.upload.called)


def corners(scores: Array) -> tuple[float | None, float]:
    """What share of the score that speaks for the match lies in the four corners, and their share of the area.

    A corner is a quarter of the rows by a quarter of the columns, at least one region. The share is in [0, 1], None
    where nothing speaks for the match. Much above the area's share, it hints at a cue outside the subject, such as a
    watermark.
    """
    rows, columns = scores.shape
    high, wide = max(1, rows // 4), max(1, columns // 4)
    inside = np.zeros(scores.shape, dtype=bool)
    for down in (slice(0, high), slice(rows - high, rows)):
        for across in (slice(0, wide), slice(columns - wide, columns)):
            inside[down, across] = True
    mass = np.clip(np.nan_to_num(scores.astype(np.float64)), 0, None)
    total = float(mass.sum())
    return (float(mass[inside].sum()) / total if total > 0 else None), float(inside.mean())


def facts_of(one: Explanation) -> list[str]:
    """The delta and the corners' share in words."""
    facts, delta, share = [], _delta(one), _corners(one)
    if delta is not None:
        facts.append(delta_of(delta))
    if share is not None and one.image is not None:
        facts.append(f"corners {share:.0%}, evenly {corners(one.image.scores)[1]:.0%}")
    return facts


def _similarity(one: Explanation) -> float | None:
    return one.similarity


def _delta(one: Explanation) -> float | None:
    return None if one.image is None else one.image.completeness.relative_delta


def _corners(one: Explanation) -> float | None:
    return None if one.image is None else corners(one.image.scores)[0]


ORDERS: dict[str, Callable[[Explanation], float | None]] = {
    "similarity": _similarity,
    "delta": _delta,
    "share in the corners": _corners,
}


def left_out_said(left_out: Sequence[tuple[str, str]]) -> str:
    """One line of plain text on what was left out, "" for nothing."""
    if not left_out:
        return ""
    named = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in left_out[:3])
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f"{len(left_out)} left out ({named}{more})."
