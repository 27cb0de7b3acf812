"""The result of an explanation: plain, frozen data. It holds no torch object and no graph.

Scores are signed and raw, in units of the explained score (a cosine for `Pair`). Normalising, clipping and
colouring belong to drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.frozen import Array as Array
from isthmus.frozen import Comparable, freeze, seal
from isthmus.joint import JointAttribution


@dataclass(frozen=True)
class Box:
    """A rectangle in the pixels of the original picture; it reaches outside where the model saw padding."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Completeness:
    """How much of the score the attribution accounts for.

    `open` is the score of the unchanged input, `closed` the score with every feature closed (None where the
    method has no such state), `total` the sum of the scores over *all* positions, special ones included.
    """

    open: float
    closed: float | None
    total: float

    @property
    def delta(self) -> float | None:
        """Convergence delta: `total - (open - closed)`, signed, in units of the score."""
        return None if self.closed is None else self.total - (self.open - self.closed)

    @property
    def relative_delta(self) -> float | None:
        """`|delta| / |open - closed|`; infinite where the two scores are equal and the delta is not zero."""
        if self.closed is None:
            return None
        error, change = abs(self.total - (self.open - self.closed)), abs(self.open - self.closed)
        return error / change if change > 0 else (0.0 if error == 0 else float("inf"))


@dataclass(frozen=True)
class Special:
    """A position that is neither a patch nor part of the user's text: CLS, BOS, EOS, a register."""

    name: str
    position: int
    score: float


@dataclass(frozen=True)
class Token:
    """One piece of the text as the model reads it; `start` and `end` are offsets into the user's text."""

    text: str
    start: int
    end: int
    position: int
    score: float


@dataclass(frozen=True)
class Word:
    """A word of the user's text, `text[start:end]`, with the sum of the scores of its tokens."""

    text: str
    start: int
    end: int
    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ImageAttribution(Comparable):
    """What each region of the picture contributes to the score.

    Attributes:
        scores: `(rows, columns)` of the patch grid, signed, in units of the score.
        special: scores of the positions that are no patch, such as CLS.
        crop: the part of the original picture that the model saw, in its pixels.
        size: `(width, height)` of the original picture, after its EXIF orientation.
        input_size: `(height, width)` in pixels of the model's input.
        completeness: score open and closed, and the convergence delta.
        target: what was explained, in words.
        options: the method's options as resolved for this side (layer, steps, rule, closed, ...).
        published: the map as the paper's code gives it, `input_size`, in [0, 1]; only with `preset="paper"`.
        notes: what a reader should know, such as a delta that missed its tolerance.
    """

    scores: Array
    special: tuple[Special, ...]
    crop: Box
    size: tuple[int, int]
    input_size: tuple[int, int]
    completeness: Completeness
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Array | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the arrays and options read-only."""
        freeze(self, "options")
        seal(self, "scores", "published")

    def heatmap(self, size: tuple[int, int] | None = None) -> Array:
        """The scores resized bilinearly to the original picture, `(height, width)`, float32.

        Values stay raw (per patch, not per pixel). Pixels that the model did not see are NaN. `size` gives
        another `(width, height)` of the same picture, such as that of a smaller copy.
        """
        from isthmus.drawing.heatmap import resized_scores

        return resized_scores(self, size or self.size)


@dataclass(frozen=True, eq=False)
class TextAttribution(Comparable):
    """What each word of the text contributes to the score.

    Attributes:
        text: the user's text.
        tokens: the pieces of the text in order, each with its offsets and score.
        words: pieces merged to words, each with its span in `text` and the sum of its tokens' scores.
        special: scores of the positions outside the text, such as BOS and EOS.
        completeness, target, options, notes: as in `ImageAttribution`.
        published: one value in [0, 1] per token with BOS and EOS; only with `preset="paper"`.
    """

    text: str
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    special: tuple[Special, ...]
    completeness: Completeness
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Array | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the array and options read-only."""
        freeze(self, "options")
        seal(self, "published")

    def top(self, count: int = 3) -> tuple[Word, ...]:
        """The words with the largest score by size, whatever its sign."""
        return tuple(sorted(self.words, key=lambda word: -abs(word.score))[:count])


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from, complete enough to make it again.

    `seconds` and `passes` are those of the whole batch divided by its number of pairs; a pass is one encoder
    suffix or encoder run on one input, counted apart for `forward` and `backward`, and for each pair that needs it
    where several share it. `options` are the method's as
    they were given, `settings` the rest of the call.
    """

    model: str
    revision: str
    method: str
    preset: str | None
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    dtype: str
    seconds: float
    passes: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        """Make the mappings read-only."""
        freeze(self, "options", "versions", "passes", "settings")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Comparable):
    """What passes between one picture and one text, as a model sees it.

    Attributes:
        image: the picture's side, None where it was not explained.
        text: the text's side, None where it was not explained.
        picture: `(height, width, 3)` uint8 copy for drawing, at most 1,024 pixels a side.
        caption: the user's text, "" where there is none.
        source: the picture's path, "" where it came as an object.
        similarity: cosine of the two embeddings, None where only one side was given.
        probability: the model's own probability for this text, None where the model defines none: CLIP gives
            a softmax over the texts that were compared (at least two), SigLIP a sigmoid for each pair.
        provenance: model, method, options, versions, device and cost.
        joint: what each word together with each region contributes, where it was asked for.
    """

    image: ImageAttribution | None
    text: TextAttribution | None
    picture: Array | None
    caption: str
    source: str
    similarity: float | None
    probability: float | None
    provenance: Provenance
    joint: JointAttribution | None = None

    def __post_init__(self) -> None:
        """Make the array read-only."""
        seal(self, "picture")

    def save(self, folder: str | Path, *, formats: tuple[str, ...] | None = None) -> tuple[Path, ...]:
        """Write `explanation.png`, `.svg`, `.html`, `.json` and `.npz` into `folder`; all of them, or none.

        `formats` chooses some of "png", "svg", "html", "json", "npz". Returns the paths written. Raises
        `SaveError` where the disk is full or the folder cannot be written; files of an earlier result are
        then still whole.
        """
        from isthmus.export import save

        return save(self, Path(folder), formats=formats)

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Read back what `save` wrote: an equal object. Raises `SaveError` where it is not whole."""
        from isthmus.export import load

        return load(Path(folder))

    def __repr__(self) -> str:
        """One line; the data are in the attributes."""
        sides = " and ".join(name for name in ("image", "text") if getattr(self, name) is not None)
        similarity = "" if self.similarity is None else f", similarity {self.similarity:.3f}"
        by = f"{self.provenance.method} on {self.provenance.model}"
        return f"<Explanation of {sides}: {self.caption or self.source!r}{similarity}, {by}>"

    def _repr_html_(self) -> str:
        from isthmus.drawing import fragment

        return fragment([self])
