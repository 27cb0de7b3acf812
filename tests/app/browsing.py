"""A browser's page, with notes of what went wrong in it and what it asked for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = os.environ.get("ISTHMUS_BROWSER") == "require"
NODE = Path(os.environ.get("ISTHMUS_NODE", ROOT / ".venv" / "node"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OWN = ("127.0.0.1", "localhost")


def missing(reason: str) -> Any:
    """Skip, or fail where `ISTHMUS_BROWSER=require` says that nothing may be skipped."""
    if REQUIRED:
        pytest.fail(f"{reason}, and ISTHMUS_BROWSER=require", pytrace=False)
    pytest.skip(reason)


def chromium() -> str:
    """Path of Debian's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return found or str(missing("no Chromium: apt-get install chromium"))


def axe_script() -> Path:
    """Path of the accessibility checker, which `make test` installs."""
    script = NODE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        missing(f"no axe-core: npm install --prefix {NODE} axe-core")
    return script


@dataclass
class Visit:
    """A page of the app in a context of its own: what it logged, asked for and failed at."""

    page: Any
    context: Any
    url: str
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("response", lambda response: self.answers.append((response.status, response.url)))
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("console", self._said)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} at {message.location}")

    def elsewhere(self) -> list[str]:
        """What was asked of another machine."""
        parts = ((url, urlsplit(url)) for url in self.asked)
        return [url for url, part in parts if part.scheme not in ("data", "blob") and part.hostname not in OWN]

    def check(self) -> None:
        """No error in the console, no request to another machine, no failed answer."""
        assert not self.errors, self.errors
        assert not self.elsewhere(), self.elsewhere()
        assert not [answer for answer in self.answers if answer[0] >= 400], self.answers

    def width_beyond(self) -> tuple[int, list[str]]:
        """Pixels by which the page is wider than the window, and what sticks out."""
        return tuple(self.page.evaluate(WIDER))  # type: ignore[return-value]


WIDER = """() => {
  const seen = document.documentElement.clientWidth;
  const clipped = node => {
    for (let up = node.parentElement; up; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== 'visible' && up !== document.body && up !== document.documentElement)
        return true;
    return false;
  };
  const out = [...document.querySelectorAll('body *')].filter(node => {
    const box = node.getBoundingClientRect();
    return box.width && box.right > seen + 1 && getComputedStyle(node).visibility !== 'hidden' && !clipped(node);
  });
  const wide = Math.max(document.documentElement.scrollWidth, document.body.scrollWidth);
  return [wide - seen, out.slice(0, 5).map(node => node.outerHTML.slice(0, 160))];
}"""


def axe_findings(page: Any, script: Path) -> list[dict[str, Any]]:
    """What axe-core finds serious or critical on the page as it is now."""
    page.add_script_tag(path=str(script))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    return [
        {"rule": one["id"], "impact": one["impact"], "nodes": [node["html"][:300] for node in one["nodes"]]}
        for one in grave
    ]
