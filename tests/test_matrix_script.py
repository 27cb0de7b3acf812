"""`.ci/matrix` names what it runs, refuses what it does not know, and holds the bounds that the package states."""

from __future__ import annotations

import re
import subprocess

import pytest

from conftest import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / "matrix", *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def names() -> list[str]:
    done = run("no-such-environment")
    assert done.returncode == 2
    assert "there is no environment 'no-such-environment'" in done.stderr
    return done.stderr.partition("choose from ")[2].split()


def test_help_tells_every_environment_and_its_size(names: list[str]) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert len(names) == 4
    assert all(name in done.stdout for name in names)
    assert len(re.findall(r"\d+ GB each", done.stdout)) == 2


def test_the_oldest_transformers_is_the_one_that_the_package_allows(names: list[str]) -> None:
    allowed = re.search(r'"transformers>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert allowed is not None
    versions = [name.removeprefix("transformers-") for name in names if name.startswith("transformers-")]
    assert min(versions, key=lambda one: [int(part) for part in one.split(".")]) == allowed[1]


def test_contributors_are_told_of_every_version(names: list[str]) -> None:
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(name.partition("-")[2] in said for name in names)
