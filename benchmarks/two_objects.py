"""Which of two objects a map points at: the pointing game on pictures of COCO, by every method of pictures.

python benchmarks/two_objects.py                  prints the table of docs/two-objects.md
python benchmarks/two_objects.py --write          writes it there, and the figure beside it
python benchmarks/two_objects.py --cache FILE     keeps every map in FILE, so that a run that was cut off goes on
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

import isthmus
from isthmus.encoders.pictures import open_picture
from isthmus.errors import IsthmusError
from isthmus.explanation import Box
from isthmus.methods import METHODS
from pairs import SHARED
from two_objects_figure import DOG, PAIR, write_figure

DOC = Path(__file__).resolve().parents[1] / "docs" / "two-objects.md"
MARK = "<!-- table -->"
GRID = 7  # patches along a side of what mini sees
FINE = 32 * GRID  # points along a side at which a mask's area is measured
SMALLEST, LARGEST = 1 / GRID**2, 0.7  # share of the crop that a category must have, and may have
# Less than their defaults, with which the run would take hours; so it took 40 minutes on one thread, beside other work.
FEWER: dict[str, dict[str, Any]] = {
    "rise": {"samples": 200},
    "lime": {"samples": 200},
    "shapley": {"samples": 200},
    "banzhaf": {"samples": 200},
    "iba": {"copies": 5},
    "agi": {"classes": 5},
}
# Dear, and linear in the target: the reverse is the map's negative, as tests/test_two_objects.py holds.
LINEAR = ("rise", "lime", "shapley", "banzhaf", "occlusion", "integrated-gradients")

Array = npt.NDArray[Any]
Masks = dict[str, npt.NDArray[np.bool_]]
Question = tuple[int, str, str]  # a picture's id, the category that is asked for, and the one against it


@dataclass(frozen=True, eq=False)
class Thing:
    """A category in the crop.

    Attributes:
        fine: its mask `(FINE, FINE)`.
        cover: its share of each patch, `(GRID, GRID)`.
        centres: whether it is at each patch's centre, `(GRID, GRID)`.
        middle: whether it is at the centre of the crop.
    """

    fine: npt.NDArray[np.bool_]
    cover: npt.NDArray[np.float64]
    centres: npt.NDArray[np.bool_]
    middle: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with the categories that count."""

    path: Path
    things: Mapping[str, Thing]


def masks_of(objects: Sequence[Mapping[str, Any]], size: tuple[int, int], panoptic: Path) -> Masks:
    """Union of all instances of each category, `(height, width)` of the picture of `(width, height)`."""
    segments = None
    found: Masks = {}
    for one in objects:
        if "panoptic_id" in one:
            if segments is None:
                with Image.open(panoptic) as image:
                    segments = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([1, 256, 65536])
            mask = segments == one["panoptic_id"]
        else:
            canvas = Image.new("1", size)
            for polygon in one["segmentation"]:
                ImageDraw.Draw(canvas).polygon(polygon, fill=1)
            mask = np.asarray(canvas)
        found[one["name"]] = found.get(one["name"], False) | mask
    return found


def sampled(mask: npt.NDArray[np.bool_], crop: Box, count: int) -> npt.NDArray[np.bool_]:
    """The mask at the centres of `count` x `count` cells of the crop; nothing is outside the picture."""
    share = (np.arange(count) + 0.5) / count
    x = np.floor(crop.left + share * (crop.right - crop.left)).astype(int)
    y = np.floor(crop.top + share * (crop.bottom - crop.top)).astype(int)
    height, width = mask.shape
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    return mask[np.ix_(y.clip(0, height - 1), x.clip(0, width - 1))] & inside


