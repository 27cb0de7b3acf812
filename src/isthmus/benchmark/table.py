"""Tables of a run in Markdown, LaTeX and CSV; and plain grids, which the paper's tables use."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from isthmus.benchmark.summary import TRIVIAL, Key, PairedTestRow, SummaryRow

SIGNIFICANT = 0.05
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}
_NONE, _UNDEFINED, _MARK = "–", "n/a", "†"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
    "†": r"$^\dagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


@dataclass(frozen=True)
class Cell:
    """Figures as they are shown, in bold or with a dagger."""

    text: str
    bold: bool = False
    marked: bool = False


Value = str | float | None | Cell


@dataclass(frozen=True)
class _Grid:
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Value]]


def to_markdown(
    summary: Sequence[SummaryRow], *, tests: Iterable[PairedTestRow] = (), about: Mapping[str, str] | None = None
) -> str:
    """Tables of means, and of calibrated scores where there is an oracle, for each dataset.

    Args:
        summary: see `isthmus.benchmark.summary.summarise`.
        tests: see `isthmus.benchmark.summary.paired_tests_of`; they mark methods that are not told apart from the best.
        about: what stands above each table, such as model, seed and the file with the list of ids.

    Returns:
        Markdown. The best method that looks at the model is bold; trivial maps stand to the right.
    """
    parts = []
    for dataset, grids in _grids(summary, list(tests)).items():
        parts.append(f"## {_markdown(dataset)}\n\n" + _list(_about(summary, dataset, about)))
        parts += [grid_markdown(grid.header, grid.rows, caption=grid.caption) for grid in grids]
    return "\n".join(parts)


def to_latex(
    summary: Sequence[SummaryRow], *, tests: Iterable[PairedTestRow] = (), about: Mapping[str, str] | None = None
) -> str:
    r"""The same tables for LaTeX with `\usepackage{booktabs}`; see `to_markdown`."""
    parts = []
    for dataset, grids in _grids(summary, list(tests)).items():
        told = "; ".join(f"{name}: {value}" for name, value in _about(summary, dataset, about).items())
        parts += [grid_latex(grid.header, grid.rows, caption=f"{grid.caption} {told}.") for grid in grids]
    return "\n".join(parts)


def to_csv(summary: Sequence[SummaryRow]) -> str:
    """A line for each row of the summary, all fields in full precision; empty for None, `nan` where undefined."""
    names = [field.name for field in fields(SummaryRow)]
    return grid_csv(names, [[getattr(row, name) for name in names] for row in summary])


def grid_markdown(header: Sequence[str], rows: Sequence[Sequence[Value]], *, caption: str = "", digits: int = 2) -> str:
    """A table in GitHub's Markdown, with the caption below it.

    Args:
        header: the names of the columns.
        rows: of as many values each; a float has `digits` decimals, None is a dash, NaN is n/a.
        caption: plain text.
        digits: decimals of floats.
    """
    aligned = ["---:" if numeric else "---" for numeric in _numeric(header, rows)]
    lines = [[_markdown(name) for name in header], aligned]
    for row in rows:
        texts = []
        for text, bold, marked in (_shown(value, digits) for value in row):
            whole = _markdown(text)
            texts.append((f"**{whole}**" if bold else whole) + (f" {_MARK}" if marked else ""))
        lines.append(texts)
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return table + (f"\n{_markdown(caption)}\n" if caption else "")


def grid_latex(header: Sequence[str], rows: Sequence[Sequence[Value]], *, caption: str = "", digits: int = 2) -> str:
    """A `table` with rules of booktabs; see `grid_markdown` for the arguments. Text is escaped."""
    columns = "".join("r" if numeric else "l" for numeric in _numeric(header, rows))
    lines = [r"\begin{table}", r"\centering", *([f"\\caption{{{_latex(caption)}}}"] if caption else [])]
    lines += [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_line([_latex(name) for name in header])]
    lines.append(r"\midrule")
    for row in rows:
        texts = []
        for value in row:
            text, bold, marked = _shown(value, digits)
            whole = _latex(text) if isinstance(value, str) else re.sub(r"-(?=\d)", "$-$", _latex(text))
            texts.append((f"\\textbf{{{whole}}}" if bold else whole) + (_LATEX[_MARK] if marked else ""))
        lines.append(_latex_line(texts))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def grid_csv(header: Sequence[str], rows: Sequence[Sequence[Value]], *, caption: str = "") -> str:
    """CSV with floats in full; empty for None, `nan` for NaN. A caption becomes a first line that begins with #."""
    buffer = io.StringIO()
    if caption:
        buffer.write(f"# {' '.join(caption.split())}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([value.text if isinstance(value, Cell) else value for value in row] for row in rows)
    return buffer.getvalue()


def _grids(summary: Sequence[SummaryRow], tests: Sequence[PairedTestRow]) -> dict[str, list[_Grid]]:
    """The tables of each dataset."""
    found: dict[str, list[_Grid]] = {}
    for dataset in dict.fromkeys(row.dataset for row in summary):
        own = [row for row in summary if row.dataset == dataset]
        found[dataset] = list(_grids_of(own, tests))
    return found


def _grids_of(own: Sequence[SummaryRow], tests: Sequence[PairedTestRow]) -> Iterator[_Grid]:
    lines: dict[Key, dict[str, SummaryRow]] = {}
    for row in own:
        lines.setdefault(row.key, {})[row.method] = row
    told = "Bold: the best method." + (
        f" {_MARK}: not told apart from the best (paired sign-flip test, corrected p at least {SIGNIFICANT})."
        if tests
        else ""
    )
    methods = _ordered(row.method for row in own)
    means = [_line(line, methods, tests, scores=False) for line in lines.values()]
    caption = f"Mean over pairs [bootstrap interval]. {told}"
    yield _Grid(caption, ["metric", "side", "variant", "better", "pairs", *methods], means)
    placed = {key: line for key, line in lines.items() if any(row.score is not None for row in line.values())}
    methods = _ordered(name for line in placed.values() for name in line if name not in ("random", "oracle"))
    if methods:
        scores = [_line(line, methods, tests, scores=True) for line in placed.values()]
        caption = f"Score (method − random) / (oracle − random) [bootstrap interval]. {told}"
        yield _Grid(caption, ["metric", "side", "variant", "pairs", *methods], scores)


def _line(
    line: Mapping[str, SummaryRow], methods: Sequence[str], tests: Sequence[PairedTestRow], *, scores: bool
) -> list[Value]:
    """The line of a metric, side and variant: what it is, then a cell for each method."""
    any_row = next(iter(line.values()))
    best, equal = _best(line, tests)
    decimals = 2 if scores else _decimals(row.mean for row in line.values())
    cells: list[Value] = [any_row.metric, any_row.side, any_row.variant]
    if not scores:
        cells.append(" ".join(filter(None, (_ARROWS[any_row.better], any_row.unit))))
    cells.append(_span(row.pairs for row in line.values()))
    for method in methods:
        row = line.get(method)
        if row is None or (scores and row.score is None):
            cells.append(None)
            continue
        shown = (row.score, row.score_low, row.score_high) if scores else (row.mean, row.low, row.high)
        cells.append(Cell(_with_interval(*shown, decimals), bold=method == best, marked=method in equal))
    return cells


def _best(line: Mapping[str, SummaryRow], tests: Sequence[PairedTestRow]) -> tuple[str | None, set[str]]:
    """The best method that is not trivial, and those that no test tells apart from it."""
    rows = [row for row in line.values() if row.method not in TRIVIAL and row.better and math.isfinite(row.mean)]
    if not rows:
        return None, set()
    best = max(rows, key=lambda row: row.mean if row.better == "higher" else -row.mean)
    equal = set()
    for test in tests:
        two = {test.first, test.second}
        if test.key == best.key and best.method in two and not test.p_corrected < SIGNIFICANT:
            equal |= two - {best.method}
    return best.method, equal - set(TRIVIAL)


def _about(summary: Sequence[SummaryRow], dataset: str, about: Mapping[str, str] | None) -> dict[str, str]:
    pairs = max(row.pairs + row.missing for row in summary if row.dataset == dataset)
    return {**(about or {}), "dataset": dataset, "pairs": str(pairs)}


def _ordered(methods: Iterable[str]) -> list[str]:
    """As first seen, trivial maps last."""
    seen = dict.fromkeys(methods)
    return [name for name in seen if name not in TRIVIAL] + [name for name in TRIVIAL if name in seen]


def _span(counts: Iterable[int]) -> str:
    every = sorted(counts)
    return str(every[0]) if every[0] == every[-1] else f"{every[0]}–{every[-1]}"


def _decimals(means: Iterable[float]) -> int:
    """Three figures of the largest mean, and two decimals at least."""
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0)
    return 2 if largest == 0 else min(6, max(2, 2 - math.floor(math.log10(largest))))


def _with_interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    bounded = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    interval = f" [{_number(low, digits)}, {_number(high, digits)}]" if bounded else ""
    return _number(value, digits) + interval


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return _NONE
    if math.isnan(value):
        return _UNDEFINED
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 makes -0.0 plain


def _shown(value: Value, digits: int) -> tuple[str, bool, bool]:
    if isinstance(value, Cell):
        return value.text, value.bold, value.marked
    if isinstance(value, str):
        return value, False, False
    return (str(value) if isinstance(value, int) else _number(value, digits)), False, False


def _numeric(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> list[bool]:
    return [not any(isinstance(row[i], str) for row in rows) for i in range(len(header))]


def _list(items: Mapping[str, str]) -> str:
    return "".join(f"- {_markdown(name)}: {_markdown(value)}\n" for name, value in items.items())


def _markdown(text: str) -> str:
    """Text whose signs Markdown leaves alone; an underscore inside a word needs no mark."""
    text = re.sub(r"([\\|*`<])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _latex_line(texts: Sequence[str]) -> str:
    """A line of a table; LaTeX would take a bracket or star that begins the next one for an argument of its break."""
    line = " & ".join(texts)
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
