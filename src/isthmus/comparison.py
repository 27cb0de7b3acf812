"""compare(): one picture and one text as several methods explain them, with what each costs and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.sharing import sharing
from isthmus.encoders.tower import Side
from isthmus.errors import InputError, IsthmusError, OptionError
from isthmus.explainer import explain, load
from isthmus.explanation import Array, Explanation
from isthmus.methods import registry
from isthmus.targets import Target

FORMAT = 1
# What is compared where nobody chooses, as far as it is registered: NIB, then one method or two of each family.
_USUAL = (
    "nib",
    "m2ib",
    "integrated-gradients",
    "gradcam",
    "grad-eclip",
    "chefer",
    "legrad",
    "attnlrp",
    "textspan",
    "clip-surgery",
    "occlusion",
)
_CHEAP = 200  # passes; a second run of so many costs little, and a first one may pay for what is made once


@dataclass(frozen=True)
class CompareRow:
    """What one method says, and what that costs.

    Attributes:
        method, title: its name as users type it, and in full.
        units: what its scores are measured in: "score", "bits", or "" where they have no unit.
        explanation: its result; None where it refused, and then `reason` is the sentence that says why.
        seconds: time of the call, of a second one where that is cheap: a first one also pays for what is computed
            once for a model, and for what it shares with the other methods.
        forward, backward: passes of both sides, as in `Provenance.passes`.
        agreement_image: Spearman's rank correlation, in [-1, 1], of the scores per patch with those of the first row
            that has an image side; None where it is not defined, as for a map that is the same everywhere.
        agreement_text: the same of the scores per word.
    """

    method: str
    title: str
    units: str = ""
    explanation: Explanation | None = None
    reason: str | None = None
    seconds: float | None = None
    forward: float | None = None
    backward: float | None = None
    agreement_image: float | None = None
    agreement_text: float | None = None


@dataclass(frozen=True, repr=False)
class Comparison:
    """One picture and one text, as several methods explain them; a row for each, in the order that was asked for."""

    rows: tuple[CompareRow, ...]

    def __post_init__(self) -> None:
        """Refuse a comparison of nothing."""
        if not self.explanations:
            raise OptionError("A comparison needs the explanation of at least one method.")

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """The results, without the methods that refused."""
        return tuple(row.explanation for row in self.rows if row.explanation is not None)

    def first(self, side: Side) -> CompareRow | None:
        """The row that the others' agreement on a side is taken with: the first that has this side."""
        there = (row for row in self.rows if row.explanation is not None and getattr(row.explanation, side) is not None)
        return next(there, None)

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Write `index.html`, `comparison.png` and `comparison.json` into `folder`; all of them, or none.

        The JSON has every row's figures and its whole explanation, but for the picture. Returns the paths written.
        Raises `SaveError` where the disk is full or the folder cannot be written.
        """
        from isthmus.drawing.compared import to_png
        from isthmus.drawing.compared_page import page
        from isthmus.export import write_files

        return write_files(
            Path(folder),
            {
                "index.html": lambda path: path.write_text(page(self), encoding="utf-8"),
                "comparison.png": lambda path: path.write_bytes(to_png(self)),
                "comparison.json": lambda path: path.write_text(self._json(), encoding="utf-8"),
            },
        )

    def _json(self) -> str:
        from isthmus.export import to_json

        rows = []
        for row in self.rows:
            found = None if row.explanation is None else json.loads(to_json(row.explanation))
            rows.append({**asdict(replace(row, explanation=None)), "explanation": found})
        one = self.explanations[0]
        head = {"caption": one.caption, "source": one.source, "similarity": one.similarity}
        return json.dumps({"format": FORMAT, **head, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False)

    def __repr__(self) -> str:
        """One line; the data are in the rows."""
        one = self.explanations[0]
        similarity = "" if one.similarity is None else f", similarity {one.similarity:.3f}"
        names = ", ".join(row.method for row in self.rows)
        return f"<Comparison of {names}: {one.caption or one.source!r}{similarity}, on {one.provenance.model}>"

    def _repr_html_(self) -> str:
        from isthmus.drawing.compared_page import fragment

        return fragment(self)


def compare(
    model: DualEncoder | str | Path | nn.Module,
    image: Any = None,
    text: str | None = None,
    *,
    methods: Sequence[str] | str | None = None,
    target: Target | None = None,
    against: Any = None,
    sides: Sequence[Side] | Side | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    truncate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Explain one picture and one text by several methods.

    Args:
        model, image, text: as `explain` takes them, but one picture and one text.
        methods: names of `isthmus.methods` in the order of the rows, or "all"; by default NIB and one method or two
            of each family. The first one is what the others' agreement is taken with.
        target, against, truncate: as `explain` takes them, for every method.
        sides: the sides to explain; a method that is defined for one of them explains that one.
        options: for a method's name, its options by their names, and its "preset".
        progress: called with the number of methods done and their total.

    Returns:
        A Comparison with a row for each method. A method that refuses, such as one that this model lacks a part for,
        has a row with its sentence.

    Raises:
        InputError: a picture or text that cannot be used.
        OptionError: no such method, or no such option of it.
        IsthmusError: every method refused; the sentence is the first one's.
    """
    names, given = chosen(methods), options or {}
    check(names, given)
    if isinstance(image, (list, tuple)) or isinstance(text, (list, tuple)):
        raise InputError("compare takes one picture and one text, not a list: call it once for each pair.")
    model = model if isinstance(model, DualEncoder) else load(model)
    with sharing():
        picture = _readable(model, image, text, truncate=truncate)
        found: list[Explanation | IsthmusError] = []
        for name in names:
            call = {
                **given.get(name, {}),
                "method": name,
                "target": target,
                "against": against,
                "sides": _sides(registry.get(name), sides),
                "truncate": truncate,
            }
            try:
                found.append(_timed(model, picture, text, call))
            except IsthmusError as error:
                found.append(error)
            if progress is not None:
                progress(len(found), len(names))
    _refuse_if_empty(names, found)
    return Comparison(_agreed(tuple(map(_row, names, found))))


