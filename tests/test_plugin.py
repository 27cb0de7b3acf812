"""The method of CONTRIBUTING.md as a package of somebody else: installed, found, listed, run, compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from conftest import EXAMPLES, ROOT, picture
from isthmus.methods import METHODS
from state import untouched

NAME = "gradient-x-features"


@pytest.fixture(scope="module")
def module() -> str:
    """The document's first snippet, a whole module."""
    found = re.search(
        r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found.group(1)


@pytest.fixture
def registered(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.methods.registry.METHODS", dict(METHODS))
    exec(compile(module, "plug-in", "exec"), {"__name__": "plugin"})


def test_it_takes_under_forty_lines(module: str) -> None:
    assert len([line for line in module.splitlines() if line.strip()]) < 40


def test_it_equals_the_method_that_it_rewrites(mini: Any, registered: None) -> None:
    images, texts = [picture(i) for i in range(3)], ["a dog", "a small bird on a branch", "snow"]
    with untouched(mini.model):
        together = isthmus.explain(mini, images, texts, method=NAME)
    known = isthmus.explain(mini, images, texts, method="input-x-gradient", layer=0.75)
    for one, other, image, text in zip(together, known, images, texts, strict=True):
        np.testing.assert_allclose(one.image.scores, other.image.scores, atol=1e-6)
        assert [w.score for w in one.text.words] == pytest.approx([w.score for w in other.text.words], abs=1e-6)
        single = isthmus.explain(mini, image, text, method=NAME)
        np.testing.assert_allclose(one.image.scores, single.image.scores, atol=2e-6)


def test_it_is_compared_like_any_other(mini: Any, registered: None) -> None:
    rows = isthmus.compare(mini, picture(), "a dog", methods=["nib", NAME]).rows
    assert [row.method for row in rows] == ["nib", NAME]
    assert rows[1].agreement_image is not None


def installed(folder: Path, module: str) -> dict[str, str]:
    """A folder as a package's installation leaves it, and the environment in which Python looks there."""
    (folder / "strange_methods.py").write_text(module, encoding="utf-8")
    about = folder / "strange_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[isthmus.methods]\nstrange = strange_methods\n")
    return {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isthmus", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_an_installed_package_brings_its_methods_to_the_command_line(module: str, tmp_path: Path) -> None:
    environment = installed(tmp_path, module)
    listed = command(environment, "methods", NAME)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "Gradient times features" in listed.stdout
    done = command(
        environment, "explain", str(EXAMPLES / "dog.jpg"), "a dog", "--method", NAME, "--out", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert isthmus.Explanation.load(tmp_path / "out").provenance.method == NAME


def test_a_broken_package_is_told_of_and_left_out(tmp_path: Path) -> None:
    done = command(installed(tmp_path, "import nothing_of_that_name\n"), "methods")
    assert done.returncode == 0
    assert "The plug-in 'strange' (strange_methods) is left out: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr
    assert "nib" in done.stdout