def things_of(masks: Masks, crop: Box) -> dict[str, Thing]:
    """The categories that take at least one patch's area of the crop, and do not fill it."""
    found = {}
    for name, mask in masks.items():
        fine = sampled(mask, crop, FINE)
        if SMALLEST <= fine.mean() <= LARGEST:
            cover = fine.reshape(GRID, FINE // GRID, GRID, FINE // GRID).mean((1, 3))
            found[name] = Thing(fine, cover, sampled(mask, crop, GRID), bool(sampled(mask, crop, 1)[0, 0]))
    return found


def scenes_of(model: isthmus.DualEncoder, data: Path) -> dict[int, Scene]:
    """The pictures with at least two categories that count, by id."""
    found = {}
    for entry in json.loads((data / "coco.json").read_text(encoding="utf-8")):
        name = f"{entry['id']:012d}"
        picture = open_picture(data / "coco" / f"{name}.jpg")
        crop = model.processing.pictures([picture])[1][0].crop
        masks = masks_of(entry["objects"], picture.image.size, data / "coco_panoptic" / f"{name}.png")
        things = things_of(masks, crop)
        if len(things) > 1:
            found[entry["id"]] = Scene(data / "coco" / f"{name}.jpg", things)
    return found


def questions_of(scenes: Mapping[int, Scene]) -> list[Question]:
    """Every category of a picture against every other one of it."""
    return [(i, a, b) for i, scene in scenes.items() for a in scene.things for b in scene.things if a != b]


def photo(name: str) -> str:
    return f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}"


class Maps:
    """Every map asked for, `(GRID, GRID)`, kept in a file of one JSON line each where there is one."""

    def __init__(self, model: isthmus.DualEncoder, scenes: Mapping[int, Scene], cache: Path | None) -> None:
        self.model, self.scenes, self.cache = model, scenes, cache
        self.kept: dict[str, list[list[float]]] = {}
        if cache is not None and cache.exists():
            self.kept = dict(json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines())

    def of(self, method: str, questions: Sequence[Question]) -> dict[Question, Array]:
        """The maps of a method. Raises IsthmusError where it refuses the question."""
        asked = [q for q in questions if q[1] < q[2]] if method in LINEAR else questions
        groups = defaultdict(list)  # `against` is one for a call, the texts are one for a picture
        for question in asked:
            if self._key(method, question) not in self.kept:
                groups[question[2]].append(question)
        for against, group in groups.items():
            self._explain(method, against, group)
        found = {q: np.array(self.kept[self._key(method, q)]) for q in asked}
        return found | {(i, b, a): -found[i, a, b] for i, a, b in asked if method in LINEAR}

    def _explain(self, method: str, against: str, group: Sequence[Question]) -> None:
        """A text `against` another is Contrast(for_=[text], against=[other]), for many texts in one call."""
        pictures = [self.scenes[i].path for i, _, _ in group]
        texts = [photo(first) for _, first, _ in group]
        options = FEWER.get(method, {})
        explained = isthmus.explain(
            self.model, pictures, texts, against=photo(against), sides="image", method=method, **options
        )
        new = {self._key(method, q): one.image.scores.tolist() for q, one in zip(group, explained, strict=True)}
        self.kept |= new
        if self.cache is not None:
            with self.cache.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(item) + "\n" for item in new.items())

    def _key(self, method: str, question: Question) -> str:
        return json.dumps([self.model.revision, method, FEWER.get(method, {}), question])


def hit(scores: Array, centres: npt.NDArray[np.bool_]) -> float:
    """Whether the centre of the patch of the largest score is in the mask; the mean where patches tie.

    A map that is the same everywhere so gets what is expected of a random point.
    """
    return float(centres[scores >= scores.max() - 1e-6 * np.abs(scores).max()].mean())


def separated(there: Array, back: Array, first: Thing, second: Thing) -> float:
    """Whether "first against second" lifts the first over the second more than the reverse does; half for a tie."""

    def lead(scores: Array) -> float:
        return float(np.average(scores, weights=first.cover) - np.average(scores, weights=second.cover))

    difference = lead(there) - lead(back)
    if abs(difference) <= 1e-5 * max(np.abs(there).max(), np.abs(back).max()):
        return 0.5
    return float(difference > 0)


def alike(there: Array, back: Array) -> float:
    """Correlation of a map with that of the reverse; NaN where one is the same everywhere."""
    a, b = there.ravel() - there.mean(), back.ravel() - back.mean()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size > 0 else float("nan")


