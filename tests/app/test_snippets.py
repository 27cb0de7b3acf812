"""What is copied from the page is run as it stands, in a folder of its own, and gives the same numbers to the bit."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import isthmus
from isthmus import cli
from isthmus.app import tab_compare, tab_contrast, tab_explain, tab_folder, tab_prompts
from isthmus.app.limits import Limits
from isthmus.app.models import Models, Served
from isthmus.app.page import Page
from isthmus.app.question import Question, ask
from isthmus.app.snippets import FOLDER, PICTURE, Asked, as_command, as_python, loading_of
from isthmus.app.uploads import Gathered, Upload, gather
from isthmus.app.work import Visit
from isthmus.errors import InputError
from isthmus.export import to_json

CPU = {"device": "cpu"}
HARD = '- it\'s a "dog" $HOME `ls` \\ {x} 犬; rm -rf /'


@pytest.fixture
def picture(dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """The page's picture, as a visitor has it in the folder where the snippets are run."""
    found = Image.open(dog).convert("RGB")
    found.save(tmp_path / PICTURE)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture(scope="module")
def page(mini: Any) -> Page:
    return Page(gr, Models([Served(mini)]), Limits())


def executed(calls: list[Asked], mini: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(
        isthmus, "load", lambda name, **how: mini if (name, how or CPU) == ("mini", CPU) else pytest.fail(name)
    )
    names: dict[str, Any] = {}
    exec(compile(as_python(calls), "snippet", "exec"), names)
    return names


def commanded(calls: list[Asked], run: Callable[..., Any], folder: Path) -> list[Path]:
    """Run the commands; the folders of their results."""
    folders = []
    for line in as_command(calls).splitlines():
        words = shlex.split(line)
        assert words[0] == "isthmus"
        assert run(*words[1:])[0] == 0
        out = next((word.removeprefix("--out=") for word in words if word.startswith("--out=")), None)
        folders.append(folder / (out or "isthmus-out/picture"))
    return folders


def numbers(explanation: Any) -> dict[str, Any]:
    """All that an explanation says, but for the cost, the source and the picture."""
    data = json.loads(to_json(explanation))
    return {name: data[name] for name in ("image", "text", "similarity", "joint")}


ONE = [
    Asked("mini", ("a dog is tied to a fire hydrant",)),
    Asked("mini", (HARD,), options={"layer": 2, "steps": 3}),
    Asked("mini", ("a dog",), against='a cat\'s "bed"'),
    Asked("mini", ("a dog",), options={"layer": 3, "steps": 2}, joint=True),
    Asked("mini", ("a dog",), against="a cat", options={"sides": "image"}),
    Asked("mini", ("a dog",), options={"layer": 0.5, "steps": "auto", "tolerance": 0.05, "rule": None}),
    Asked("mini", ("a dog",), methods=("rise",), options={"samples": 20, "seed": 3}),
]


@pytest.mark.parametrize("asked", ONE, ids=range(len(ONE)))
def test_one_text_is_explained_as_on_the_page(
    asked: Asked, mini: Any, picture: Image.Image, run: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    more = {"against": asked.against} if asked.against else {}
    wanted = isthmus.explain(
        mini, picture, asked.texts[0], method=asked.methods[0], joint=asked.joint, **more, **asked.options
    )
    assert numbers(executed([asked], mini, monkeypatch)["found"]) == numbers(wanted)
    (folder,) = commanded([asked], run, tmp_path)
    assert numbers(isthmus.Explanation.load(folder)) == numbers(wanted)


def test_several_prompts_and_several_calls(
    mini: Any, picture: Image.Image, run: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    prompts = Asked("mini", ("a dog", "a cat on a sofa", "--help", "a fire hydrant"), batch_size=2)
    calls = [prompts, Asked("mini", ("a dog",), against="a cat", options={"layer": 1})]
    many = isthmus.explain(mini, picture, list(prompts.texts), batch_size=2)
    contrast = isthmus.explain(mini, picture, "a dog", against="a cat", layer=1)
    names = executed(calls, mini, monkeypatch)
    assert [numbers(one) for one in names["found_1"]] == [numbers(one) for one in many]
    assert numbers(names["found_2"]) == numbers(contrast)
    first, second = commanded(calls, run, tmp_path)
    for number, one in enumerate(many, 1):
        assert numbers(isthmus.Explanation.load(first / str(number))) == numbers(one)
    assert numbers(isthmus.Explanation.load(second)) == numbers(contrast)


def test_methods_are_compared_as_on_the_page(
    mini: Any, picture: Image.Image, run: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    asked = Asked("mini", ("a dog",), methods=("nib", "gradcam"), options={"nib": {"layer": 1}}, compared=True)
    wanted = isthmus.compare(mini, picture, "a dog", methods=["nib", "gradcam"], options={"nib": {"layer": 1}})
    found = executed([asked], mini, monkeypatch)["found"]
    assert [numbers(one) for one in found.explanations] == [numbers(one) for one in wanted.explanations]
    assert run(*shlex.split(as_command([asked]))[1:])[0] == 0
    rows = json.loads((tmp_path / "isthmus-out/picture-compared/comparison.json").read_text())["rows"]
    assert [row["explanation"]["image"] for row in rows] == [numbers(one)["image"] for one in wanted.explanations]


def test_pictures_are_explained_one_by_one(
    mini: Any, dog: Path, run: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    names = ("a 'dog'.png", "bird.png")
    for name, source in zip(names, ("dog.jpg", "bird.jpg"), strict=True):
        Image.open(dog.parent / source).convert("RGB").resize((90, 70)).save(folder / name)
    monkeypatch.chdir(tmp_path)
    asked = Asked("mini", ("a bird",), options={"layer": 1}, pictures=names)
    wanted = [isthmus.explain(mini, folder / name, "a bird", layer=1) for name in names]
    assert [numbers(one) for one in executed([asked], mini, monkeypatch)["found"]] == [numbers(one) for one in wanted]
    assert run(*shlex.split(as_command([asked]))[1:])[0] == 0
    results = {path.parent for path in tmp_path.glob("isthmus-out/pictures/**/explanation.json")}
    found = {Path(one.source).name: one for one in map(isthmus.Explanation.load, results)}
    for name, one in zip(names, wanted, strict=True):
        assert np.array_equal(found[name].image.scores, one.image.scores)
        assert found[name].similarity == one.similarity


def test_pictures_of_an_archive_are_found_where_it_is_unpacked(
    mini: Any, page: Page, dog: Path, run: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    names = ("a/1.png", "b/1.png", f"{'n' * 70}.png", "Wow! $5 {x} 'y'.png")
    archive = tmp_path / "two.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, source in zip(names, ("dog", "bird", "pizza", "bear"), strict=True):
            buffer = io.BytesIO()
            Image.open(dog.with_name(f"{source}.jpg")).convert("RGB").resize((90, 70)).save(buffer, "PNG")
            file.writestr(name, buffer.getvalue())
        file.extractall(tmp_path / FOLDER)
    monkeypatch.chdir(tmp_path)
    given = gather([archive], tmp_path)
    *_, end = tab_folder._explainer(page)(given, "a dog", "mini", "gradcam", 0, 10, "delta", Visit())
    cards, whole = end[0], end[8]
    assert len({card["title"] for card in cards["grid"]}) == len(names)
    found = executed(list(whole.calls), mini, monkeypatch)["found"]
    assert [numbers(one) for one in found] == [numbers(one) for one in whole.explanations]
    assert sorted(one.source for one in whole.explanations) == sorted(names)
    assert run(*shlex.split(as_command(whole.calls))[1:])[0] == 0
    results = {path.parent for path in tmp_path.glob("isthmus-out/pictures/**/explanation.json")}
    made = {Path(one.source).relative_to(FOLDER).as_posix(): one for one in map(isthmus.Explanation.load, results)}
    assert {name: numbers(one) for name, one in made.items()} == {
        one.source: numbers(one) for one in whole.explanations
    }


def test_a_model_of_another_precision_is_loaded_so_again(
    dog: Path, picture: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models.load(["mini"], device="cpu", dtype="bfloat16")
    answer = ask(models, Question("mini", picture, "a dog is tied to a fire hydrant"))
    calls = tab_explain._kept(answer).calls
    names: dict[str, Any] = {}
    exec(compile(as_python(calls), "snippet", "exec"), names)
    assert numbers(names["found"]) == numbers(answer.explanation)
    assert answer.explanation.similarity != isthmus.explain("mini", picture, answer.question.text).similarity
    with pytest.raises(SystemExit):
        cli.main(shlex.split(as_command(calls))[1:])
    capsys.readouterr()
    assert numbers(isthmus.Explanation.load(tmp_path / "isthmus-out/picture")) == numbers(answer.explanation)


def test_every_tab_says_how_its_model_was_loaded(picture: Image.Image, dog: Path) -> None:
    small, wanted = picture.resize((90, 120)), {"device": "cpu", "dtype": "bfloat16"}
    page = Page(gr, Models.load(["mini"], device="cpu", dtype="bfloat16"), Limits())
    given = Gathered([Upload("dog.jpg", dog.read_bytes())])
    nib = ("mini", "nib", 0, 2)
    *_, contrast = tab_contrast._contraster(page)(small, "a dog", "a cat", *nib, Visit())
    *_, prompts = tab_prompts._ranker(page)(small, "a dog\na cat", *nib, Visit())
    *_, compare = tab_compare._comparer(page)(small, "a dog", ["gradcam"], "mini", Visit())
    *_, folder = tab_folder._explainer(page)(given, "a dog", *nib, "similarity", Visit())
    opened = next(tab_folder._opener(page)(folder[3], "similarity", Visit(), gr.EventData(None, {"index": 0})))
    for shown in (contrast[2], prompts[1], compare[1], folder[8], opened[2]):
        assert [call.loading for call in shown.calls] == [wanted] * len(shown.calls)
        assert "isthmus.load('mini', device='cpu', dtype='bfloat16')" in as_python(shown.calls)
        for line in as_command(shown.calls).splitlines():
            assert "--device=cpu --dtype=bfloat16" in line


def test_what_the_command_line_cannot_load_is_said(mini: Any, picture: Image.Image) -> None:
    found = isthmus.explain("mini", picture, "a dog", sides="text", steps=1)
    other = replace(found.provenance, device="cuda:1 (NVIDIA H100)", dtype="float32, matrix products in bfloat16")
    assert loading_of(replace(found, provenance=other)) == {"device": "cuda", "autocast": "bfloat16"}
    asked = Asked("mini", ("a dog",), loading={"autocast": "bfloat16"})
    assert "autocast='bfloat16'" in as_python([asked])
    with pytest.raises(InputError, match="as Python"):
        as_command([asked])


def test_a_snippet_is_short_and_says_where_the_picture_is() -> None:
    python = as_python([Asked("mini", ("a dog",), options={"layer": None, "steps": 5})])
    assert python == (
        "import isthmus\n\nmodel = isthmus.load('mini')\n# picture.png is the picture of the page\n"
        "found = isthmus.explain(model, 'picture.png', 'a dog', method='nib', steps=5)\nprint(found.similarity)\n"
    )
    command = as_command([Asked("mini", ("a dog",), options={"layer": None, "steps": 5})])
    assert command == "isthmus explain --model=mini --method=nib --steps=5 picture.png 'a dog'"
