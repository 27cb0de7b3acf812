"""reproduce(): run a table of the NIB paper and set our figures beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.benchmark.paper import (
    DATASETS,
    FPS,
    MEASURES,
    TITLES,
    PaperDataset,
    figures,
    placed,
    specs_of_table,
    theirs_of,
)
from isthmus.benchmark.plan import Plan, metrics_of
from isthmus.benchmark.run import Outcome, Progress, run
from isthmus.benchmark.summary import SummaryRow, summarise
from isthmus.benchmark.table import Cell, Value, grid_csv, grid_latex, grid_markdown
from isthmus.datasets import Failure, open_dataset, sampled
from isthmus.encoders.dual import DualEncoder
from isthmus.errors import InputError
from isthmus.export import write_files
from isthmus.methods.published import TABLE_8

_HEADER = ("dataset", "measure", "method", "ours", "low", "high", "pairs", "paper", "difference")


@dataclass(frozen=True)
class Line:
    """One figure of ours with its interval, and the paper's; `paper` is None where the paper has none."""

    dataset: str
    measure: str
    label: str
    ours: float
    low: float
    high: float
    pairs: int
    paper: float | None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.ours - self.paper


@dataclass
class Reproduction:
    """A table of the paper with our figures.

    Attributes:
        table: such as "table2".
        lines: all figures.
        about: model, samples and what was left out, in words.
        failed, refused: as in `isthmus.benchmark.run.Outcome`.
    """

    table: str
    lines: list[Line]
    about: dict[str, str]
    failed: list[Failure]
    refused: dict[str, str]


