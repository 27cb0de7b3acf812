"""`isthmus evaluate` and its lists: killed it goes on, tables are whole on any terminal, errors are one line."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import isthmus.benchmark.explaining as explaining
from conftest import EXAMPLES, picture
from isthmus.benchmark.summary import SummaryRow
from isthmus.cli.evaluate import print_summary
from isthmus.datasets import DATASETS
from isthmus.errors import ModelError
from isthmus.methods import METHODS
from isthmus.metrics import METRICS

TEXTS = ("a dog on the grass", "a cat and a bird", "two horses", "snow on a hill", "a red car")
QUICK = ("--metrics", "completeness", "--oracle", "0", "--no-plots", "--batch-size", "2")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the process that is killed has: the same rounding, and none waits for another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(make_tiny: Any) -> Any:
    return make_tiny(depth=2)


@pytest.fixture
def call(run: Callable[..., Any], tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line with a tiny model under the name of mini."""
    monkeypatch.setattr("isthmus.explainer.load", lambda *_, **__: tiny)
    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five pictures with a text each."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        picture(i).save(folder / f"p{i}.png")
    lines = [f'p{i}.png,"{text}"' for i, text in enumerate(TEXTS)]
    (folder / "t.csv").write_text("\n".join(["image,text", *lines]) + "\n", encoding="utf-8")
    return folder / "t.csv"


def rows_of(folder: Path) -> dict[tuple[str, ...], Any]:
    """By what a row is; one that is there twice is an error."""
    import pyarrow.parquet as parquet

    found: dict[tuple[str, ...], Any] = {}
    for row in parquet.ParquetFile(folder / "rows.parquet").read().to_pylist():
        key = tuple(row[name] for name in ("dataset", "pair", "method", "metric", "side", "variant"))
        assert key not in found, key
        found[key] = None if math.isnan(row["value"]) else row["value"]
    return found