def interval(values: Sequence[float], pictures: Sequence[int], draws: int = 10_000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean over *pictures*, for pairs of one picture are not independent."""
    _, owner = np.unique(pictures, return_inverse=True)
    totals, counts = np.bincount(owner, weights=values), np.bincount(owner)
    drawn = np.random.default_rng(0).integers(0, len(counts), (draws, len(counts)))
    low, high = np.quantile(totals[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Row:
    """A line of the table, and the rate that sorts it."""

    rate: float
    cells: tuple[str, ...]


def row(name: str, hits: Sequence[float], scenes: Mapping[int, Scene], asked: Sequence[Question], *more: str) -> Row:
    """The hit rate with its interval, and how far it is over chance."""
    pictures = [i for i, _, _ in asked]
    over = np.array(hits) - [scenes[i].things[a].centres.mean() for i, a, _ in asked]
    low, high = interval(hits, pictures)
    rate = f"{100 * np.mean(hits):.1f} % ({100 * low:.0f} to {100 * high:.0f})"
    low, high = interval(over.tolist(), pictures)
    ahead = f"{100 * over.mean():+.1f} ({100 * low:+.0f} to {100 * high:+.0f})"
    return Row(float(np.mean(hits)), (name, rate, "" if name == "*chance*" else ahead, *(more or ("",) * 3)))


def row_of(method: str, maps: Mapping[Question, Array], scenes: Mapping[int, Scene]) -> Row:
    asked = list(maps)
    hits = [hit(maps[i, a, b], scenes[i].things[a].centres) for i, a, b in asked]
    once = [(i, a, b) for i, a, b in asked if a < b]
    both = [(maps[i, a, b], maps[i, b, a], scenes[i].things[a], scenes[i].things[b]) for i, a, b in once]
    apart = [separated(*one) for one in both]
    low, high = interval(apart, [i for i, _, _ in once])
    share = f"{100 * np.mean(apart):.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    options = ", ".join(f"{name}={value}" for name, value in FEWER.get(method, {}).items())
    reverse = f"{np.nanmedian([alike(there, back) for there, back, _, _ in both]):+.2f}"
    return row(f"`{method}`", hits, scenes, asked, share, reverse, options)


def all_maps(maps: Maps, asked: Sequence[Question]) -> tuple[dict[str, dict[Question, Array]], list[str]]:
    """The maps of every method of pictures, by name, and what those say that refuse the question."""
    found, refused = {}, []
    for name in sorted(name for name, method in METHODS.items() if "image" in method.sides):
        began = time.perf_counter()
        try:
            found[name] = maps.of(name, asked)
        except IsthmusError as error:
            refused.append(f"`{name}` refuses: {error}")
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return found, refused


def table_of(
    revision: str, scenes: Mapping[int, Scene], found: Mapping[str, Mapping[Question, Array]], refused: Sequence[str]
) -> Iterator[str]:
    asked = questions_of(scenes)
    things = [scenes[i].things[a] for i, a, _ in asked]
    rows = [row_of(name, maps, scenes) for name, maps in found.items()]
    rows.append(row("*chance*", [float(thing.centres.mean()) for thing in things], scenes, asked))
    rows.append(row("*centre point*", [float(thing.middle) for thing in things], scenes, asked))
    yield f"{len(asked)} questions of {len(scenes)} pictures, both ways of {len(asked) // 2} pairs."
    yield f"Model `mini` {revision}, float32 on the CPU, torch {torch.__version__}."
    yield from ("", "| map | hits | over chance | told apart | map and reverse | fewer than by default |")
    yield "|---|---|---|---|---|---|"
    yield from ("| " + " | ".join(one.cells) + " |" for one in sorted(rows, key=lambda one: -one.rate))
    yield from ("", *refused) if refused else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table and the figure into docs/")
    parser.add_argument("--cache", type=Path, help="a file that keeps the maps")
    given = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"The pictures are in the team's shared data, which is not at {SHARED}.")
    model = isthmus.load("mini", device="cpu")
    scenes = scenes_of(model, SHARED / "data")
    found, refused = all_maps(Maps(model, scenes, given.cache), questions_of(scenes))
    table = "\n".join(table_of(model.revision, scenes, found, refused))
    print(table)
    if given.write:
        there, back = (DOG, *PAIR), (DOG, *PAIR[::-1])
        both = {name: (maps[there], maps[back]) for name, maps in found.items()}
        write_figure(model, both, [scenes[DOG].things[name].fine for name in PAIR])
        head, _, _ = DOC.read_text(encoding="utf-8").partition(MARK)
        DOC.write_text(f"{head}{MARK}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
