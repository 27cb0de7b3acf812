"""Fixtures: the running app, and pages of Debian's Chromium on it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.browsing import FLAGS, Visit, axe_script, chromium, missing
from app.server import Server, running
from conftest import ROOT

WITHIN = 120_000  # milliseconds that one step may take on a busy machine


def _needs(library: str) -> None:
    try:
        __import__(library)
    except ImportError:
        missing(f"no {library}: pip install 'isthmus[dev]'")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`isthmus app --models mini`, one for all tests of this process."""
    _needs("gradio")
    with running(tmp_path_factory.mktemp("app")) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. Playwright's event loop runs as long as it does, so it ends with its module."""
    _needs("playwright")
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield one
        one.close()


@contextmanager
def _visiting(server: Server, browser: Any) -> Iterator[Callable[..., Visit]]:
    visits = []

    def go(*, width: int = 1400, height: int = 900, dark: bool = False, **options: Any) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(WITHIN)
        one = Visit(context.new_page(), context, server.url)
        visits.append(one)
        one.page.goto(server.url)
        one.page.get_by_role("tab").first.wait_for()
        return one

    yield go
    for one in visits:
        one.context.close()
    for one in visits:
        one.check()


@pytest.fixture
def visit(server: Server, browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open the app in a new session: `visit(width=400, dark=True)`. Afterwards each page is checked (`Visit.check`)."""
    with _visiting(server, browser) as go:
        yield go


@pytest.fixture(scope="module")
def stay(server: Server, browser: Any) -> Iterator[Callable[..., Visit]]:
    """As `visit`, for a session that the tests of a module share."""
    with _visiting(server, browser) as go:
        yield go


@pytest.fixture(scope="session")
def axe() -> Path:
    """The script of axe-core."""
    return axe_script()


@pytest.fixture(scope="session")
def shot() -> Callable[..., None]:
    """Keep the page as `docs/images/app-NAME.png`, where `ISTHMUS_SCREENSHOTS` is set."""

    def keep(name: str, page: Any, *, full: bool = False, width: int = 1000) -> None:
        if "ISTHMUS_SCREENSHOTS" in os.environ:
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)
            taken = Image.open(io.BytesIO(page.screenshot(full_page=full)))
            small = taken.convert("RGB")
            small.thumbnail((width, 4000), Image.Resampling.LANCZOS)
            few = small.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)  # keeps the strongest colours
            few.save(ROOT / "docs" / "images" / f"app-{name}.png", optimize=True)

    return keep
