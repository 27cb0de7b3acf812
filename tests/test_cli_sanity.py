"""`isthmus sanity`: its figures are those of `isthmus.metrics.sanity`, tables are whole, errors are one line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import picture
from isthmus.cli.sanity import bundled
from isthmus.cli.sanity_run import CHECKS, CheckRow
from isthmus.cli.sanity_tables import tables_of, to_markdown
from isthmus.datasets import open_dataset, sampled
from isthmus.errors import ModelError
from isthmus.metrics import sanity
from isthmus.metrics.intervals import bootstrap_interval

TEXTS = ("a dog on the grass", "a cat and a bird", "two horses", "snow on a hill")
STEPS = ("--option", "nib.steps=2")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
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
    """Four pictures with a text each."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        picture(i).save(folder / f"p{i}.png")
    lines = [f'p{i}.png,"{text}"' for i, text in enumerate(TEXTS)]
    (folder / "t.csv").write_text("\n".join(["image,text", *lines]) + "\n", encoding="utf-8")
    return folder / "t.csv"


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """chefer cannot explain the model; hirescam fails when weights are drawn anew, after all else is done."""
    explain, draw = isthmus.explainer.explain, sanity.weight_randomisation

    def refuse(*arguments: Any, **options: Any) -> Any:
        if options["method"] == "chefer":
            raise ModelError("This model has no attention: take another method.")
        return explain(*arguments, **options)

    def fail(*arguments: Any, **options: Any) -> Any:
        if options["method"] == "hirescam":
            raise ModelError("The scores are not finite: take float32.")
        return draw(*arguments, **options)

    monkeypatch.setattr("isthmus.explainer.explain", refuse)
    monkeypatch.setattr(sanity, "explain", refuse)
    monkeypatch.setattr(sanity, "weight_randomisation", fail)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sanity.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def by_place(rows: list[dict[str, str]]) -> dict[tuple[str, ...], dict[str, str]]:
    found = {tuple(row[name] for name in ("check", "method", "side", "block", "other")): row for row in rows}
    assert len(found) == len(rows)
    return found


def expected(model: Any, table: Path, *, seed: int, cascading: bool) -> dict[tuple[str, ...], tuple[float, ...]]:
    """What the functions give, called one by one: the value, and the interval of a mean."""
    samples, _ = sampled(open_dataset(table), seed=seed)
    images, texts = [sample.image for sample in samples], [sample.texts[0] for sample in samples]
    found: dict[tuple[str, ...], tuple[float, ...]] = {}

    def mean(values: Any) -> tuple[float, ...]:
        return float(np.mean(values)), *bootstrap_interval(values, seed=seed)

    for name, options in (("nib", {"steps": 2}), ("gradcam", {})):
        given = {"method": name, "options": options}
        drawn = sanity.weight_randomisation(model, images, texts, cascading=cascading, seed=seed, **given)
        found |= {("randomisation", name, row.side, str(row.layer), ""): mean(row.spearman) for row in drawn}
        swaps = sanity.caption_swap(model, images, texts, **given)
        for side in ("image", "text"):
            found["caption-swap", name, side, "", ""] = mean([row.spearman for row in swaps if row.side == side])
        for check, function in (("batch", sanity.batch_invariance), ("repeat", sanity.repeat_stability)):
            for side, values in function(model, images, texts, **given).items():
                found[check, name, side, "", ""] = (max(values),)
    maps = {
        "nib": isthmus.explain(model, images, texts, method="nib", steps=2),
        "gradcam": isthmus.explain(model, images, texts, method="gradcam"),
    }
    matrices = sanity.agreement(maps)
    for side in ("image", "text"):
        for i, name in enumerate(maps):
            for j, other in enumerate(maps):
                found["agreement", name, side, "", other] = (float(getattr(matrices, side)[i, j]),)
    return found


