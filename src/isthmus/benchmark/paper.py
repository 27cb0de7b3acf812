"""The NIB paper's tables (Zhu et al., ICLR 2025) as grids to run, with the paper's own figures.

Methods bear the paper's names here; which of ours computes what the paper's code does under a name is told by
`isthmus.methods.published.TABLE_8`, always with `preset="paper"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from isthmus.benchmark.spec import Spec, check_options
from isthmus.errors import OptionError
from isthmus.methods.published import TABLE_8
from isthmus.metrics.trivial import TRIVIAL

# The paper's column, our metric and side.
MEASURES = {
    "image_confidence_drop": ("confidence-drop", "image"),
    "image_confidence_increase": ("confidence-increase", "image"),
    "text_confidence_drop": ("confidence-drop", "text"),
    "text_confidence_increase": ("confidence-increase", "text"),
}
FPS = "fps"
TITLES = {
    "table2": "Methods by confidence drop and increase, and pairs a second",
    "table3": "Steps of NIB: 5, 10, 15, 20 at layer 9",
    "table4": "Layer of NIB: 3, 6, 9",
    "table5": "Beta of M2IB: 0.01 to 0.9",
    "table6": "Steps of NIB: 3, 8, 13, 18 at layer 9",
    "table7": "Layer of NIB: 2, 4, 5, 6, 7, 8",
    "table8": "Passes forward and backward of each method",
}


@dataclass(frozen=True)
class PaperDataset:
    """A dataset of the paper.

    Attributes:
        title: as the paper's tables call it.
        name: the name of its reader, see `isthmus.datasets.DATASETS`.
        places: where it is looked for in the root, beside the root itself.
    """

    title: str
    name: str
    places: tuple[str, ...]


DATASETS = (
    PaperDataset("Conceptual Captions", "conceptual-captions", ("conceptual-captions", "cc", "cc3m")),
    PaperDataset("ImageNet", "tiny-imagenet-200", ("tiny-imagenet-200", "tinyimagenet")),
    PaperDataset("Flickr8k", "flickr8k", ("flickr8k", "Flickr8k")),
)


@dataclass(frozen=True)
class Theirs:
    """One figure of the paper: of a dataset, a spec's label, and a measure (a key of `MEASURES`, or "fps")."""

    dataset: str
    label: str
    measure: str
    value: float


@cache
def figures() -> Mapping[str, list[dict[str, Any]]]:
    """Every figure of the paper's tables 2 to 8, as printed."""
    text = files("isthmus.benchmark").joinpath("paper_tables.json").read_text(encoding="utf-8")
    found: Mapping[str, list[dict[str, Any]]] = json.loads(text)
    return found


def specs_of_table(table: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Spec, ...]:
    """What a table compares, with the trivial maps that the paper lacks.

    Args:
        table: "table2" to "table8".
        options: further options by our method's name, such as fewer samples of RISE.

    Raises:
        OptionError: no such table; options of a method that it does not have, or that are what it compares.
    """
    if table not in TITLES:
        raise OptionError(f"There is no table {table!r}: choose one of {', '.join(TITLES)}.")
    given = dict(options or {})
    found = list(_specs(table))
    for name, own in given.items():
        if name not in {spec.method for spec in found}:
            raise OptionError(f"There are options for {name!r}, which {table} does not have: leave them out.")
        check_options(name, own)
        fixed = sorted(own.keys() & {"preset", *(option for spec in found for option in spec.options)})
        if fixed:
            raise OptionError(f"{table} sets {fixed[0]!r} of {name} itself: leave it out.")
    found = [Spec(s.label, s.method, {**s.options, **given.get(s.method, {})}, s.preset) for s in found]
    return (*found, *(Spec(name, name) for name in TRIVIAL))


def _specs(table: str) -> Iterator[Spec]:
    if table in ("table2", "table8"):
        for name, cost in TABLE_8.items():
            yield Spec(cost.name, name, preset="paper")
    elif table == "table5":
        for beta in dict.fromkeys(row["beta"] for row in figures()[table]):
            yield Spec(_label("beta", beta), "m2ib", {"beta": beta}, "paper")
    else:
        name = "steps" if table in ("table3", "table6") else "layer"
        for value in dict.fromkeys(int(row[_theirs(name)]) for row in figures()[table]):
            own = {"steps": value} if name == "steps" else {"layer": value}
            yield Spec(_label(name, value), "nib", {"layer": 9, "steps": 10, **own}, "paper")


def theirs_of(table: str) -> list[Theirs]:
    """The paper's figures of a table 2 to 7."""
    rows = figures()[table]
    if table == "table2":
        titles = {name.split()[0]: name for name in (cost.name for cost in TABLE_8.values())}
        return [
            Theirs(row["dataset"], titles[name], row["metric"], float(value))
            for row in rows
            for name, value in row.items()
            if name not in ("dataset", "metric") and value is not None
        ]
    name = {"table5": "beta", "table3": "steps", "table6": "steps"}.get(table, "layer")
    return [
        Theirs(row["dataset"], _label(name, row[_theirs(name)]), measure, float(row[measure]))
        for row in rows
        for measure in MEASURES
        if row.get(measure) is not None
    ]


def placed(root: Path | None, dataset: PaperDataset) -> Path | None:
    """Where a dataset lies in the root: an index or folder of one of its names, or the root itself; None if nowhere."""
    if root is None:
        return None
    here = root.resolve()
    own = [here.with_name(here.stem)] if here.stem in dataset.places else []
    for folder in (*(root / name for name in dataset.places), *own):
        index = folder.with_name(f"{folder.name}.json")
        if index.is_file():
            return index
        if folder.is_dir():
            return folder
    return None


def _theirs(name: str) -> str:
    return {"steps": "num_steps", "layer": "target_layer", "beta": "beta"}[name]


def _label(name: str, value: float) -> str:
    return f"{name} {value:g}"
