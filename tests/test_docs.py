"""Every python snippet and every isthmus command that the documents print is run."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import EXAMPLES, ROOT
from isthmus import cli
from isthmus.methods import METHODS

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = {"docs/open-clip.md": "open_clip"}  # a library that not every environment has
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def blocks(document: Path, kind: str) -> list[str]:
    return [body for found, body in BLOCK.findall(document.read_text(encoding="utf-8")) if found == kind]


COMMANDS = [
    (path.relative_to(ROOT).as_posix(), line)
    for path in DOCUMENTS
    for body in blocks(path, "")
    for line in body.splitlines()
    if line.startswith("isthmus")
]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def cached_mini(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the model once is enough where its options are the usual ones."""
    import isthmus

    load: Callable[..., Any] = isthmus.explainer.load

    def once(model: Any = "mini", **options: Any) -> Any:
        usual = model == "mini" and options.get("dtype", "float32") == "float32" and "image_size" not in options
        return mini if usual else load(model, **options)

    monkeypatch.setattr("isthmus.explainer.load", once)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(ROOT / name, "python")])
def test_python_snippets_run(name: str, monkeypatch: pytest.MonkeyPatch, cached_mini: None) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{name} needs {NEEDS[name]}: pip install 'isthmus[{NEEDS[name]}]'")
    monkeypatch.setattr("isthmus.methods.registry.METHODS", dict(METHODS))
    namespace: dict[str, Any] = {"__name__": "__snippet__"}
    for number, body in enumerate(blocks(ROOT / name, "python")):
        exec(compile(body, f"{name} snippet {number}", "exec"), namespace)


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_commands_run(name: str, line: str, cached_mini: None, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(line)[1:]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    said = capsys.readouterr()
    assert caught.value.code in (0, None), said.err
    assert said.out


def test_the_documents_have_what_is_tested() -> None:
    """The patterns above must not fall silent when the documents change their form."""
    assert len(COMMANDS) > 10
    assert sum(len(blocks(path, "python")) for path in DOCUMENTS) > 8
    unknown = {kind for path in DOCUMENTS for kind, _ in BLOCK.findall(path.read_text(encoding="utf-8"))}
    assert unknown <= {"", "python"}, "a fence of a kind that nothing runs"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name}: make {target}"


def test_local_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_method_is_in_the_documents() -> None:
    text = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("methods.md", "speed.md")}
    for name in METHODS:
        for document, said in text.items():
            assert f"`{name}`" in said, f"{document}: {name}"
    pointed = (ROOT / "docs" / "two-objects.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in pointed for name, method in METHODS.items() if "image" in method.sides)
