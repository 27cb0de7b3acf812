"""What a run leaves to read: the table in Markdown, LaTeX and CSV, the paired tests, and the plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from isthmus.benchmark.plan import Plan
from isthmus.benchmark.plots import save_plots
from isthmus.benchmark.run import Outcome
from isthmus.benchmark.spec import Spec
from isthmus.benchmark.summary import PairedTestRow, SummaryRow, fewer_pairs, paired_tests_of, summarise
from isthmus.benchmark.table import grid_csv, to_csv, to_latex, to_markdown
from isthmus.export import write_files


def about(plan: Plan) -> dict[str, str]:
    """What stands above a table: model, sample and how to take it again."""
    found = {
        "model": f"{plan.model.name}, weights {plan.model.revision}, {str(plan.model.dtype).removeprefix('torch.')}",
        "sample": f"{len(plan.samples)} of {plan.dataset}, seed {plan.seed}, ids in sample.txt",
        "caption": plan.choice,
        "replacement": ", ".join(plan.replacements),
        "batch": str(plan.batch_size),
    }
    for spec in plan.specs:
        if spec.options or spec.preset:
            found[spec.label] = told(spec)
    return found


def told(spec: Spec) -> str:
    """A spec's options in words."""
    parts = [f"preset {spec.preset}"] if spec.preset else []
    return ", ".join([*parts, *(f"{name} {value}" for name, value in spec.options.items())])


def report(plan: Plan, outcome: Outcome, folder: Path, *, plots: bool = True) -> tuple[list[SummaryRow], list[Path]]:
    """Write the tables, tests and plots of a run.

    Returns:
        The summary, and the files.

    Raises:
        SaveError: the disk is full.
    """
    summary = summarise(outcome.rows, seed=plan.seed)
    tests = paired_tests_of(outcome.rows, seed=plan.seed)
    fewer = {name: f"{count} of {most} pairs" for name, (count, most) in fewer_pairs(outcome.rows).items()}
    above = about(plan) | ({"fewer pairs": ", ".join(map(": ".join, fewer.items()))} if fewer else {})
    texts = {
        "table.md": to_markdown(summary, tests=tests, about=above),
        "table.tex": to_latex(summary, tests=tests, about=above),
        "table.csv": to_csv(summary),
        "tests.csv": _tests(tests),
        "failures.csv": grid_csv(["id", "reason"], [[one.id, one.reason] for one in outcome.failed]),
    }
    paths = list(write_files(folder, {name: _writer(text) for name, text in texts.items()}))
    if plots:
        paths += save_plots(outcome.rows, summary, folder / "plots")
    return summary, paths


def _tests(tests: Sequence[PairedTestRow]) -> str:
    return grid_csv([field.name for field in fields(PairedTestRow)], [list(astuple(one)) for one in tests])


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")
