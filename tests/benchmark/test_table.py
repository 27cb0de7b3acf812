"""The summary by hand, and its tables read back from Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import random
import re
from dataclasses import fields, replace

import pytest

from isthmus.benchmark.summary import SummaryRow, paired_tests_of, summarise
from isthmus.benchmark.table import Cell, grid_csv, grid_latex, grid_markdown, to_csv, to_latex, to_markdown
from isthmus.metrics import registry
from isthmus.metrics.intervals import bootstrap_interval, calibrated
from isthmus.metrics.statistics import holm, paired_tests

pa = pytest.importorskip("pyarrow", reason="needs pip install 'isthmus[evaluate]'")
NAMES = ("dataset", "pair", "method", "metric", "side", "variant", "value", "curve")
NAN = float("nan")
HIGH = {  # of six pairs, in points
    "nib": [6.0, 7.0, 8.0, 9.0, 6.0, 9.0],  # 7.5
    "closed": [6.5, 7.0, 8.5, 9.0, 6.0, 9.0],  # 23/3
    "weak_1": [2.0, 3.0, 4.0, 3.0, 3.0, 3.0],  # 3
    "random": [1.0, 2.0, 3.0, 2.0, 2.0, 2.0],  # 2
    "flat": [2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    "oracle": [12.0, 11.0, 13.0, 12.0, 12.0, 12.0],  # 12
}


def _table(rows):
    columns = list(zip(*rows, strict=True))
    types = {"curve": pa.list_(pa.float32()), "value": pa.float64()}
    return pa.table({n: pa.array(list(c), type=types.get(n, pa.string())) for n, c in zip(NAMES, columns, strict=True)})


def _rows():
    """Two datasets; one metric that is better high, one that is better low, and one that no registry knows."""
    rows = []
    for dataset in ("coco", "flickr8k"):
        for method, values in HIGH.items():
            for i, value in enumerate(values):
                start = dataset, f"p{i}", method
                rows.append((*start, "up", "image", "cosine", value, None))
                rows.append((*start, "down", "text", "", -value, None))
                if method != "oracle":
                    rows.append((*start, "strange", "image", "", value / 1000, None))
                if method not in ("random", "flat", "oracle"):
                    rows.append((*start, "seconds", "", "", 0.25, None))
    return rows


@pytest.fixture(autouse=True)
def _metrics(monkeypatch):
    """Metrics of this test's own, so that it hangs on none of the package's."""

    def none(*_):
        raise AssertionError

    up = registry.Metric("up", "Up", "", none, unit="points")
    monkeypatch.setattr(
        "isthmus.benchmark.summary.METRICS", {"up": up, "down": replace(up, name="down", better="lower")}
    )


def _one(summary, **where):
    (row,) = [row for row in summary if all(getattr(row, name) == value for name, value in where.items())]
    return row


class TestSummary:
    def test_by_hand(self):
        summary = summarise(_table(_rows()))
        row = _one(summary, dataset="coco", metric="up", method="nib")
        assert (row.side, row.variant, row.pairs, row.missing) == ("image", "cosine", 6, 0)
        assert row.mean == pytest.approx(7.5)
        assert (row.low, row.high) == bootstrap_interval(HIGH["nib"])
        assert row.score == pytest.approx(5.5 / 10)
        same = calibrated(HIGH["nib"], HIGH["random"], HIGH["oracle"])
        assert (row.score_low, row.score_high) == (same.low, same.high)
        assert (row.better, row.unit) == ("higher", "points")
        below = _one(summary, dataset="flickr8k", metric="down", method="nib")
        assert (below.mean, below.better) == (pytest.approx(-7.5), "lower")
        assert below.score == pytest.approx(0.55)
        for method, score in (("random", 0), ("oracle", 1), ("flat", 0)):
            assert _one(summary, dataset="coco", metric="up", method=method).score == pytest.approx(score)

    def test_what_has_no_oracle_has_no_score(self):
        summary = summarise(_table(_rows()))
        for metric in ("strange", "seconds"):
            row = _one(summary, dataset="coco", metric=metric, method="nib")
            assert (row.score, row.score_low, row.score_high, row.better, row.unit) == (None, None, None, "", "")

    def test_methods_as_first_seen(self):
        summary = summarise(_table(_rows()))
        own = [row.method for row in summary if row.dataset == "coco" and row.metric == "up"]
        assert own == list(HIGH)

    def test_missing_values_and_absent_pairs(self):
        rows = [("d", f"p{i}", "a", "up", "image", "", value, None) for i, value in enumerate([1.0, NAN, 3.0, None])]
        rows += [("d", f"p{i}", "b", "up", "image", "", 1.0, None) for i in (0, 4)]
        rows += [("d", "p0", "c", "up", "image", "", NAN, None)]
        a, b, c = summarise(_table(rows))
        assert (a.mean, a.pairs, a.missing) == (2.0, 2, 3)
        assert (b.mean, b.low, b.high, b.pairs, b.missing) == (1.0, 1.0, 1.0, 2, 3)
        assert (c.pairs, c.missing) == (0, 5)
        assert all(map(math.isnan, (c.mean, c.low, c.high)))

    def test_pairs_of_one_sample_are_drawn_together(self):
        rows = [("d", f"p{i}", "a", "up", "image", "", float(i // 3), None) for i in range(12)]
        table = _table(rows)
        of = table.append_column("sample", pa.array([f"s{i // 3}" for i in range(12)]))
        (alone,), (together,) = summarise(table), summarise(of)
        assert (together.low, together.high) == pytest.approx(bootstrap_interval([0.0, 1.0, 2.0, 3.0]))
        assert together.mean == alone.mean
        assert together.high - together.low > 1.3 * (alone.high - alone.low)
        other = [(*row[:2], "random", *row[3:6], 0.0, None) for row in rows]
        both = _table(rows + other).append_column("sample", pa.array([f"s{i // 3}" for i in range(12)] * 2))
        (test,) = paired_tests_of(both)
        assert test.p == 2 / 8  # of three pictures whose difference is not 0, not of nine pairs
        assert test.pairs == 12

    def test_undefined_score_where_the_oracle_is_chance(self):
        rows = [row for row in _rows() if row[3] == "up" and row[2] != "oracle"]
        rows += [(row[0], row[1], "oracle", *row[3:]) for row in rows if row[2] == "random"]
        assert math.isnan(_one(summarise(_table(rows)), dataset="coco", method="nib").score)

    def test_the_order_of_rows_and_repeats_change_no_figure(self):
        rows = _rows()
        mixed = rows + rows[:50]
        random.Random(0).shuffle(mixed)
        order = sorted(summarise(_table(rows)), key=str)
        assert sorted(summarise(_table(mixed)), key=str) == order
        assert sorted(summarise(_table(rows), seed=1), key=str) != order


class TestPairedTests:
    def test_family_by_family(self):
        tests = paired_tests_of(_table(_rows()))
        assert {test.metric for test in tests} == {"up", "down", "strange"}
        own = [test for test in tests if test.key == ("coco", "up", "image", "cosine")]
        assert [(t.first, t.second) for t in own] == [
            ("nib", "closed"),
            ("nib", "weak_1"),
            ("nib", "random"),
            ("closed", "weak_1"),
            ("closed", "random"),
            ("weak_1", "random"),
        ]
        assert [t.p_corrected for t in own] == pytest.approx(holm([t.p for t in own]))
        assert own[1].difference == pytest.approx(4.5)
        assert own[1].p == 2 / 64  # all six differences have one sign

    def test_against_a_reference(self):
        tests = paired_tests_of(_table(_rows()), reference="nib")
        own = [test for test in tests if test.key == ("coco", "down", "text", "")]
        same = paired_tests({n: [-v for v in HIGH[n]] for n in ("nib", "closed", "weak_1", "random")}, reference="nib")
        assert [(t.first, t.difference, t.p_corrected) for t in own] == [
            (t.first, t.difference, t.p_corrected) for t in same
        ]
        assert paired_tests_of(_table(_rows()), reference="absent") == []


def _cells(line: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def _markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, its ruler left out."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M)
    return [[_cells(line) for i, line in enumerate(block.splitlines()) if i != 1] for block in blocks]


class TestMarkdown:
    @pytest.fixture
    def tables(self):
        table = _table(_rows())
        text = to_markdown(summarise(table), tests=paired_tests_of(table), about={"model": "mini", "ids": "a_b.txt"})
        return text, _markdown_tables(text)

    def test_header_and_shape(self, tables):
        text, found = tables
        assert text.index("## coco") < text.index("## flickr8k")
        assert text.count("- model: mini\n- ids: a_b.txt\n- dataset: ") == 2
        assert text.count("- pairs: 6\n") == 2
        assert len(found) == 4  # means and scores of both
        for table in found:
            assert {len(line) for line in table} == {len(table[0])}
        assert found[0][0] == ["metric", "side", "variant", "better", "pairs", *HIGH]
        assert found[1][0] == ["metric", "side", "variant", "pairs", "nib", "closed", "weak_1", "flat"]

    def test_cells(self, tables):
        means, scores = tables[1][:2]
        up = dict(zip(means[0], next(line for line in means if line[0] == "up"), strict=True))
        low, high = bootstrap_interval(HIGH["closed"])
        assert up["better"] == "↑ points"
        assert up["closed"] == f"**7.67 [{low:.2f}, {high:.2f}]**"
        assert up["random"].startswith("2.00 [")
        assert up["nib"].startswith("7.50 [")
        assert up["nib"].endswith("] †")  # no test tells it from the best one
        down = dict(zip(means[0], next(line for line in means if line[0] == "down"), strict=True))
        assert down["better"] == "↓ points"
        assert down["closed"].startswith("**-7.67 [")
        strange = next(line for line in means if line[0] == "strange")
        assert "*" not in "".join(strange)
        assert strange[-1] == "–"
        assert strange[5].startswith("0.00750 [")
        assert {line[0] for line in scores[1:]} == {"up", "down"}
        assert scores[1][4].startswith("0.55 [")

    def test_marks_only_what_tests_say(self):
        table = _table(_rows())
        summary, tests = summarise(table), paired_tests_of(table)
        assert "†" not in to_markdown(summary)
        told_apart = [replace(test, p_corrected=0.01) for test in tests]
        assert "†" not in "".join(line for line in to_markdown(summary, tests=told_apart).splitlines() if "|" in line)
        alike = to_markdown(summary, tests=[replace(test, p_corrected=0.5) for test in tests])
        up = next(line for line in _markdown_tables(alike)[0] if line[0] == "up")
        assert ["†" in cell for cell in up[5:]] == [True, False, True, False, False, False]  # no best, no trivial map
        other = [replace(test, dataset="elsewhere") for test in tests]
        assert "†" not in "".join(line for line in to_markdown(summary, tests=other).splitlines() if "|" in line)

    def test_trivial_maps_are_never_best_and_stand_last(self):
        rows = [("d", f"p{i}", m, "up", "image", "", float(v + i), None)
                for m, v in (("random", 9), ("a", 1), ("oracle", 5), ("b", 2)) for i in range(3)]  # fmt: skip
        (table, _) = _markdown_tables(to_markdown(summarise(_table(rows))))
        assert table[0][5:] == ["a", "b", "random", "oracle"]
        assert [cell.startswith("**") for cell in table[1][5:]] == [False, True, False, False]

    def test_undefined_and_differing_counts(self):
        rows = [("d", f"p{i}", "a", "up", "image", "", v, None) for i, v in enumerate([1.0, 2.0, NAN])]
        rows += [("d", "p0", "b", "up", "image", "", NAN, None), ("d", "p1", "c", "up", "image", "", -0.001, None)]
        (table,) = _markdown_tables(to_markdown(summarise(_table(rows))))
        assert table[1][4:] == ["0–2", "**1.50 [1.00, 2.00]**", "n/a", "0.00"]

    def test_signs_of_markdown(self):
        (table,) = _markdown_tables(grid_markdown(["a|b", "c"], [["x|y\nz", "*_<"], ["in_word", r"\ "]]))
        assert table == [[r"a\|b", "c"], [r"x\|y z", r"\*\_\<"], ["in_word", "\\\\"]]


class TestGrids:
    header = ("method", "paper", "ours")
    rows = (("A & B", 1.234, 0.5), ("c_d", None, NAN), ("[e]", Cell("-1.0 [-2.0, 0.1]", bold=True, marked=True), -3))

    def test_markdown(self):
        text = grid_markdown(self.header, self.rows, caption="A *caption*.", digits=1)
        assert text.splitlines() == [
            "| method | paper | ours |",
            "| --- | ---: | ---: |",
            "| A & B | 1.2 | 0.5 |",
            "| c_d | – | n/a |",
            "| [e] | **-1.0 [-2.0, 0.1]** † | -3 |",
            "",
            r"A \*caption\*.",
        ]

    def test_latex(self):
        text = grid_latex(self.header, self.rows, caption="50 % of $x_1$ {a}~^\\")
        assert text.splitlines() == [
            r"\begin{table}",
            r"\centering",
            r"\caption{50 \% of \$x\_1\$ \{a\}\textasciitilde{}\textasciicircum{}\textbackslash{}}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"method & paper & ours \\",
            r"\midrule",
            r"A \& B & 1.23 & 0.50 \\",
            r"c\_d & -- & n/a \\",
            r"{}[e] & \textbf{$-$1.0 [$-$2.0, 0.1]}$^\dagger$ & $-$3 \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]

    def test_csv(self):
        rows = (('a, "b"', 1 / 3, None), ("c", NAN, Cell("x")))
        text = grid_csv(self.header, rows, caption="two\nlines")
        first, rest = text.split("\n", 1)
        assert first == "# two lines"
        assert list(csv.reader(io.StringIO(rest))) == [
            list(self.header),
            ['a, "b"', repr(1 / 3), ""],
            ["c", "nan", "x"],
        ]
        assert not grid_csv(self.header, ()).startswith("#")


def test_csv_gives_the_summary_back():
    summary = summarise(_table(_rows()))
    lines = list(csv.DictReader(io.StringIO(to_csv(summary))))
    kinds = {field.name: str(field.type) for field in fields(SummaryRow)}

    def read(name, text):
        if kinds[name] == "str":
            return text
        return None if text == "" else (int(text) if kinds[name] == "int" else float(text))

    assert [SummaryRow(**{name: read(name, text) for name, text in line.items()}) for line in lines] == summary


def test_latex_of_a_run_is_balanced_and_escaped():
    table = _table([(f"my_{row[0]}", *row[1:]) for row in _rows()])
    text = to_latex(summarise(table), tests=paired_tests_of(table), about={"model": "a_b & 50%"})
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4
    assert text.count(r"model: a\_b \& 50\%; dataset: my\_coco; pairs: 6.}") == 2
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, flags=re.S):
        lines = [line for line in block[1].splitlines() if line.endswith(r" \\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(block[0])}
    assert not re.search(r"(?<!\\)[_%#]", text)
    assert text.isascii()
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_nothing_gives_nothing():
    assert to_markdown([]) == to_latex([]) == ""
    assert to_csv([]).strip() == ",".join(field.name for field in fields(SummaryRow))