@pytest.mark.parametrize(("more", "cascading"), [([], True), (["--single"], False)])
def test_figures_are_those_of_the_functions(
    call: Any, tiny: Any, table: Path, tmp_path: Path, more: list[str], cascading: bool
) -> None:
    command = ["sanity", table, "--methods", "nib,gradcam", *STEPS, "--seed", 3, *more]
    code, printed, said = call(*command, "--out", tmp_path / "out")
    assert code == 0, said
    found = by_place(rows_of(tmp_path / "out"))
    wanted = expected(tiny, table, seed=3, cascading=cascading)
    assert set(found) == set(wanted)
    for key, figures in wanted.items():
        row = found[key]
        assert row["pairs"] == "4"
        own = [float(row[name]) for name in ("value", "low", "high")[: len(figures)]]
        assert own == pytest.approx(figures, rel=1e-9, abs=1e-12), key
        assert (row["low"] == "") == (key[0] in ("batch", "repeat"))
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) + 1e-12
            assert float(row["high"]) >= float(row["value"]) - 1e-12
    assert list(dict.fromkeys(key[0] for key in found)) == list(CHECKS)
    assert ("one block alone" in printed) == (not cascading)


def test_single_draws_differ_where_blocks_lie_behind(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["sanity", table, "--methods", "rollout", "--checks", "randomisation"]
    assert call(*command, "--out", tmp_path / "a")[0] == call(*command, "--single", "--out", tmp_path / "b")[0] == 0
    a, b = (by_place(rows_of(tmp_path / name)) for name in "ab")
    last, first = (("randomisation", "rollout", "image", block, "") for block in ("1", "0"))
    assert a[last] == b[last]  # nothing lies behind the last block
    assert a[first]["value"] != b[first]["value"]


def test_it_runs_without_data(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the bundled pictures and model; twice the same, and the files are where it says."""
    monkeypatch.chdir(tmp_path)
    command = ["sanity", "--methods", "gradcam,rollout", "--limit", 2, "--blocks=-1,0"]
    code, printed, said = run(*command)
    assert code == 0, said
    assert "Traceback" not in said
    assert printed.startswith("mini on 2 pairs of the bundled pictures, seed 0\n")
    assert printed.endswith("sanity.csv, sanity.md\n")
    folder = tmp_path / "isthmus-out" / "sanity"
    assert {path.name for path in folder.iterdir()} == {"sanity.csv", "sanity.md"}
    found = by_place(rows_of(folder))
    assert {key[3] for key in found if key[0] == "randomisation"} == {"11", "0"}
    for side in ("image", "text"):
        assert float(found["caption-swap", "rollout", side, "", ""]["value"]) == pytest.approx(1)  # sees no partner
        assert float(found["caption-swap", "gradcam", side, "", ""]["value"]) < 0.9
        assert float(found["batch", "gradcam", side, "", ""]["value"]) < 1e-4
        assert float(found["repeat", "gradcam", side, "", ""]["value"]) == 0
        assert float(found["randomisation", "gradcam", side, "0", ""]["value"]) < 0.7
    assert run(*command, "--checks", "randomisation,caption-swap")[0] == 0
    again = by_place(rows_of(folder))
    assert again == {key: row for key, row in found.items() if key[0] in ("randomisation", "caption-swap")}


def test_bundled_pictures_have_captions_to_choose_from() -> None:
    samples, failed = sampled(bundled())
    assert len(samples) == 18
    assert not failed
    assert all(sample.image.is_file() and len(sample.texts) == 32 for sample in samples)
    assert {sample.texts for sample in sampled(bundled(["a dog"]))[0]} == {("a dog",)}


def test_tables_are_whole_on_a_narrow_terminal(
    call: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    names = ["attention-gradient", "attention-x-gradient", "gem", "input-x-gradient", "rollout"]
    code, printed, _ = call(
        "sanity", table, "--methods", ",".join(names), "--checks", "agreement,randomisation", "--out", tmp_path / "out"
    )
    assert code == 0
    assert "…" not in printed
    lines = printed.splitlines()
    rows = by_place(rows_of(tmp_path / "out"))
    start = lines.index("Weights drawn anew")
    assert lines[start + 1].split() == ["side", "block", *names]
    assert [tuple(line.split()[:2]) for line in lines[start + 2 : start + 6]] == [
        *(("image", "1"), ("image", "0"), ("text", "1"), ("text", "0"))
    ]
    cells = lines[start + 2].replace(" ±", "±").split()[2:]
    for name, cell in zip(names, cells, strict=True):
        row = rows["randomisation", name, "image", "1", ""]
        assert float(cell.split("±")[0]) == pytest.approx(float(row["value"]), abs=0.0051)
        half = (float(row["high"]) - float(row["low"])) / 2
        assert float(cell.split("±")[1]) == pytest.approx(half, abs=0.0051)
    assert lines[start + 4].replace(" ±", "±").split()[4] == "-"  # gem has no text side
    assert lines.index("Agreement between methods") > start
    assert not {"Captions swapped", "Batch against alone", "Two equal calls"} & set(lines)


def test_the_markdown_has_the_same_cells(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["sanity", table, "--methods", "gradcam,gem", "--out", tmp_path / "out"]
    code, printed, _ = call(*command)
    assert code == 0
    text = (tmp_path / "out" / "sanity.md").read_text(encoding="utf-8")
    told = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {" ".join(line.split()) for line in printed.splitlines()}
    assert len(told) == 5 + 4 + 3 * 3 + 3  # headers; blocks of two sides; gradcam on two, gem on one; agreement
    for cells in told:
        assert " ".join(cells) in shown
    assert text.count("## ") == 5
    assert "Adebayo et al." in text


def test_a_method_that_refuses_is_passed_over(call: Any, table: Path, tmp_path: Path, refusing: None) -> None:
    command = ["sanity", table, "--out", tmp_path / "out", "--methods"]
    code, printed, said = call(*command, "chefer,gradcam,hirescam")
    assert code == 2
    assert "chefer has no result: This model has no attention: take another method.\n" in said
    assert "hirescam has no result: The scores are not finite: take float32.\n" in said
    assert {row["method"] for row in rows_of(tmp_path / "out")} == {"gradcam"}  # nor are there halves of a method
    assert {row["check"] for row in rows_of(tmp_path / "out")} == set(CHECKS) - {"agreement"}
    told = (tmp_path / "out" / "sanity.md").read_text(encoding="utf-8")
    assert told.endswith(
        "- `chefer` has no result: This model has no attention: take another method.\n"
        "- `hirescam` has no result: The scores are not finite: take float32.\n"
    )
    command[3] = tmp_path / "none"
    code, printed, said = call(*command, "hirescam,chefer")
    assert code == 1
    assert said.splitlines()[-1] == "isthmus: The scores are not finite: take float32."
    assert "Traceback" not in printed + said
    assert not (tmp_path / "none").exists()


def test_sides_that_a_method_lacks(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["sanity", table, "--checks", "repeat", "--sides", "text", "--out", tmp_path / "out", "--methods"]
    code, _, said = call(*command, "gem,gradcam")
    assert code == 2
    assert "gem has no result: gem explains the image alone: choose another --sides.\n" in said
    assert [(row["method"], row["side"]) for row in rows_of(tmp_path / "out")] == [("gradcam", "text")]
    code, _, said = call(*command, "gem")
    assert code == 1
    assert said.splitlines()[-1] == "isthmus: gem explains the image alone: choose another --sides."


def test_bad_records_are_counted_and_listed(call: Any, table: Path, tmp_path: Path) -> None:
    (table.parent / "p1.png").write_bytes(b"")
    with table.open("a", encoding="utf-8") as stream:
        stream.write("p0.png,\n")
        stream.write("p2.png," + "a dog " * 100 + "\n")  # more than the model reads: it is cut
    command = ["sanity", table, "--methods", "gradcam", "--checks", "repeat", "--out", tmp_path / "out"]
    code, printed, said = call(*command)
    assert code == 2
    assert "2 failed:\n" in said
    assert "  p1.png: " in printed
    assert {row["pairs"] for row in rows_of(tmp_path / "out")} == {"4"}
    for path in table.parent.glob("*.png"):
        path.write_bytes(b"")
    code, _, said = call(*command[:-1], tmp_path / "none")
    assert code == 1
    assert said.splitlines()[-1].startswith("isthmus: None of the ")
    assert not (tmp_path / "none").exists()


def test_checks_that_one_pair_cannot_serve_are_told_and_the_others_made(call: Any, table: Path, tmp_path: Path) -> None:
    code, _, said = call("sanity", table, "--methods", "gradcam,chefer", "--limit", "1", "--out", tmp_path / "out")
    assert code == 0, said
    assert "Not checked: caption-swap. Swapping captions needs at least two that differ: raise --limit.\n" in said
    assert "Not checked: batch. A batch needs at least two pairs: raise --limit.\n" in said
    assert {row["check"] for row in rows_of(tmp_path / "out")} == {"randomisation", "repeat", "agreement"}


def test_a_block_that_is_not_there_is_told_before_anything_is_explained(
    call: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isthmus.explainer.explain", None)
    code, _, said = call("sanity", table, "--methods", "gradcam", "--blocks", "0,99")
    assert code == 1
    assert said.splitlines()[-1] == "isthmus: The image tower has no block 99: give 0 to 1."


def test_pairs_of_one_picture_are_drawn_together(call: Any, table: Path, tmp_path: Path) -> None:
    command = ["sanity", table, "--text", "a dog", "--text", "two cats", "--captions", "all", "--methods", "gradcam"]
    command += ["--checks", "caption-swap", "--sides", "image"]
    code, _, said = call(*command, "--limit", 1, "--out", tmp_path / "one")
    assert code == 0, said
    (row,) = rows_of(tmp_path / "one")
    assert (row["pairs"], row["low"], row["high"]) == ("2", "", "")  # of one picture there is no interval
    assert call(*command, "--limit", 2, "--out", tmp_path / "two")[0] == 0
    (row,) = rows_of(tmp_path / "two")
    assert row["pairs"] == "4"
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_a_map_that_is_flat_has_no_rank_correlation(
    call: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanity, "spearman", lambda *_: None)
    code, printed, _ = call("sanity", table, "--methods", "gradcam,rollout", "--out", tmp_path / "out")
    assert code == 0
    rows = [row for row in rows_of(tmp_path / "out") if row["check"] not in ("batch", "repeat")]
    assert len(rows) == 2 * 2 * (2 + 1 + 2)
    assert {(row["value"], row["low"], row["high"], row["pairs"]) for row in rows} == {("", "", "", "0")}
    assert printed.count("n/a") == len(rows)


def test_cells_by_hand() -> None:
    rows = [
        CheckRow("randomisation", "a", "image", -0.004, -0.204, 0.196, 5, 11),
        CheckRow("randomisation", "a", "image", 0.5, None, None, 1, 2),
        CheckRow("randomisation", "b", "text", 1.0, 1.0, 1.0, 5, 11),
        CheckRow("batch", "a", "image", 3e-7, pairs=5),
        CheckRow("agreement", "a", "image", 1.0, 1.0, 1.0, 5, other="a"),
        CheckRow("agreement", "a", "image", None, other="b"),
        CheckRow("agreement", "b", "image", -0.25, -0.5, 0.0, 5, other="a"),
    ]
    drawn, batch, agreed = tables_of(rows)
    assert drawn.header == ("side", "block", "a", "b")
    assert drawn.rows == (
        ("image", "11", "0.00 ±0.20", "-"),
        ("image", "2", "0.50", "-"),
        ("text", "11", "-", "1.00 ±0.00"),
    )
    assert batch.rows == (("a", "image", "3e-07"),)
    assert agreed.header == ("side", "method", "a", "b")
    assert agreed.rows == (("image", "a", "1.00", "-0.25 ±0.25"), ("image", "b", "n/a", "-"))
    assert "of a block and of all behind it" in drawn.legend
    assert "of one block alone" in tables_of(rows, cascading=False)[0].legend
    assert to_markdown("here", [batch], {"c": "It cannot."}).splitlines()[:6] == [
        *("here.", "", "## Batch against alone", "", "| method | side | worst difference |", "|---|---|---:|")
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.csv"], "There is no dataset 'gone.csv': "),
        (["flickr8k"], "The dataset flickr8k needs root (--dataset-root), a folder with "),
        (["t.csv", "--methods", "magic"], "There is no method 'magic': choose one of "),
        (["t.csv", "--methods", ","], "There is no method to check: name at least one, see isthmus methods."),
        (["t.csv", "--checks", "magic"], "There is no check 'magic': choose among randomisation, caption-swap, batch"),
        (["t.csv", "--checks", ","], "There is no check to make: choose among "),
        (["t.csv", "--checks", "agreement"], "Agreement is one between methods: name at least two."),
        (["t.csv", "--blocks", "x"], "--blocks takes whole numbers between commas, such as 11,6,0, not 'x'."),
        (["t.csv", "--blocks", ","], "There is no block to draw anew: name at least one in --blocks."),
        (["t.csv", "--blocks", "2"], "The image tower has no block 2: give 0 to 1."),
        (["t.csv", "--option", "nib.steps=2"], "There are options for 'nib', which is not "),
        (["t.csv", "--option", "gradcam.magic=2"], "gradcam has no option 'magic': it has "),
        (["t.csv", "--option", "gradcam"], "--option takes METHOD.NAME=VALUE"),
        (["t.csv", "--option", "gradcam.layer=9"], "layer=9 is out of range"),
        (["t.csv", "--captions", "worst"], "There is no choice 'worst' of captions: choose one of best, first, all"),
        (["t.csv", "--limit", "1", "--checks", "batch"], "A batch needs at least two pairs: raise --limit."),
        (["t.csv", "--blocks", "0,99"], "The image tower has no block 99: give 0 to 1."),
        (
            ["t.csv", "--text", "a dog", "--checks", "caption-swap"],
            "Swapping captions needs at least two that differ: ",
        ),
        (["t.csv", "--ids", "gone.txt"], "The list of ids 'gone.txt' cannot be read: "),
        (["--split", "val"], "--dataset-root, --split, --streaming and columns are for a DATASET: name one."),
        (["t.csv", "--out", "t.csv"], "'t.csv' is a file: give --out a folder."),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    call: Any, table: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(table.parent)
    given = arguments if "--methods" in arguments else [*arguments, "--methods", "gradcam"]
    code, printed, said = call("sanity", *given)
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"isthmus: {sentence}")
    assert last.endswith(".")
    assert "Traceback" not in printed + said
    assert not Path("isthmus-out").exists()


def test_wrong_usage_exits_2(call: Any) -> None:
    for arguments in (["--limit", "0"], ["--sides", "none"], ["a", "b"], ["--seed", "x"], ["--seed", "-1"]):
        assert call("sanity", *arguments)[0] == 2


def test_only_what_has_intervals_needs_scipy(
    call: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    command = ["sanity", table, "--methods", "gradcam", "--out", tmp_path / "out"]
    code, _, said = call(*command)
    assert code == 1
    assert said == "isthmus: This needs scipy, which is not installed: pip install 'isthmus[evaluate]'.\n"
    code, _, said = call(*command, "--checks", "repeat,batch")
    assert code == 0, said
    assert [row["check"] for row in rows_of(tmp_path / "out")] == ["batch", "batch", "repeat", "repeat"]


def test_the_command_explains_itself(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, printed, said = call("sanity", "--help")
    assert (code, said) == (0, "")
    for option in ("--methods", "--checks", "--single", "--limit", "--seed", "--model", "--out", "--dataset-root"):
        assert option in printed
    assert "sanity" in call("--help")[1]
