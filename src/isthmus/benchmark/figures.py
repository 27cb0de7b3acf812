"""The paper's figures: NIB beside M2IB where two things are on one picture, and NIB on remote sensing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.benchmark.choosing import chosen_texts
from isthmus.benchmark.questions import named
from isthmus.benchmark.spec import check_options
from isthmus.comparison import compare
from isthmus.datasets import Sample, named_regions, open_dataset, sampled
from isthmus.datasets.records import safe_name
from isthmus.drawing import to_png
from isthmus.encoders.dual import DualEncoder
from isthmus.errors import InputError, OptionError
from isthmus.explainer import explain
from isthmus.export import write_files

FIGURES = {
    "figure1": "NIB and M2IB for one of two things on a picture, and NIB signed, which tells what speaks against it",
    "figure2": "NIB on remote sensing pictures (RSICD)",
}
_METHODS = {"figure1": ("nib", "m2ib"), "figure2": ("nib",)}
_PLACES = {"figure1": ("coco",), "figure2": ("rsicd", "RSICD")}
_FIRST = ("dog", "cat")  # the two of the paper's figure


@dataclass(frozen=True, eq=False)
class _Shown:
    """A picture with a text, and the name of the file that it is drawn to."""

    name: str
    image: Any
    text: str


def draw(
    figure: str,
    model: DualEncoder,
    folder: Path,
    *,
    root: Path | None,
    limit: int | None = None,
    seed: int = 0,
    image: Any = None,
    texts: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Draw a figure of the paper with a model.

    Args:
        figure: "figure1" or "figure2".
        model: the model.
        folder: where the pictures go.
        root: the folder that holds COCO with its masks (figure 1) or RSICD (figure 2).
        limit: pictures at most, by default 2 and 4.
        seed: names the sample.
        image, texts: another picture, and what is asked of it, in place of the dataset's.
        options: for a method's name its options.

    Raises:
        InputError: the root does not hold the dataset.
        OptionError: no such figure; a picture without texts, or texts without a picture; options of other methods.
    """
    if figure not in FIGURES:
        raise OptionError(f"There is no figure {figure!r}: choose one of {', '.join(FIGURES)}.")
    for method, own in (options or {}).items():
        if method not in _METHODS[figure]:
            raise OptionError(f"There are options for {method!r}, which {figure} does not show: leave them out.")
        check_options(method, own)
    if image is not None and not texts:
        raise OptionError("A picture of your own needs a text or two: give them after --image with --text.")
    if image is None and texts:
        raise OptionError("Texts of your own need a picture of your own: give it with --image.")
    if image is not None:
        shown = [_Shown(str(n), image, text) for n, text in enumerate(texts, 1)]
    else:
        shown = _of_dataset(figure, model, root, limit, seed)
        if not shown:
            what = "with two named things on it" if figure == "figure1" else "that can be used"
            raise InputError(f"{figure} finds no picture {what} in {str(root)!r}: give another --dataset-root.")
    made = _compared if figure == "figure1" else _explained
    contents = made(model, shown, options or {})
    return list(write_files(folder, {name: _writer(content) for name, content in contents.items()}))


def _of_dataset(figure: str, model: DualEncoder, root: Path | None, limit: int | None, seed: int) -> list[_Shown]:
    place = _placed(figure, root)
    dataset = open_dataset(place) if place.suffix == ".json" else open_dataset(_PLACES[figure][0], root=place)
    if figure == "figure1":
        samples, _ = sampled(dataset, seed=seed)
        return [
            _Shown(safe_name(f"{sample.id}-{name}"), sample.image, named(name))
            for sample in _with_two(samples)[: limit or 2]
            for name in _two(sample)
        ]
    samples, _ = sampled(dataset, limit=limit or 4, seed=seed)
    texts = chosen_texts(model, samples)
    return [
        _Shown(safe_name(s.id.removesuffix(".jpg")), s.image, own[0])
        for s, own in zip(samples, texts, strict=True)
        if own
    ]


def _placed(figure: str, root: Path | None) -> Path:
    for name in _PLACES[figure] if root is not None else ():
        assert root is not None
        for path in (root / f"{name}.json", root / name):
            if path.exists():
                return path
    where = "which is not given" if root is None else f"and it is not in {str(root)!r}"
    raise InputError(
        f"{figure} needs {_PLACES[figure][0]} in --dataset-root, {where}: give its folder, or a picture of your own "
        "with --image and --text."
    )


def _with_two(samples: Sequence[Sample]) -> list[Sample]:
    """Pictures with two things that have a name, those of the paper's figure first."""
    both = [sample for sample in samples if len(named_regions(sample.truth.regions)) >= 2]
    return sorted(both, key=lambda sample: not set(_FIRST) <= set(named_regions(sample.truth.regions)))


def _two(sample: Sample) -> tuple[str, ...]:
    names = tuple(named_regions(sample.truth.regions))
    return _FIRST if set(_FIRST) <= set(names) else names[:2]


def _compared(
    model: DualEncoder, shown: Sequence[_Shown], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, bytes]:
    from isthmus.drawing.compared import to_png as drawn

    found = {}
    for one in shown:
        both = compare(model, one.image, one.text, methods=["nib", "m2ib"], options=options)
        found[f"figure1-{one.name}.png"] = drawn(both)
    return found


def _explained(
    model: DualEncoder, shown: Sequence[_Shown], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, bytes]:
    own = dict(options.get("nib", {}))
    found = {}
    for one in shown:
        one_of = explain(model, one.image, one.text, **own)
        found[f"figure2-{one.name}.png"] = to_png(one_of)
    return found


def _writer(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)