def chosen(methods: Sequence[str] | str | None) -> tuple[str, ...]:
    """The names of the methods to compare, each once; see `compare`.

    Raises:
        OptionError: no such method, or none at all.
    """
    usual = tuple(name for name in _USUAL if name in registry.METHODS)
    if methods is None:
        return usual
    if isinstance(methods, str):
        methods = (*usual, *sorted(set(registry.METHODS) - set(usual))) if methods == "all" else (methods,)
    names = tuple(dict.fromkeys(registry.get(name).name for name in methods))
    if not names:
        raise OptionError("There is no method to compare: name at least one, see isthmus methods.")
    return names


def check(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options of methods that are not compared, and those that a method does not have; see `compare`.

    Raises:
        OptionError: such an option.
    """
    for name, given in options.items():
        if name not in names:
            raise OptionError(f"There are options for {name!r}, which is not compared: add it to methods.")
        if not isinstance(given, Mapping):
            raise OptionError(f"The options of {name} are a mapping of names to values, not {given!r}.")
        known = {*registry.get(name).options, "preset"}
        unknown = [option for option in given if option not in known]
        if unknown:
            raise OptionError(f"{name} has no option {unknown[0]!r}: it has {', '.join(sorted(known))}.")


def _readable(model: DualEncoder, image: Any, text: str | None, *, truncate: bool) -> Any:
    """The picture, opened once; what no method could read is refused, and the model has run before it is timed."""
    if text is not None:
        model.text.embed(model.processing.texts([text], truncate=truncate)[0])
    if image is None:
        return None
    picture = image if isinstance(image, PreparedImage) else open_picture(image)
    model.image.embed(model.processing.pictures([picture])[0])
    return picture


def _sides(method: registry.Method, wanted: Any) -> Any:
    """Those of the wanted sides that the method is defined for; all of them where it has none, to be refused."""
    if wanted is None or wanted == "both":
        return method.sides
    asked = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    return tuple(side for side in asked if side in method.sides) or wanted


def _timed(model: DualEncoder, picture: Any, text: str | None, call: Mapping[str, Any]) -> Explanation:
    """The explanation, made again where that is cheap: methods give the same result on every run."""
    found = explain(model, picture, text, **call)
    assert isinstance(found, Explanation)
    if sum(found.provenance.passes.values()) <= _CHEAP:
        found = explain(model, picture, text, **call)
        assert isinstance(found, Explanation)
    return found


def _refuse_if_empty(names: Sequence[str], found: Sequence[Explanation | IsthmusError]) -> None:
    errors = [one for one in found if isinstance(one, IsthmusError)]
    if len(errors) < len(found):
        return
    if len({str(error) for error in errors}) == 1:
        raise errors[0]
    raise type(errors[0])(f"None of these methods can explain this; {names[0]} says: {errors[0]}") from errors[0]


def _row(name: str, found: Explanation | IsthmusError) -> CompareRow:
    method = registry.get(name)
    row = CompareRow(name, method.title, method.units)
    if isinstance(found, IsthmusError):
        return replace(row, reason=str(found))
    cost = found.provenance
    return replace(
        row,
        explanation=found,
        seconds=cost.seconds,
        forward=cost.passes.get("forward"),
        backward=cost.passes.get("backward"),
    )


class _Scores(NamedTuple):
    image: Array | None
    text: Array | None


def _scores(row: CompareRow) -> _Scores:
    one = row.explanation
    if one is None:
        return _Scores(None, None)
    words = None if one.text is None else np.array([word.score for word in one.text.words])
    return _Scores(None if one.image is None else one.image.scores, words)


def _agreed(rows: tuple[CompareRow, ...]) -> tuple[CompareRow, ...]:
    """The rows with their agreement with the first that has the side."""
    scores = [_scores(row) for row in rows]
    image = next((one.image for one in scores if one.image is not None), None)
    text = next((one.text for one in scores if one.text is not None), None)
    return tuple(
        replace(row, agreement_image=spearman(image, one.image), agreement_text=spearman(text, one.text))
        for row, one in zip(rows, scores, strict=True)
    )


def spearman(a: Array | None, b: Array | None) -> float | None:
    """Spearman's rank correlation of two arrays of one shape, in [-1, 1]; tied values share their mean rank.

    None where it is not defined: an array is not there, is the same everywhere, or has NaN or infinity in it.
    """
    if a is None or b is None or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip((x @ y) / size, -1, 1)) if size else None


def _ranks(values: Array) -> Array:
    """Ranks from 0, the mean of their places for tied values."""
    _, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count + 1) / 2)[place.ravel()])
