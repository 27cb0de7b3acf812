"""`isthmus compare`: the table, the files, one line for every error, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import isthmus
from conftest import EXAMPLES

DOG = str(EXAMPLES / "dog.jpg")


def test_it_prints_a_table_and_writes_files(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--option", "chefer.start-layer=-2", "--option", "gradcam.relu=false"]
    arguments = ["--methods", "hirescam, gradcam,chefer", *options, "--out", out]
    code, printed, said = run("compare", DOG, "a dog in [bold]", *arguments)
    assert code == 0
    lines = printed.splitlines()
    assert max(map(len, lines)) <= max(80, len(str(out)) + 20)
    assert [line.split()[0] for line in lines[1:4]] == ["hirescam", "gradcam", "chefer"]
    data = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in data["rows"]] == ["hirescam", "gradcam", "chefer"]
    for row in data["rows"]:
        line = next(line for line in lines if line.startswith(row["method"]))
        for part in (f"{row['forward']:g} + {row['backward']:g}", f"{row['seconds']:.2f} s"):
            assert part in line
        assert f"{row['agreement_image']:+.2f}" in line
        strongest = max(row["explanation"]["text"]["words"], key=lambda word: abs(word["score"]))
        assert f"{strongest['text']} {'+' if strongest['score'] > 0 else '-'}" in line
    assert "correlation with hirescam" in " ".join(printed.split())
    assert {p.name for p in out.iterdir()} == {"index.html", "comparison.png", "comparison.json"}
    assert "index.html, comparison.png, comparison.json" in printed
    assert "for demonstration and tests" in said
    assert "3/3" in said
    given = [row["explanation"]["provenance"]["options"] for row in data["rows"]]
    assert given == [{}, {"relu": False}, {"start_layer": -2}]


def test_options_reach_every_method(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    arguments = ["--methods", "hirescam", "--against", "a cat", "--against", "a bear", "--sides", "image", "--truncate"]
    code, _, said = run("compare", DOG, "dog " * 40, *arguments, "--option", "hirescam.preset=paper", "--open")
    assert code == 0
    folder = tmp_path / "isthmus-out" / "dog-compared"
    one = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["rows"][0]["explanation"]
    assert one["text"] is None
    assert one["image"]["target"].endswith("rather than with the mean of 2 ('a cat', 'a bear')")
    assert one["provenance"]["preset"] == "paper"
    assert "cut from 42 to 32 tokens" in " ".join(said.split())
    assert opened == [(folder / "index.html").resolve().as_uri()]


def test_all_methods_and_those_of_the_default(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: isthmus.METHODS[name] for name in ("hirescam", "gradcam")}
    monkeypatch.setattr("isthmus.methods.registry.METHODS", few)
    for arguments, names in ((["--methods", "all"], ["gradcam", "hirescam"]), ([], ["gradcam"])):
        code, _, _ = run("compare", DOG, "a dog", *arguments, "--out", tmp_path)
        assert code == 0
        rows = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))["rows"]
        assert [row["method"] for row in rows] == names


def test_a_method_that_refuses_is_told_below_the_table(run: Any, tmp_path: Path) -> None:
    arguments = ["--methods", "gradcam,hirescam", "--option", "gradcam.layer=99", "--out", tmp_path]
    code, printed, _ = run("compare", DOG, "a dog", *arguments)
    assert code == 0
    assert "gradcam has no result: layer=99 is out of range" in printed
    assert "correlation with hirescam" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "a dog"], "There is no picture 'missing.jpg': check the path."),
        ([str(EXAMPLES), "a dog"], "is a folder: give the path of a picture in it."),
        ([" ", "a dog"], "The path of the picture is empty"),
        ([DOG], "There is no text: isthmus compare PICTURE TEXT."),
        ([DOG, ""], "The text is empty"),
        ([DOG, "dog " * 40], "42 tokens"),
        ([DOG, "a dog", "--methods", "nib,magic"], "There is no method 'magic': choose one of"),
        ([DOG, "a dog", "--methods", ","], "There is no method to compare"),
        ([DOG, "a dog", "--methods", "nib", "--option", "nib.magic=1"], "nib has no option 'magic'"),
        ([DOG, "a dog", "--methods", "nib", "--option", "chefer.start_layer=1"], "options for 'chefer', which is not"),
        ([DOG, "a dog", "--option", "layer=1"], "--option takes METHOD.NAME=VALUE, such as nib.layer=9, not 'layer=1'"),
        ([DOG, "a dog", "--option", "nib.layer"], "--option takes METHOD.NAME=VALUE"),
        ([DOG, "a dog", "--methods", "nib", "--option", "nib.layer=99"], "layer=99 is out of range"),
        ([DOG, "a dog", "--model", "no/such"], "No model 'no/such'"),
    ],
)
def test_errors_are_one_line_and_exit_1(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, said = run("compare", *arguments)
    assert code == 1
    assert message in said
    assert "Traceback" not in printed + said
    assert [line for line in said.splitlines() if line.startswith("isthmus: ")] == [said.splitlines()[-1]]
    assert not (tmp_path / "isthmus-out").exists()


def test_a_full_disk_and_an_interrupt(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.export.to_json", full)
    code, _, said = run("compare", DOG, "a dog", "--methods", "hirescam", "--out", tmp_path / "out")
    assert code == 1
    assert "No space left on device" in said
    assert not (tmp_path / "out").exists()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.comparison.explain", stop)
    code, _, said = run("compare", DOG, "a dog", "--methods", "hirescam", "--out", tmp_path / "out")
    assert code == 130
    assert "isthmus: interrupted." in said


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from isthmus.cli import main\ntry: main(['compare', '--help'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--methods" in found.stdout


def test_a_terminal_of_plain_letters_gets_numbers_for_others(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "isthmus", "compare", DOG, "a d\u00f6g on the \U0001f33f grass", "--methods"]
    done = subprocess.run(
        [*command, "gradcam,hirescam", "--out", str(tmp_path)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Written to" in done.stdout


def test_a_picture_may_be_an_options_value_and_a_file_is_no_folder(run: Any, tmp_path: Path) -> None:
    bear = EXAMPLES / "bear.jpg"
    arguments = ["compare", DOG, "a dog", "--methods", "occlusion", "--sides", "image"]
    code, _, said = run(*arguments, "--option", f"occlusion.replacement={bear}", "--out", tmp_path / "out")
    assert code == 0, said
    shown = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert "bear" in str(shown["rows"][0])
    (tmp_path / "file").touch()
    code, _, said = run(*arguments, "--out", tmp_path / "file")
    assert code == 1
    assert "is a file: give --out a folder" in said
