"""Plots: what is on them, read back from matplotlib's artists, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.benchmark.plots import bars, curves, save_plots, speed, to_bytes
from isthmus.benchmark.summary import SummaryRow, summarise
from isthmus.errors import OptionError, SaveError
from isthmus.metrics.intervals import bootstrap_interval

pa = pytest.importorskip("pyarrow", reason="needs pip install 'isthmus[evaluate]'")
NAMES = ("dataset", "pair", "method", "metric", "side", "variant", "value", "curve")
METHODS = ("random", "nib", "a_$b$", "oracle")


def _table(rows):
    columns = list(zip(*rows, strict=True))
    types = {"curve": pa.list_(pa.float32()), "value": pa.float64()}
    return pa.table({n: pa.array(list(c), type=types.get(n, pa.string())) for n, c in zip(NAMES, columns, strict=True)})


def _value(method: str, i: int) -> float:
    return METHODS.index(method) + i / 4


def _rows(datasets=("coco", "flickr8k")):
    rows = []
    for dataset in datasets:
        for method in METHODS:
            for i in range(5):
                start = dataset, f"p{i}", method
                line = [_value(method, i) * x for x in np.linspace(0, 1, 3 + i)]
                rows.append((*start, "insertion", "text", "cosine", _value(method, i), line))
                rows.append((*start, "swap", "text", "", float("nan") if i else -1.0, None))
                if method in ("nib", "a_$b$"):
                    rows.append((*start, "seconds", "", "", 0.01 * (1 + METHODS.index(method)), None))
    return _table(rows)


def _row(method: str, mean: float, better: str = "higher", dataset: str = "coco") -> SummaryRow:
    return SummaryRow(
        dataset, "m", "image", "v", method, 9, 0, mean, mean - 0.5, mean + 0.25, None, None, None, better, "points"
    )


class TestBars:
    def test_bars_and_intervals(self):
        summary = [_row("random", 0.5), _row("nib", 2.0), _row("other", -1.0)]
        (ax,) = bars(summary, "m", "image", "v").axes
        assert [text.get_text() for text in ax.get_yticklabels()] == ["nib", "other", "random"]  # trivial maps last
        assert [patch.get_width() for patch in ax.patches] == [2.0, -1.0, 0.5]
        intervals = [line for line in ax.lines if line.get_label() == "interval"]
        assert [list(line.get_xdata()) for line in intervals] == [[1.5, 2.25], [-1.5, -0.75], [0.0, 0.75]]
        assert len(ax.lines) == 4  # and zero
        assert list(ax.lines[-1].get_xdata()) == [0, 0]
        assert ax.get_xlabel() == "m, image, v (points)\nhigher is better"

    def test_direction(self):
        assert "lower is better" in bars([_row("nib", 1, "lower")], "m", "image", "v").axes[0].get_xlabel()
        assert "better" not in bars([_row("nib", 1, "")], "m", "image", "v").axes[0].get_xlabel()

    def test_a_panel_for_each_dataset(self):
        summary = [_row("nib", 1), _row("nib", 2, dataset="b_1")]
        assert [ax.get_title(loc="left") for ax in bars(summary, "m", "image", "v").axes] == ["coco", "b_1"]

    def test_undefined_intervals_are_left_out(self):
        (ax,) = bars(summarise(_rows(("coco",))), "swap", "text", "").axes
        assert len(ax.patches) == 4
        assert len(ax.lines) == 1

    def test_what_is_not_there(self):
        with pytest.raises(OptionError, match=r"'m / text' to draw: choose among what the run has, m / image / v\."):
            bars([_row("nib", 1)], "m", "text", "")


class TestCurves:
    def test_means_on_a_common_line(self):
        (ax, _) = curves(_rows(), "insertion", "text", "cosine").axes
        assert [line.get_label() for line in ax.lines] == list(METHODS)
        for method, line in zip(METHODS, ax.lines, strict=True):
            mean = np.mean([_value(method, i) for i in range(5)])
            assert np.allclose(line.get_xdata(), np.linspace(0, 1, 101))
            assert np.allclose(line.get_ydata(), mean * np.linspace(0, 1, 101), atol=1e-6)
        assert ax.get_xlabel() == "share of tokens inserted"
        assert ax.get_ylabel() == "score (cosine)"
        assert [text.get_text() for text in ax.get_legend().get_texts()] == list(METHODS)

    def test_band(self):
        (ax, _) = curves(_rows(), "insertion", "text", "cosine").axes
        assert len(ax.collections) == len(METHODS)
        low, high = bootstrap_interval([_value("nib", i) for i in range(5)])
        edge = ax.collections[METHODS.index("nib")].get_paths()[0].vertices
        at_end = edge[np.isclose(edge[:, 0], 1)][:, 1]
        assert (at_end.min(), at_end.max()) == pytest.approx((low, high), abs=1e-6)

    def test_by_hand_for_two_lengths(self):
        lines = {"p0": [0.0, 1.0], "p1": [0.0, 0.0, 1.0]}
        rows = _table([("d", p, "nib", "deletion", "image", "", 0.0, line) for p, line in lines.items()])
        (ax,) = curves(rows, "deletion", "image", "").axes
        at = dict(zip(np.round(ax.lines[0].get_xdata(), 2), ax.lines[0].get_ydata(), strict=True))
        assert [at[x] for x in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([0, 0.25, (0.75 + 0.5) / 2, 1])
        assert ax.get_xlabel() == "share of patches deleted"

    def test_curves_that_are_no_curves_are_left_out(self):
        lines = [[0.0, 1.0], [0.5], [float("nan"), 1.0], None, []]
        rows = _table([("d", f"p{i}", "nib", "deletion", "image", "", 0.0, line) for i, line in enumerate(lines)])
        (ax,) = curves(rows, "deletion", "image", "").axes
        assert np.allclose(ax.lines[0].get_ydata(), np.linspace(0, 1, 101))
        assert not ax.collections  # one pair has no band

    @pytest.mark.parametrize("metric", ["deletion", "swap"])
    def test_what_is_not_there(self, metric):
        with pytest.raises(OptionError, match="insertion / text / cosine"):
            curves(_rows(), metric, "text", "")


class TestSpeed:
    def test_points_and_lines(self):
        (ax, _) = speed(summarise(_rows()), "insertion", "text", "cosine").axes
        points = {line.get_label(): line for line in ax.lines if line.get_marker() == "o"}
        assert list(points) == ["nib", "a_$b$"]
        assert points["nib"].get_xdata()[0] == pytest.approx(0.02)
        assert points["nib"].get_ydata()[0] == pytest.approx(1.5)
        assert {text.get_text() for text in ax.texts} == set(METHODS)
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == "seconds per pair"
        assert len(ax.lines) == 2 * 2 + 2  # a point and an interval each, and the two trivial maps

    def test_no_times(self):
        summary = [row for row in summarise(_rows()) if row.metric != "seconds"]
        with pytest.raises(OptionError, match="no times"):
            speed(summary, "insertion", "text", "cosine")


class TestSaving:
    def test_every_plot_and_the_same_bytes(self, tmp_path):
        rows = _rows(("coco",))
        summary = summarise(rows)
        first = save_plots(rows, summary, tmp_path / "a")
        second = save_plots(rows, summary, tmp_path / "b")
        stems = ("bars-insertion-text-cosine", "speed-insertion-text-cosine", "bars-swap-text", "speed-swap-text")
        stems += ("curves-insertion-text-cosine",)
        assert {path.name for path in first} == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
        assert set(first) == set((tmp_path / "a").iterdir())
        for one, other in zip(first, second, strict=True):
            assert one.read_bytes() == other.read_bytes(), one.name

    def test_names_with_signs_are_themselves(self):
        svg = to_bytes(curves(_rows(("coco",)), "insertion", "text", "cosine"), "svg").decode()
        assert ">a_$b$</text>" in svg
        assert "<dc:date>" not in svg
        png = to_bytes(bars([_row("nib", 1)], "m", "image", "v"), "png")
        assert png.startswith(b"\x89PNG")
        assert b"Software" not in png

    def test_names_that_differ_in_signs_only(self, tmp_path):
        summary = [_row("nib", 1), SummaryRow(**{**vars(_row("nib", 2)), "metric": "m-image"})]
        summary += [SummaryRow(**{**vars(_row("nib", 3)), "variant": variant}) for variant in ("10 %", "10 /")]
        empty = _table([("d", "p", "nib", "swap", "text", "", 0.0, None)])
        found = save_plots(empty, summary, tmp_path)
        assert len({path.name for path in found}) == 8
        assert "bars-m-image-10-.png" in {path.name for path in found}
        assert "bars-m-image-10--2.png" in {path.name for path in found}

    def test_nothing_and_a_folder_that_cannot_be(self, tmp_path):
        rows = _rows(("coco",))
        assert save_plots(_table([("d", "p", "a", "seconds", "", "", 1.0, None)]), [], tmp_path / "none") == []
        (tmp_path / "file").write_text("")
        with pytest.raises(SaveError):
            save_plots(rows, summarise(rows), tmp_path / "file" / "x")

    def test_pyplot_is_left_alone(self):
        import subprocess
        import sys

        code = (
            "import sys; from isthmus.benchmark.plots import bars, to_bytes; from isthmus.benchmark.summary import *\n"
            "row = SummaryRow('d', 'm', '', '', 'a', 2, 0, 1., 0., 2., None, None, None, '', '')\n"
            "to_bytes(bars([row], 'm', '', ''), 'png'); sys.exit('matplotlib.pyplot' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