def csv_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def measured(rows: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    return {key: value for key, value in rows.items() if key[3] != "seconds"}


def test_killed_with_kill_9_it_goes_on_to_the_same_table(run: Any, table: Path, tmp_path: Path) -> None:
    names = "attention-gradient,gradcam,chefer,hirescam,saliency,nib"
    command = ["evaluate", table, "--methods", names, "--metrics", "confidence-drop,completeness", "--oracle", "0"]
    command += ["--option", "nib.steps=2", "--sides", "text", "--batch-size", "1", "--no-plots"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus", *map(str, command), "--out", str(killed)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while len(list(killed.glob("parts/rows/*.parquet"))) < 12 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()  # SIGKILL: nothing is cleaned up
    _, said = process.communicate()
    before = {path: path.read_bytes() for path in killed.glob("parts/rows/[!.]*")}
    assert process.returncode not in (0, 1, 2), said
    assert 12 <= len(before) < 5 * 9
    assert not (killed / "table.csv").exists()

    for folder in (killed, whole):
        code, _, said = run(*command, "--out", folder)
        assert code == 0, said
    assert {path: path.read_bytes() for path in before} == before  # what was there was not made again
    found, expected = measured(rows_of(killed)), measured(rows_of(whole))
    assert set(found) == set(expected)
    assert len({key[1:3] for key in found}) == 5 * 9
    for key, value in expected.items():
        assert found[key] == (value if value is None else pytest.approx(value, rel=1e-4, abs=1e-4)), key
    tables = [csv_of(folder / "table.csv") for folder in (killed, whole)]
    assert len(tables[0]) == len(tables[1]) == 9 * (7 + 2) + 3 * 6  # variants, and what an explanation costs
    for one, other in zip(*tables, strict=True):
        for name in one if one["metric"] != "seconds" else ("metric", "method", "pairs"):
            if name in ("mean", "low", "high"):
                assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-3, nan_ok=True)
            else:
                assert one[name] == other[name]
    assert (killed / "sample.txt").read_bytes() == (whole / "sample.txt").read_bytes()
    assert (killed / "run.json").read_bytes() == (whole / "run.json").read_bytes()
    assert {path.name for path in killed.rglob("*")} == {path.name for path in whole.rglob("*")}


def test_interrupted_it_says_how_to_go_on(call: Any, table: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real, made = explaining.explain, []

    def explain(*arguments: Any, **options: Any) -> Any:
        made.append(options["method"])
        if len(made) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(explaining, "explain", explain)
    command = ["evaluate", table, "--methods", "gradcam,chefer", *QUICK, "--out", tmp_path / "out"]
    code, printed, said = call(*command)
    assert code == 130
    assert said.splitlines()[-1].startswith("Interrupted: what was measured is whole in ")
    assert said.splitlines()[-1].endswith("Run the same command again to go on.")
    assert "Traceback" not in printed + said
    assert call(*command)[0] == 0
    assert len(made) == 4 + 3  # the interrupted one, and the last batch of both
    assert {key[1:3] for key in rows_of(tmp_path / "out")} >= {
        (f"p{i}.png", name) for i in range(5) for name in ("gradcam", "chefer", "random", "flat", "centre")
    }


def test_bad_records_are_counted_and_listed(call: Any, table: Path, tmp_path: Path) -> None:
    (table.parent / "p1.png").write_bytes((table.parent / "p1.png").read_bytes()[:300])
    table.write_text(table.read_text(encoding="utf-8").replace(TEXTS[3], " "), encoding="utf-8")
    command = ["evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out"]
    for _ in range(2):  # a second run, which computes nothing, tells the same
        code, printed, said = call(*command)
        assert code == 2
        assert "2 failed, listed in " in printed
        failed = {row["id"]: row["reason"] for row in csv_of(tmp_path / "out" / "failures.csv")}
        assert set(failed) == {"p1.png", "p3.png"}
        assert "damaged or cut off" in failed["p1.png"]
        assert "no text" in failed["p3.png"]
        assert "  p1.png: The picture " in printed
        assert {key[1] for key in rows_of(tmp_path / "out")} == {"p0.png", "p2.png", "p4.png"}
        assert {row["pairs"] for row in csv_of(tmp_path / "out" / "table.csv") if row["metric"] == "forward"} == {"3"}
        assert "Traceback" not in said


def test_where_all_records_are_bad_they_are_listed(call: Any, table: Path, tmp_path: Path) -> None:
    for path in table.parent.glob("*.png"):
        path.write_bytes(b"")
    code, printed, said = call("evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out")
    assert code == 2
    assert "5 failed, listed in " in printed
    assert len(csv_of(tmp_path / "out" / "failures.csv")) == 5
    assert "Traceback" not in printed + said


def test_a_long_list_of_failures_is_cut_on_the_screen_alone(call: Any, table: Path, tmp_path: Path) -> None:
    with table.open("a", encoding="utf-8") as stream:
        stream.write("gone.png,a dog\n" * 30)
    code, printed, _ = call("evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out")
    assert code == 2
    assert "30 failed" in printed
    assert "  ... and 20 more" in printed
    assert len(csv_of(tmp_path / "out" / "failures.csv")) == 30


def test_a_method_that_refuses_is_told(call: Any, table: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real = explaining.explain

    def explain(*arguments: Any, **options: Any) -> Any:
        if options["method"] == "chefer":
            raise ModelError("This model has no attention: take another method.")
        return real(*arguments, **options)

    monkeypatch.setattr(explaining, "explain", explain)
    command = ["evaluate", table, *QUICK, "--out"]
    code, printed, said = call(*command, tmp_path / "some", "--methods", "chefer,gradcam")
    assert code == 2
    assert "chefer has no result: This model has no attention: take another method.\n" in said
    assert {row["method"] for row in csv_of(tmp_path / "some" / "table.csv")} == {"gradcam", "random", "flat", "centre"}
    code, printed, said = call(*command, tmp_path / "all", "--methods", "chefer")
    assert code == 1
    assert said.splitlines()[-1] == "isthmus: This model has no attention: take another method."
    assert "Traceback" not in printed + said
    code, printed, said = call(*command, tmp_path / "layer", "--methods", "gradcam", "--option", "gradcam.layer=99")
    assert code == 1
    assert re.match(r"isthmus: layer=99 is out of range.*\.$", said.splitlines()[-1])


def ids_in(folder: Path) -> list[str]:
    return (folder / "sample.txt").read_text(encoding="utf-8").splitlines()


def test_samples_are_named_by_seed_and_by_ids(call: Any, table: Path, tmp_path: Path) -> None:
    every = [f"p{i}.png" for i in range(5)]

    def taken(name: str, *arguments: object) -> list[str]:
        code, printed, said = call(
            "evaluate", table, "--methods", "random", *QUICK, "--out", tmp_path / name, *arguments
        )
        assert code == 0, said
        found = ids_in(tmp_path / name)
        assert {key[1] for key in rows_of(tmp_path / name)} == set(found)
        assert f"{len(found)} samples, " in printed
        return found

    one, again, other = taken("1", "--limit", 3), taken("2", "--limit", 3), taken("3", "--limit", 3, "--seed", 5)
    assert one == again != other
    assert taken("4", "--limit", 4)[:3] == one
    assert sorted(taken("5")) == every
    (tmp_path / "ids").write_text("# two of them\n\n" + "\n".join([every[4], every[1]]) + "\n", encoding="utf-8")
    assert sorted(taken("6", "--ids", tmp_path / "ids")) == [every[1], every[4]]
    assert taken("7", "--ids", tmp_path / "1" / "sample.txt") == one


def header_and_rows(printed: str) -> tuple[list[str], list[list[str]]]:
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("metric "))
    columns = [match.start() for match in re.finditer(r"\S+", lines[start])]
    ends = [match.end() for match in re.finditer(r"\S+", lines[start])]
    rows = []
    for line in lines[start + 1 :]:
        if re.match(r"\d+ samples, ", line) or not line.strip():
            break
        texts = [
            line[a:b].strip() for a, b in zip(columns[:3], [*columns[1:3], line.find("  ", columns[2])], strict=True)
        ]
        figures = [line[:end].rsplit("  ", 1)[-1].strip() for end in ends[3:]]
        rows.append([*texts, *figures])
    return lines[start].split(), rows


def test_the_table_is_whole_on_a_narrow_terminal(
    call: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    names = ["attention-gradient", "attention-x-gradient", "chefer", "grad-eclip", "gradcam", "hirescam", "legrad"]
    names += ["input-x-gradient", "saliency"]
    assert set(names) <= set(METHODS)
    metrics = ["--metrics", "confidence-drop,completeness", "--oracle", "0", "--no-plots", "--limit", "3"]
    code, printed, said = call("evaluate", table, "--methods", ",".join(names), *metrics, "--out", tmp_path / "out")
    assert code == 0, said
    header, rows = header_and_rows(printed)
    assert header == ["metric", "side", "variant", *names, "random", "flat", "centre"]
    assert "…" not in printed
    figures = csv_of(tmp_path / "out" / "table.csv")
    keys = list(dict.fromkeys((row["metric"], row["side"], row["variant"]) for row in figures))
    assert [tuple(row[:3]) for row in rows] == keys
    means = {(row["metric"], row["side"], row["variant"], row["method"]): float(row["mean"]) for row in figures}
    for row in rows:
        assert len(row) == 3 + 12
        for name, cell in zip(header[3:], row[3:], strict=True):
            mean = means.get((*row[:3], name))
            if mean is None:
                assert cell == ""
            elif mean != mean:
                assert cell == "n/a"
            else:
                assert ("±" in cell) == (row[0] not in ("seconds", "forward", "backward"))
                assert float(cell.split(" ")[0]) == pytest.approx(mean, abs=0.05)


def test_any_summary_is_printed_whole(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = [
        SummaryRow(
            *("a set", "insertion-deletion-of-some-kind", "image", "margin [red]normalised[/red], blur", f"method-{i}"),
            *(3, 0, i / 7, i / 7 - 0.1, i / 7 + 0.1, None, None, None, "higher", ""),
        )
        for i in range(30)
    ]
    print_summary(rows)
    title, header, line = capsys.readouterr().out.splitlines()
    assert title == "a set"
    assert header.split() == ["metric", "side", "variant", *(f"method-{i}" for i in range(30))]
    assert line.startswith("insertion-deletion-of-some-kind  image  margin [red]normalised[/red], blur ")
    assert re.findall(r"(\S+) ±0\.100", line)[:2] == ["0.000", "0.143"]
    assert line.count("±") == 30
    undefined = float("nan")
    print_summary([replace(rows[1], low=undefined, high=undefined), replace(rows[2], mean=undefined)])
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["0.143", "n/a"]
    print_summary([])
    assert capsys.readouterr().out == ""


def test_all_that_is_asked_for_is_written(call: Any, tmp_path: Path) -> None:
    """A folder with one text for all, both sides, variants of the replacement, the oracle, plots."""
    command = ["evaluate", EXAMPLES, "--text", "an animal", "--limit", 3, "--methods", "gradcam", "--sides", "text"]
    metrics = ["--metrics", "insertion", "--replacement", "mean", "--replacement", "remove", "--oracle", 2]
    code, printed, said = call(*command, *metrics, "--out", tmp_path, "--option", "gradcam.layer=1")
    assert code == 0, said
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files >= {
        *("rows.parquet", "run.json", "sample.txt", "table.md", "table.tex", "table.csv", "tests.csv", "failures.csv"),
    }
    assert any(name.startswith("plots/") and name.endswith(".png") for name in files)
    rows = rows_of(tmp_path)
    assert {key[2] for key in rows} == {"gradcam", "random", "flat", "centre", "oracle"}
    assert {key[4] for key in rows} == {"text", ""}
    assert {key[5] for key in rows if key[3] == "insertion"} >= {"cosine", "cosine, remove"}
    assert len({key[1] for key in rows if key[2] == "oracle"}) == 2
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "- gradcam: layer 1\n" in markdown
    assert "ids in sample.txt" in markdown
    assert tuple(row["id"] for row in csv_of(tmp_path / "failures.csv")) == ()
    assert "rows.parquet" in printed


def test_metrics_that_the_dataset_cannot_serve_are_told(call: Any, table: Path, tmp_path: Path) -> None:
    arguments = ["--methods", "gradcam", "--oracle", "0", "--no-plots", "--out", tmp_path / "out", "--limit", 2]
    code, _, said = call("evaluate", table, *arguments, "--metrics", "pointing-game,iou,completeness")
    assert code == 0
    assert "Not measured: pointing-game, iou. The sample of t.csv has no masks or boxes.\n" in said
    arguments[-3] = tmp_path / "none"
    code, _, said = call("evaluate", table, *arguments, "--metrics", "pointing-game")
    assert code == 1
    assert said.splitlines()[-1].startswith("isthmus: The sample of t.csv has no masks or boxes: choose another sample")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.csv"], "There is no dataset 'gone.csv': "),
        (["flickr8k"], "The dataset flickr8k needs root (--dataset-root), a folder with "),
        (["t.csv", "--methods", "magic"], "There is no method 'magic': "),
        (["t.csv", "--metrics", "magic"], "There is no metric 'magic': choose one of average-precision, "),
        (["t.csv", "--methods", ""], "There is no method to judge: name at least one, see isthmus methods"),
        (["t.csv", "--metrics", ","], "There is nothing to evaluate: name at least one method and one metric."),
        (["t.csv", "--option", "nib.steps=2"], "There are options for 'nib', which is not evaluated: add it to the m"),
        (["t.csv", "--option", "gradcam.magic=2"], "gradcam has no option 'magic': it has "),
        (["t.csv", "--option", "gradcam"], "--option takes METHOD.NAME=VALUE, such as nib.layer=9, not 'gradcam'."),
        (
            ["t.csv", "--metric-option", "points=3"],
            "--metric-option takes METRIC.NAME=VALUE, such as insertion.points=10, not 'points=3'.",
        ),
        (["t.csv", "--metric-option", "iou.x=1"], "There are options for 'iou', which is not measured: add it to the "),
        (["t.csv", "--captions", "worst"], "There is no choice 'worst' of captions: choose one of best, first, all, "),
        (["t.csv", "--replacement", "noise"], "There is no replacement 'noise': choose from black, blur, mean, remov"),
        (["t.csv", "--replacement", "blur"], "No replacement is for the text, not blur: add one of mean, zero, remov"),
        (["t.csv", "--ids", "gone.txt"], "The list of ids 'gone.txt' cannot be read: write one id a line, in UTF-8."),
        (["t.csv", "--ids", "t.csv"], "The dataset t.csv lacks 6 of the wanted ids, "),
        (["t.csv", "--image-column", "x"], ""),
        (["t.csv", "--streaming"], "The dataset 't.csv' is not of Hugging Face: leave config and streaming out."),
        (["t.csv", "--out", "t.csv"], "'t.csv' is a file: give --out a folder."),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    call: Any, table: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(table.parent)
    monkeypatch.setattr(explaining, "explain", None)
    given = arguments if "--methods" in arguments else [*arguments, "--methods", "gradcam"]
    code, printed, said = call("evaluate", *given)
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"isthmus: {sentence}")
    assert "Traceback" not in printed + said
    assert not Path("isthmus-out").exists()


def test_other_settings_in_the_same_folder_are_refused(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out"]
    assert call(*command)[0] == 0
    for change, named in (
        (["--seed", "1"], "sample, texts, seed"),
        (["--limit", "2"], "sample, samples, texts"),
        (["--batch-size", "3"], "batch size"),
        (["--text", "a dog"], "texts"),
    ):
        code, _, said = call(*command, *change)
        assert code == 1
        last = said.splitlines()[-1]
        assert last.endswith(f"holds a run with another {named}: give another --out, or --overwrite.")
    code, _, _ = call(*command, "--limit", "2", "--overwrite")
    assert code == 0
    assert len({key[1] for key in rows_of(tmp_path / "out")}) == 2


def test_another_option_of_a_method_is_refused_and_a_negative_seed_is_wrong_usage(
    call: Any, table: Path, tmp_path: Path
) -> None:
    command = ["evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out"]
    assert call(*command)[0] == 0
    code, _, said = call(*command, "--option", "gradcam.layer=1")
    assert code == 1
    assert said.splitlines()[-1].endswith(
        "holds a run with another setting of gradcam: give another --out, or --overwrite."
    )
    for name in ("evaluate", "reproduce"):
        code, printed, said = call(name, "table2" if name == "reproduce" else table, "--seed", "-1")
        assert code == 2
        assert "Traceback" not in printed + said


def test_a_method_on_fewer_pairs_is_told(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["evaluate", table, *QUICK, "--out", tmp_path / "out", "--methods"]
    assert call(*command, "gradcam")[0] == 0
    lost = next(path for path in table.parent.iterdir() if path.suffix != ".csv")
    whole = lost.read_bytes()
    lost.write_bytes(b"")
    code, _, said = call(*command, "chefer")
    pairs = len({key[1] for key in rows_of(tmp_path / "out")})
    assert code == 2
    assert f"chefer is measured on {pairs - 1} of {pairs} pairs: ask for it again, and those" in said
    assert f"- fewer pairs: chefer: {pairs - 1} of {pairs} pairs\n" in (tmp_path / "out" / "table.md").read_text(
        "utf-8"
    )
    lost.write_bytes(whole)
    code, _, said = call(*command, "chefer")
    assert code == 0
    assert "is measured on" not in said


def test_rows_of_one_picture_are_one_sample(call: Any, table: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    first, second = [path.name for path in sorted(table.parent.iterdir()) if path.suffix != ".csv"][:2]
    table.write_text(f"image,text\n{first},a dog\n{first},a cat\n{second},a bird\n", encoding="utf-8")
    assert call("evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out")[0] == 0
    rows = parquet.ParquetFile(tmp_path / "out" / "rows.parquet").read().to_pylist()
    assert {(row["pair"], row["sample"]) for row in rows} == {
        (first, first),
        (f"{first}#2", first),
        (second, second),
    }


def test_an_option_comes_with_a_metric_that_is_added(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["evaluate", table, "--methods", "gradcam", "--limit", 2, "--sides", "text", "--out", tmp_path / "out"]
    command += ["--oracle", "0", "--no-plots", "--metrics"]
    assert call(*command, "completeness")[0] == 0
    before = rows_of(tmp_path / "out")
    code, _, said = call(*command, "insertion", "--metric-option", "insertion.points=2")
    assert code == 0, said
    assert before.items() <= rows_of(tmp_path / "out").items()
    for options in (["--metric-option", "insertion.points=3"], []):
        code, _, said = call(*command, "insertion,completeness", *options)
        assert code == 1
        assert said.splitlines()[-1].endswith(
            "holds a run with another setting of insertion: give another --out, or --overwrite."
        )
    assert call(*command, "insertion,completeness", "--metric-option", "insertion.points=2")[0] == 0


def test_several_captions_of_a_picture_are_one_sample(call: Any, table: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    command = ["evaluate", table, "--text", "a dog", "--text", "a cat", "--captions", "all", "--methods", "gradcam"]
    code, _, said = call(*command, "--limit", 2, *QUICK, "--out", tmp_path / "out")
    assert code == 0, said
    found = parquet.ParquetFile(tmp_path / "out" / "rows.parquet").read()
    pairs = dict(zip(found.column("pair").to_pylist(), found.column("sample").to_pylist(), strict=True))
    assert len(pairs) == 4
    assert sorted(set(pairs.values())) == sorted(ids_in(tmp_path / "out"))
    assert all(pair.startswith(f"{sample}#text") for pair, sample in pairs.items())


def test_a_pair_that_fails_alone_is_listed_alone(call: Any, table: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real = explaining.explain

    def explain(model: Any, pictures: Any, texts: Any, **options: Any) -> Any:
        if TEXTS[2] in texts:
            raise ModelError("The scores are not finite: take another text.")
        return real(model, pictures, texts, **options)

    monkeypatch.setattr(explaining, "explain", explain)
    code, printed, _ = call("evaluate", table, "--methods", "gradcam", *QUICK, "--out", tmp_path / "out")
    assert code == 2
    assert "1 failed, listed in " in printed
    failures = [(row["id"], row["reason"]) for row in csv_of(tmp_path / "out" / "failures.csv")]
    assert failures == [("p2.png", "gradcam: The scores are not finite: take another text.")]
    assert len({key[1] for key in rows_of(tmp_path / "out") if key[2] == "gradcam"}) == 4


@pytest.mark.parametrize("library", ["pyarrow", "scipy"])
def test_a_missing_extra_is_told_before_anything_is_computed(
    call: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for name in (library, "pyarrow.parquet", "scipy.stats"):
        if name.split(".")[0] == library:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(explaining, "explain", None)
    told = f"isthmus: This needs {library}, which is not installed: pip install 'isthmus[evaluate]'."
    out = tmp_path / "out"
    for command in (["evaluate", table, "--methods", "gradcam"], ["reproduce", "table2", "--dataset-root", tmp_path]):
        code, printed, said = call(*command, "--out", out)
        assert code == 1
        assert said.splitlines()[-1] == told
        assert "Traceback" not in printed + said
        assert not out.exists()


def test_a_process_without_the_extra_is_one_line(table: Path, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not installed')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "isthmus", "evaluate", str(table), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "isthmus: This needs pyarrow, which is not installed: pip install 'isthmus[evaluate]'.\n"


def test_the_metrics_are_listed_with_what_they_need(call: Any) -> None:
    code, printed, _ = call("metrics")
    assert code == 0
    assert printed.splitlines()[0].split() == ["metric", "sides", "better", "unit", "needs", "what"]
    assert [line.split()[0] for line in printed.splitlines()[1:] if line[:1].strip()] == list(METRICS)
    assert "…" not in printed
    lines = {line.split()[0]: line for line in printed.splitlines()[1:] if line.strip()}
    assert "masks or boxes" in lines["pointing-game"]
    assert "swaps a word" in lines["swap-rank"]
    assert lines["deletion"].split()[1:4] == ["image+text", "lower", "points"]
    for name, one in METRICS.items():
        code, told, _ = call("metrics", name)
        assert code == 0
        assert told.startswith(f"{name}: {one.title}\n")
        assert f"described in: {one.paper}\n" in told
        assert all(variant in told for variant in one.variants)
    code, told, _ = call("metrics", "insertion", "iou")
    assert "options: first, score, replacement, normalised, points\n" in told
    assert "\niou: " in told
    code, _, said = call("metrics", "insertion", "magic")
    assert code == 1
    assert said.startswith("isthmus: There is no metric 'magic': choose one of ")


def test_the_datasets_are_listed_with_what_they_need(call: Any) -> None:
    code, printed, _ = call("datasets")
    assert code == 0
    assert {line.split()[0] for line in printed.splitlines()[1:] if line[:1].strip()} == set(DATASETS)
    assert "…" not in printed
    for name, one in DATASETS.items():
        code, told, _ = call("datasets", name)
        assert code == 0
        assert told.startswith(f"{name}: {one.title}\n")
        for fact in (one.paper, one.summary, one.licence, one.needs):
            assert fact in told
    code, _, said = call("datasets", "magic")
    assert code == 1
    assert said == f"isthmus: There is no dataset 'magic' by name: choose one of {', '.join(DATASETS)}.\n"


@pytest.mark.parametrize("command", ["evaluate", "reproduce", "axioms", "sanity", "metrics", "datasets"])
def test_every_command_explains_itself(call: Any, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, printed, said = call(command, "--help")
    assert (code, said) == (0, "")
    assert f"isthmus {command}" in printed
    if command in ("evaluate", "reproduce"):
        for option in ("--dataset-root", "--limit", "--out", "--seed", "--model", "--overwrite"):
            assert option in printed
    assert command in call("--help")[1]


def test_a_run_can_be_moved(call: Any, table: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A folder that was moved, with its dataset, goes on where it was."""
    command = ["--methods", "gradcam", *QUICK]
    assert call("evaluate", table, *command, "--out", tmp_path / "out")[0] == 0
    before = rows_of(tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    shutil.move(table.parent, tmp_path / "other")
    monkeypatch.setattr(explaining, "explain", None)
    assert call("evaluate", tmp_path / "other" / "t.csv", *command, "--out", tmp_path / "elsewhere")[0] == 0
    assert rows_of(tmp_path / "elsewhere") == before
