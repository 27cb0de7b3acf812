"""The command line: exit codes, one line for every error, folders that are gone on with."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import isthmus
from conftest import EXAMPLES, picture
from isthmus.cli import many
from isthmus.explanation import Explanation
from test_pictures import bad_files

QUICK = ["--steps", "2", "--layer", "10"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures with texts beside them."""
    source = tmp_path / "pictures"
    source.mkdir()
    for i in range(7):
        picture(i).save(source / f"p{i}.png")
        (source / f"p{i}.txt").write_text(f"a dog and {i} cats")
    return source


def test_one_text_prints_a_table_and_writes_files(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, said = run("explain", EXAMPLES / "dog.jpg", "a [bold]dog on the grass", *QUICK, "--out", out)
    assert code == 0
    assert "similarity" in printed
    assert "a [bold]dog" in printed  # markup is text
    assert "strongest words" in printed
    assert "+0." in printed or "-0." in printed
    assert max(map(len, printed.splitlines())) <= max(80, len(str(out)) + 40)
    names = {"index.html", *(f"explanation.{kind}" for kind in ("png", "svg", "html", "json", "npz"))}
    assert {p.name for p in out.iterdir()} == names
    assert all(name in printed for name in names)
    assert "for demonstration and tests" in said
    one = Explanation.load(out)
    assert one.image.options["steps"] == 2
    assert one.image.options["layer"] == 10


def test_several_texts_get_a_folder_each_and_one_page(run: Any, tmp_path: Path) -> None:
    code, printed, _ = run("explain", EXAMPLES / "dog.jpg", "a dog", "a cat", *QUICK, "--out", tmp_path)
    assert code == 0
    assert "prob." in printed
    assert Explanation.load(tmp_path / "2").caption == "a cat"
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<article") == 2
    assert (tmp_path / "index.png").stat().st_size > 1000


def test_options_reach_the_method(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    arguments = ["--against", "a cat", "--layer", "0.75", "--steps", "auto", "--tolerance", "0.2", "--closed", "floor"]
    code, _, _ = run("explain", EXAMPLES / "dog.jpg", "a dog", *arguments, "--open", "--out", tmp_path)
    assert code == 0
    one = Explanation.load(tmp_path)
    assert one.image.target == "cosine with 'a dog' rather than with 'a cat'"
    assert one.image.options["layer"] == 9
    assert one.image.options["rule"] == "adaptive"
    assert one.image.options["tolerance"] == 0.2
    assert one.image.options["closed"] == "floor"
    assert opened == [(tmp_path / "index.html").resolve().as_uri()]
    code, _, _ = run(
        "explain", EXAMPLES / "dog.jpg", "a dog", "--preset", "paper", "--sides", "image", "--out", tmp_path
    )
    assert code == 0
    assert Explanation.load(tmp_path).image.published is not None
    assert Explanation.load(tmp_path).text is None


def test_notes_are_printed(run: Any, tmp_path: Path) -> None:
    code, _, said = run("explain", EXAMPLES / "dog.jpg", "dog " * 40, "--truncate", *QUICK, "--out", tmp_path)
    assert code == 0
    assert "cut from 42 to 32 tokens" in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "a dog"], "There is no picture 'missing.jpg': check the path."),
        (["dog.jpg"], "There is no text: isthmus explain PICTURE TEXT."),
        (["dog.jpg", ""], "The text is empty"),
        (["dog.jpg", "dog " * 40], "42 tokens"),
        (["dog.jpg", "a dog", "--layer", "99"], "layer=99 is out of range"),
        (["dog.jpg", "a dog", "--layer", "top"], "--layer takes a whole number"),
        (["dog.jpg", "a dog", "--steps", "many"], "--steps takes a whole number"),
        (["dog.jpg", "a dog", "--method", "magic"], "no method 'magic'"),
        (["dog.jpg", "a dog", "--rule", "magic"], "no rule 'magic'"),
        (["dog.jpg", "a dog", "--preset", "magic"], "no preset 'magic'"),
        (["dog.jpg", "a dog", "--model", "no/such"], "No model 'no/such'"),
        (["https://example.org/a.jpg", "a dog"], "URLs are not fetched"),
        (["nothing.csv"], "check the path"),
    ],
)
def test_errors_are_one_line_and_exit_1(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    shutil.copy(EXAMPLES / "dog.jpg", tmp_path / "dog.jpg")
    monkeypatch.chdir(tmp_path)
    code, printed, said = run("explain", *arguments)
    assert code == 1
    assert message in said
    assert "Traceback" not in printed + said
    assert [line for line in said.splitlines() if line.startswith("isthmus: ")] == [said.splitlines()[-1]]
    assert not (tmp_path / "isthmus-out").exists()


def test_bad_pictures_are_one_line_each(run: Any, tmp_path: Path) -> None:
    for name in bad_files(tmp_path):
        if name == "folder.png":
            continue
        code, _, said = run("explain", tmp_path / name, "a dog", "--out", tmp_path / "out")
        assert code == 1
        assert said.startswith("isthmus: ")
        assert len(said.splitlines()) == 1


def test_wrong_usage_exits_2(run: Any) -> None:
    assert run("explain")[0] == 2
    assert run("explain", "a.png", "b", "--closed", "ajar")[0] == 2
    assert run("fly")[0] == 2


def test_a_full_disk_is_one_line(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.export.to_json", full)
    code, _, said = run("explain", EXAMPLES / "dog.jpg", "a dog", *QUICK, "--out", tmp_path / "out")
    assert code == 1
    assert "No space left on device" in said
    assert "Traceback" not in said


def test_help_and_version_need_no_torch() -> None:
    for arguments in (["--help"], ["--version"], ["explain", "--help"], ["--show-completion"]):
        code = (
            f"import sys; from isthmus.cli import main\ntry: main({arguments!r})\n"
            "except SystemExit as e: assert not e.code or 'completion' in sys.argv[-1], e.code\n"
            "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    assert (
        subprocess.run(
            [sys.executable, "-m", "isthmus", "--version"], check=True, capture_output=True, text=True
        ).stdout
        == f"isthmus {isthmus.__version__}\n"
    )


def test_lists(run: Any) -> None:
    code, printed, _ = run("methods")
    assert code == 0
    for part in ("nib", "clip-surgery", "2 + n", "Table 1", "Table 8", "6204 + 0", "12 + 10"):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 96
    code, printed, _ = run("methods", "nib", "rise")
    assert code == 0
    for part in ("Narrowing Information Bottleneck", "2502.14889", "steps", "preset paper", "joint maps", "seeded"):
        assert part in printed
    code, _, said = run("methods", "nix")
    assert code == 1
    assert said.startswith("isthmus: There is no method 'nix': choose one of ")
    code, printed, _ = run("models")
    assert code == 0
    assert printed.startswith("mini")
    assert "Any dual encoder of transformers" in printed
    assert "--model open_clip:" in printed


def test_models_lists_cached_dual_encoders(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"my-clip": "clip", "my-siglip": "siglip", "my-align": "align", "bert": "bert", "none": None, "new": "new"}
    for name, kind in ((f"models--me--{name}", kind) for name, kind in kinds.items()):
        snapshot = tmp_path / name / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (tmp_path / name / "refs").mkdir()
        (tmp_path / name / "refs" / "main").write_text("abc")
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
    from huggingface_hub import scan_cache_dir

    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: scan_cache_dir(tmp_path))
    _, printed, _ = run("models")
    assert [name for name in kinds if f"me/{name}" in printed] == ["my-clip", "my-siglip", "my-align"]


def test_doctor(run: Any, monkeypatch: pytest.MonkeyPatch, mini: Any) -> None:
    code, printed, _ = run("doctor")
    assert code == 0
    for part in ("torch", "transformers", "cpu", "hub cache", f"weights {mini.revision}", "Isthmus is ready"):
        assert part in printed
    from isthmus.cli import checks

    monkeypatch.setattr(checks, "_PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr("os.access", lambda *_: False)
    code, printed, _ = run("doctor")
    assert code == 1
    assert "Fix: pip install no-such-package" in printed
    assert "cannot be written" in printed


def test_doctor_names_a_broken_model(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise isthmus.IsthmusError("cut off")

    monkeypatch.setattr("isthmus.explainer.load", broken)
    code, printed, _ = run("doctor")
    assert code == 1
    assert "cut off" in printed
    assert "pip install --force-reinstall" in printed


def results(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_is_explained(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = run("explain", folder, *QUICK, "--out", out, "--batch-size", "3")
    assert code == 0
    assert "7 explained" in printed
    rows = results(out)
    assert [row["id"] for row in rows] == [f"p{i}.png" for i in range(7)]
    for row in rows:
        one = Explanation.load(out / row["folder"])
        assert float(row["similarity"]) == one.similarity
        assert row["text"] == one.caption
    assert not (out / "failures.csv").exists()


def test_a_folder_gets_a_page_with_links(run: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (folder / "p0.txt").write_text("<b>bold</b>\na cat")
    out = tmp_path / "out"
    assert run("explain", folder, *QUICK, "--sides", "text", "--out", out, "--open")[0] == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert opened == [(out / "index.html").resolve().as_uri()]
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    links = re.findall(r"(?:href|src)='([^']+)'", page)
    assert len(links) == 16
    assert all((out / link).is_file() for link in links)


def test_a_folder_goes_past_what_is_bad_and_exits_2(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (folder / "p2.png").write_bytes((folder / "p2.png").read_bytes()[:500])
    (folder / "p3.txt").write_text("dog " * 50)
    (folder / "p4.txt").unlink()
    code, printed, _ = run("explain", folder, *QUICK, "--out", out, "--batch-size", "4")
    assert code == 2
    assert "4 explained" in printed
    assert "3 failed" in printed
    with (out / "failures.csv").open(encoding="utf-8", newline="") as stream:
        failed = {row["id"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(failed) == {"p2.png", "p3.png", "p4.png"}
    assert "damaged or cut off" in failed["p2.png"]
    assert "52 tokens" in failed["p3.png"]
    assert "It has no text" in failed["p4.png"]
    assert {row["id"] for row in results(out)} == {"p0.png", "p1.png", "p5.png", "p6.png"}


@pytest.mark.parametrize("killed", ["computing", "saving"])
def test_an_interrupted_folder_goes_on_and_loses_nothing(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    out, calls = tmp_path / "out", []
    explain, save = many.explain, Explanation.save

    def stop_computing(*a: Any, **k: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return explain(*a, **k)

    def stop_saving(self: Any, folder: Any, **k: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return save(self, folder, **k)

    if killed == "computing":
        monkeypatch.setattr(many, "explain", stop_computing)
    else:
        monkeypatch.setattr(Explanation, "save", stop_saving)
    arguments = ["explain", folder, *QUICK, "--out", out, "--batch-size", "2"]
    code, printed, _ = run(*arguments)
    assert code == 130
    count = 4 if killed == "computing" else 3
    assert f"Interrupted: {count} written" in printed
    assert "Run the same command again to go on" in printed
    assert len(results(out)) == count
    monkeypatch.setattr(many, "explain", explain)
    monkeypatch.setattr(Explanation, "save", save)
    with (out / "results.csv").open("a", encoding="utf-8") as stream:
        stream.write("p9.png,cut of")  # as a killed process may leave it
    code, printed, _ = run(*arguments)
    assert code == 0
    assert f"{7 - count} explained, {count} already there" in printed
    assert sorted(row["id"] for row in results(out)) == [f"p{i}.png" for i in range(7)]
    assert all(Explanation.load(out / row["folder"]).caption == row["text"] for row in results(out))


def test_a_saved_result_that_was_not_listed_is_listed_again(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["explain", folder, *QUICK, "--out", out]
    run(*arguments)
    lines = (out / "results.csv").read_text(encoding="utf-8").splitlines()
    (out / "results.csv").write_text("\n".join(lines[:3]) + "\n", encoding="utf-8")
    code, printed, _ = run(*arguments)
    assert code == 0
    assert "0 explained, 7 already there" in printed
    assert sorted((out / "results.csv").read_text(encoding="utf-8").splitlines()) == sorted(lines)


def test_results_of_other_options_are_not_mixed(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", folder, *QUICK, "--out", out)[0] == 0
    code, _, said = run("explain", folder, "--steps", "3", "--layer", "10", "--out", out)
    assert code == 1
    assert "or another model: give another --out, or --overwrite" in said
    code, printed, _ = run("explain", folder, "--steps", "3", "--layer", "10", "--out", out, "--overwrite")
    assert code == 0
    assert "7 explained" in printed
    assert len(results(out)) == 7
    assert Explanation.load(out / "p0.png").image.options["steps"] == 3


def test_a_table_with_several_texts(run: Any, folder: Path, tmp_path: Path) -> None:
    table = folder / "set.jsonl"
    rows = [{"image": "p0.png", "caption": ["a dog", "a cat"]}, {"image": "gone.png", "caption": "a dog"}]
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = tmp_path / "out"
    code, printed, _ = run("explain", table, *QUICK, "--out", out)
    assert code == 2
    assert "000002-gone: There is no picture" in printed
    assert [row["folder"] for row in results(out)] == ["000001-p0/1", "000001-p0/2"]
    assert run("explain", table, *QUICK, "--out", out)[1].startswith("0 explained, 2 already there")


def test_long_lists_of_failures_are_cut_on_the_screen_alone(run: Any, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,text\n" + "gone.png,a dog\n" * 30)
    code, printed, _ = run("explain", table, *QUICK, "--out", tmp_path / "out")
    assert code == 2
    assert "30 failed" in printed
    assert "... and 10 more" in printed
    assert len((tmp_path / "out" / "failures.csv").read_text(encoding="utf-8").splitlines()) == 31


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "isthmus", "methods"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a Linux device that is always full")
def test_an_output_that_is_full_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "isthmus", "methods"]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "isthmus: nothing more can be written, the disk is full: free some space.\n"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_real_interrupt_is_one_line(tmp_path: Path) -> None:
    """SIGINT in the middle of a folder: what is written is whole, and the exit code says so."""
    source = tmp_path / "pictures"
    source.mkdir()
    for i in range(300):
        picture(i % 5).save(source / f"p{i:03d}.png")
    command = [sys.executable, "-m", "isthmus", "explain", str(source), "a dog", *QUICK, "--batch-size", "1"]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )
    for _ in range(600):
        if (out / "p001.png" / "explanation.json").is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted" in printed
    assert "Traceback" not in said
    whole = [Explanation.load(path.parent) for path in out.glob("*/explanation.json")]
    assert 2 <= len(whole) < 300


def test_ctrl_c_anywhere_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.explainer.explain", interrupted)
    code, _, said = run("explain", EXAMPLES / "dog.jpg", "a dog")
    assert code == 130
    assert said.splitlines()[-1] == "isthmus: interrupted."
    assert "Traceback" not in said


def test_another_picture_under_the_same_name_is_explained_anew(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", folder, *QUICK, "--out", out)[0] == 0
    before = Explanation.load(out / "p0.png").similarity
    time.sleep(0.01)
    shutil.copyfile(EXAMPLES / "dog.jpg", tmp_path / "new.png")
    shutil.move(tmp_path / "new.png", folder / "p0.png")
    code, printed, _ = run("explain", folder, *QUICK, "--out", out)
    assert code == 0
    assert "1 explained, 6 already there" in printed
    after = Explanation.load(out / "p0.png").similarity
    assert after != before
    rows = results(out)
    assert len(rows) == 7
    assert next(float(row["similarity"]) for row in rows if row["id"] == "p0.png") == after


def test_other_pictures_or_texts_are_not_mixed_in(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", folder, "a dog", *QUICK, "--out", out)[0] == 0
    shutil.copytree(folder, tmp_path / "others")
    for source, text in ((tmp_path / "others", "a dog"), (folder, "a cat")):
        code, _, said = run("explain", source, text, *QUICK, "--out", out)
        assert code == 1
        assert "holds results of other pictures, texts" in said


def test_what_is_missing_comes_back_as_it_was(run: Any, folder: Path, tmp_path: Path) -> None:
    """Texts of one picture share a softmax, and the paper's maps a batch: both must survive a part being made again."""
    for number, arguments in enumerate(([], ["--preset", "paper"])):
        out = tmp_path / f"out{number}"
        command = ["explain", folder, "a dog", "a cat", "a car", *QUICK, *arguments, "--out", out]
        assert run(*command)[0] == 0
        before = {place: Explanation.load(out / "p1.png" / place) for place in ("1", "2", "3")}
        for place in ("2", "3"):
            (out / "p1.png" / place / "explanation.npz").unlink()  # half a result is none
        code, printed, _ = run(*command)
        assert code == 0
        assert "2 explained" in printed
        for place, one in before.items():
            again = Explanation.load(out / "p1.png" / place)
            assert again.probability == one.probability
            assert again.image == one.image
            assert again.text == one.text


def test_results_are_no_pictures(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "album.jpg").mkdir()
    monkeypatch.chdir(folder)
    for expected in ("7 explained:", "0 explained, 7 already there:"):
        code, printed, _ = run("explain", ".", *QUICK)
        assert code == 0
        assert expected in printed
    assert run("explain", "p0.png", "a dog", "a cat", *QUICK, "--out", "single")[0] == 0
    assert "0 explained, 7 already there:" in run("explain", ".", *QUICK)[1]


def test_an_empty_path_is_not_this_folder(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code, _, said = run("explain", "", "a dog")
    assert code == 1
    assert "path of the picture is empty" in said


def test_a_caption_of_two_lines_stays(run: Any, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    shutil.copy(EXAMPLES / "dog.jpg", tmp_path)
    table.write_text('image,text\ndog.jpg,"dog,\nline two"\n')
    for _ in range(2):
        assert run("explain", table, *QUICK, "--out", tmp_path / "out")[0] == 0
        assert [row["text"] for row in results(tmp_path / "out")] == ["dog,\nline two"]


def test_the_page_opens_also_where_some_failed(run: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (folder / "p0.txt").unlink()
    assert run("explain", folder, *QUICK, "--out", tmp_path / "out", "--open")[0] == 2
    assert len(opened) == 1


def test_options_of_any_method_are_reached(run: Any, tmp_path: Path) -> None:
    command = ["explain", EXAMPLES / "dog.jpg", "a dog", "--out", tmp_path]
    assert run(*command, "--method", "chefer", "--option", "start-layer=-2")[0] == 0
    assert Explanation.load(tmp_path).image.options == {"start_layer": 11}
    assert run(*command, "--method", "gradcam", "--option", "relu=false", "--layer", "3")[0] == 0
    assert Explanation.load(tmp_path).text.options == {"layer": 3, "relu": False}
    for wrong in ("relu", "layer=3", "=3"):
        code, _, said = run(*command, "--method", "gradcam", "--option", wrong)
        assert code == 1
        assert "takes NAME=VALUE" in said
    code, _, said = run(*command, "--option", "relu=false")
    assert code == 1
    assert "nib has no option 'relu'" in said


def test_one_pair_without_finite_scores_stops_no_folder(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_on(name: str) -> Callable[..., Any]:
        def explain(model: Any, pictures: Any, *arguments: Any, **options: Any) -> Any:
            many_pictures = pictures if isinstance(pictures, list) else [pictures]
            if any(Path(getattr(one, "source", one)).name == name or not name for one in many_pictures):
                raise isthmus.errors.ModelError("The scores are not finite.")
            return real(model, pictures, *arguments, **options)

        return explain

    real = many.explain
    monkeypatch.setattr(many, "explain", fails_on("p3.png"))
    code, printed, _ = run("explain", folder, *QUICK, "--out", tmp_path / "one")
    assert code == 2
    assert "6 explained" in printed
    assert "p3.png: The scores are not finite." in printed
    monkeypatch.setattr(many, "explain", fails_on(""))
    code, _, said = run("explain", folder, *QUICK, "--out", tmp_path / "all")
    assert code == 1
    assert said.endswith("isthmus: The scores are not finite.\n")
