"""What the viewer draws: an answer as plain data for the browser. Scores stay raw; only colours are scaled there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from isthmus.app.question import Answer
from isthmus.drawing.heatmap import outlined
from isthmus.drawing.pieces import fit, jpeg
from isthmus.drawing.scale import region_scale, word_scale
from isthmus.drawing.words import specials
from isthmus.explanation import Array, Explanation, ImageAttribution, TextAttribution
from isthmus.methods import registry

View = dict[str, Any]

_LONGEST, _SMALL = 1024, 384  # pixels of the picture's longer side
_TOP = 3
_MUCH = 0.05  # of delta: from here on a visitor is told what it means
_IN_WORDS = {
    "BOS": "start mark",
    "EOS": "end mark",
    "PAD": "padding",
    "CLS": "summary token",
}


def payload(
    answer: Answer,
    *,
    title: str = "",
    small: bool = False,
    with_scale: Sequence[Answer] = (),
) -> View:
    """One answer for the viewer.

    Args:
        answer: what is shown.
        title: a heading, "" for none.
        small: a still picture of a grid, without controls.
        with_scale: the answers that share one scale of colours with this one.
    """
    one = answer.explanation
    shared = [a.explanation for a in (answer, *with_scale)]
    view: View = {
        "title": title,
        "small": small,
        "text": one.caption,
        "similarity": _number(one.similarity),
        "probability": _number(one.probability),
        "words": [],
        "facts": _facts(answer),
        "notes": _notes(one),
        "origin": _origin(answer),
        "alt": alternative(one),
        "unit": _unit(answer.question.method),
    }
    if one.picture is not None:
        view |= _picture(one.picture, _SMALL if small else _LONGEST)
    if one.image is not None:
        view |= _regions(one.image, region_scale(shared).limit)
    if one.text is not None:
        view |= _words(one.text, word_scale(shared).limit)
    if one.joint is not None and one.image is not None and one.text is not None:
        joint = one.joint.scores
        rows = [_numbers(word.ravel()) for word in joint]
        view["joint"] = {"scores": rows, "limit": _number(_limit(joint)), "delta": _number(one.joint.delta)}
    return view


def grid(views: Sequence[View]) -> View:
    """Several small views side by side."""
    return {"grid": list(views)}


def alternative(one: Explanation) -> str:
    """A text in place of the picture: the similarity, the strongest regions and words."""
    said = [] if one.similarity is None else [f"Similarity {one.similarity:.3f} with {one.caption!r}."]
    if one.image is not None:
        rows, columns = one.image.scores.shape
        said.append(f"Heat map of {rows} by {columns} regions, strongest: {strongest(one.image.scores)}.")
    if one.text is not None:
        words = [(w.text, w.score) for w in one.text.words]
        said.append(f"Strongest words: {strongest_words(words)}.")
    return " ".join(said)


def place(row: int, column: int, shape: tuple[int, int]) -> str:
    """Where a region lies, in words."""
    down, across = (min(2, 3 * at // count) for at, count in zip((row, column), shape, strict=True))
    names = ("top", "middle", "bottom")[down], ("left", "centre", "right")[across]
    where = "centre" if names == ("middle", "centre") else " ".join(names)
    return f"{where} (row {row + 1}, column {column + 1})"


def strongest(scores: Array) -> str:
    """The regions that say most, with their scores."""
    limit = _limit(scores)
    order = np.argsort(-np.abs(scores), axis=None)[:_TOP]
    places = [(int(i) // scores.shape[1], int(i) % scores.shape[1]) for i in order]
    return ", ".join(f"{place(r, c, scores.shape)} {_signed(scores[r, c], limit, 4)}" for r, c in places)


def strongest_words(words: Sequence[tuple[str, float]]) -> str:
    """The same of words."""
    limit = _limit(np.array([score for _, score in words]))
    top = sorted(words, key=lambda one: -abs(one[1]))[:_TOP]
    return ", ".join(f"{text} {_signed(score, limit, 3)}" for text, score in top)


def _signed(value: float, limit: float, least: int) -> str:
    """A score among those up to `limit`: `least` decimal places, more where all are small, fewer where large."""
    order = math.floor(math.log10(limit))
    return f"{value:+.{max(least, 2 - order) if order < 0 else max(0, 3 - order)}f}"


def _unit(method: str) -> str:
    """What scores are measured in, where it has a name: a method whose scores sum to a change of the cosine has it."""
    found = registry.get(method)
    return "cosine" if found.complete else "bits" if found.units == "bits" else ""


def _picture(picture: Array, longest: int) -> View:
    from PIL import Image

    size = fit((picture.shape[1], picture.shape[0]), longest)
    if size != (picture.shape[1], picture.shape[0]):
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    return {"picture": jpeg(picture), "width": size[0], "height": size[1]}


def _regions(image: ImageAttribution, limit: float) -> View:
    (width, height), crop, (rows, columns) = image.size, image.crop, image.scores.shape
    return {
        "rows": rows,
        "columns": columns,
        "scores": _numbers(image.scores.ravel()),
        "limit": _number(limit),
        "crop": _numbers((crop.left / width, crop.top / height, crop.right / width, crop.bottom / height)),
        "outlined": outlined(image),
        "original": [width, height],
    }


def _words(text: TextAttribution, limit: float) -> View:
    words = [{"text": w.text, "start": w.start, "end": w.end, "score": _number(w.score)} for w in text.words]
    return {"words": words, "wordLimit": _number(limit)}


def _facts(answer: Answer) -> list[str]:
    """The small print: what the scores miss of the similarity, and what the answer cost."""
    one, found = answer.explanation, []
    for name, side in (("Picture", one.image), ("Text", one.text)):
        if side is not None:
            delta = side.completeness.relative_delta
            parts = [] if delta is None else [delta_of(delta)]
            parts += [
                f"{_in_words(special)} {score:+.3f}".replace("-", "\u2212")
                for special, score in specials(side)[:3]
                if score
            ]
            if parts:
                found.append(f"{name}: {', '.join(parts)}")
    passes = one.provenance.passes
    found.append(f"{sum(passes.values()):g} passes in {answer.seconds:.1f} s")
    if one.joint is not None:
        found.append(f"words with regions {answer.joint_seconds:.1f} s")
    return found


def delta_of(share: float) -> str:
    """The convergence delta as it is written everywhere; infinite where the similarity does not change at all."""
    return f"delta {share:.2%}" if np.isfinite(share) else "delta undefined"


def _in_words(special: str) -> str:
    """A special position as visitors read it; some are counted, as in "PAD ×3"."""
    name, *count = special.split(" ")
    return " ".join([_IN_WORDS.get(name, name), *count])


def _missed(one: Explanation) -> list[str]:
    """A sentence where delta is large."""
    found = []
    for name, side in (("regions", one.image), ("words", one.text)):
        delta = None if side is None else side.completeness.relative_delta
        if delta is not None and delta > _MUCH:
            found.append(f"{delta:.1%} ({name})" if np.isfinite(delta) else f"all of it ({name})")
    if not found:
        return []
    mend = ": more steps, under Settings, bring them closer." if one.provenance.method == "nib" else "."
    return [f"The scores miss the similarity's change by {' and '.join(found)}{mend}"]


def _notes(one: Explanation) -> list[str]:
    sides = [side for side in (one.image, one.text) if side is not None]
    return [*_missed(one), *dict.fromkeys(note for side in sides for note in side.notes)]


def _origin(answer: Answer) -> list[list[str]]:
    """Rows of the table that says where a result comes from."""
    one, p = answer.explanation, answer.explanation.provenance
    rows = [["Model", f"{p.model} ({p.revision}), {p.dtype} on {p.device}"], ["Method", p.method]]
    for name, side in (("Picture", one.image), ("Text", one.text)):
        if side is not None:
            rows += [[f"{name}: explained", side.target], [f"{name}: options", _listed(side.options)]]
    passes = ", ".join(f"{number:g} {name}" for name, number in p.passes.items())
    return [*rows, ["Passes", passes], ["Versions", _listed(p.versions)]]


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _limit(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0)) or 1.0


def _numbers(values: Iterable[Any]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """Seven digits, which is what float32 holds; None for what JSON cannot write."""
    return float(f"{value:.7g}") if value is not None and np.isfinite(value) else None