def reproduce(
    table: str,
    model: DualEncoder,
    folder: Path,
    *,
    root: Path | None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Reproduction:
    """Run a table's grid of methods and settings on the paper's datasets, by the paper's protocol.

    Args:
        table: "table2" to "table8".
        model: the model; the paper's is `openai/clip-vit-base-patch32`.
        folder: where a folder for each dataset goes.
        root: the folder that holds the datasets, see `isthmus.benchmark.paper.DATASETS`.
        limit: samples of each dataset, chosen by the seed; None for all.
        seed: names the sample.
        options: options by our method's name in place of the paper's, which the result states.
        overwrite: begin anew.
        progress: told of parts done, their number, and the one at work.

    Raises:
        InputError: the root holds none of the datasets.
    """
    specs = specs_of_table(table, options)
    there = [(dataset, place) for dataset in DATASETS if (place := placed(root, dataset)) is not None]
    if not there:
        names = "; ".join(f"{dataset.title}: {' or '.join(dataset.places)}" for dataset in DATASETS)
        where = "is given" if root is None else f"lies in {str(root)!r}"
        raise InputError(f"No dataset of the paper {where}: give --dataset-root a folder with {names}.")
    found = Reproduction(table, [], _about(model, seed, options), [], {})
    for dataset, place in there if table != "table8" else there[:1]:
        samples, bad = sampled(_opened(dataset, place), limit=limit, seed=seed)
        plan = Plan(
            model,
            dataset.title,
            samples,
            specs if table != "table8" else tuple(spec for spec in specs if not spec.trivial),
            metrics_of(["completeness"] if table == "table8" else ["confidence-drop", "confidence-increase"]),
            choice="paper" if dataset.title == "Flickr8k" else "best",
            seed=seed,
            only=None if table == "table8" else ("paper",),
        )
        outcome = run(plan, folder / dataset.places[0], overwrite=overwrite, progress=progress)
        summary = summarise(outcome.rows, seed=seed)
        found.lines += _passes(summary) if table == "table8" else _lines(table, dataset, summary)
        found.about[dataset.title] = _sample(place, samples, outcome, Path(dataset.places[0]) / "sample.txt")
        found.failed += [*bad, *outcome.failed]
        found.refused |= outcome.refused | outcome.skipped
    for dataset in DATASETS:
        found.about.setdefault(dataset.title, "not run" if table == "table8" else "not in the root")
    return found


def _opened(dataset: PaperDataset, place: Path) -> Any:
    if place.suffix == ".json":
        return open_dataset(place)
    return open_dataset(dataset.name, root=place, per_class=5 if dataset.title == "ImageNet" else None)


def _about(model: DualEncoder, seed: int, options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, str]:
    found = {"Model": f"{model.name}, weights {model.revision}, {str(model.dtype).removeprefix('torch.')}"}
    found["The paper's model"] = "openai/clip-vit-base-patch32, on 2000, 1000 and 1000 pairs"
    found["Seed"] = str(seed)
    for name, own in (options or {}).items():
        changed = ", ".join(f"{option} {value}" for option, value in own.items())
        found[f"Not the paper's setting of {name}"] = changed
    return found


def _sample(place: Path, samples: Sequence[Any], outcome: Outcome, ids: Path) -> str:
    pairs = len(set(outcome.rows.column("pair").to_pylist()))
    return f"{pairs} pairs of {len(samples)} samples of {place.name}, ids in {ids.as_posix()}"


def _lines(table: str, dataset: PaperDataset, summary: Sequence[SummaryRow]) -> list[Line]:
    """Our figures of one dataset; the figures of the paper that belong to them."""
    theirs = {(one.label, one.measure): one.value for one in theirs_of(table) if one.dataset == dataset.title}
    found = []
    for measure, (metric, side) in MEASURES.items():
        for row in summary:
            if (row.metric, row.side) == (metric, side):
                paper = theirs.get((row.method, measure))
                found.append(Line(dataset.title, measure, row.method, row.mean, row.low, row.high, row.pairs, paper))
    for row in summary if table == "table2" else ():
        if row.metric == "seconds" and row.mean > 0:
            low, high = (1 / bound if bound > 0 else float("nan") for bound in (row.high, row.low))
            paper = theirs.get((row.method, FPS))
            found.append(Line(dataset.title, FPS, row.method, 1 / row.mean, low, high, row.pairs, paper))
    return found


def _passes(summary: Sequence[SummaryRow]) -> list[Line]:
    """Passes of both sides of a pair, beside those of the paper's table 8."""
    theirs = {row["method"]: row for row in figures()["table8"]}
    names = {cost.name for cost in TABLE_8.values()}
    return [
        Line("both sides of a pair", row.metric, row.method, row.mean, row.low, row.high, row.pairs, float(paper))
        for row in summary
        if row.metric in ("forward", "backward") and row.method in names
        for paper in [theirs[row.method][row.metric]]
    ]


def save(found: Reproduction, folder: Path) -> list[Path]:
    """Write `table.md`, `table.tex` and `table.csv`. Raises SaveError where the disk is full."""
    rows: list[list[Value]] = [
        [x.dataset, x.measure, x.label, x.ours, x.low, x.high, str(x.pairs), x.paper, x.difference] for x in found.lines
    ]
    texts = {
        "table.md": markdown(found),
        "table.tex": latex(found),
        "table.csv": grid_csv(_HEADER, rows, caption=_caption(found)),
    }
    return list(write_files(folder, {name: _writer(text) for name, text in texts.items()}))


def markdown(found: Reproduction) -> str:
    """A grid for each dataset: a row a method, `ours (paper; difference)`."""
    told = "".join(f"- {name}: {value}\n" for name, value in found.about.items())
    made = [grid_markdown(header, rows, caption=caption) for caption, header, rows in grids(found)]
    return f"# {TITLES[found.table]}\n\n{told}\n" + "\n".join(made)


def latex(found: Reproduction) -> str:
    """See `markdown`."""
    return "\n".join(
        grid_latex(header, rows, caption=f"{caption} {_caption(found)}") for caption, header, rows in grids(found)
    )


def _caption(found: Reproduction) -> str:
    return "; ".join(f"{name}: {value}" for name, value in found.about.items()) + "."


def grids(found: Reproduction) -> list[tuple[str, list[str], list[list[Value]]]]:
    """For each dataset the caption, header and rows of its grid."""
    grids = []
    for dataset in dict.fromkeys(line.dataset for line in found.lines):
        own = [line for line in found.lines if line.dataset == dataset]
        measures = list(dict.fromkeys(line.measure for line in own))
        cells = {(line.label, line.measure): _cell(line) for line in own}
        rows: list[list[Value]] = [
            [label, *(cells.get((label, measure)) for measure in measures)]
            for label in dict.fromkeys(line.label for line in own)
        ]
        caption = f"{dataset}: ours ± half its 95 % interval (the paper's; ours less the paper's)."
        grids.append((caption, ["method", *(m.replace("_", " ") for m in measures)], rows))
    return grids


def _cell(line: Line) -> Cell:
    if line.ours != line.ours:
        return Cell("n/a" if line.paper is None else f"n/a ({line.paper:g})")
    half = (line.high - line.low) / 2
    ours = f"{line.ours:.3f}" + (f" ±{half:.3f}" if half == half and line.measure != FPS else "")
    return Cell(ours if line.paper is None else f"{ours} ({line.paper:g}; {line.difference:+.3f})")


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")
