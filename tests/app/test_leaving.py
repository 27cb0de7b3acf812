"""A page that is closed leaves no file behind, and one whose connection breaks off goes on working."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.acting import Explain
from app.browsing import Visit
from app.conftest import WITHIN
from app.cutting import Cutting
from app.server import Server, running
from conftest import EXAMPLES

GRACE = 8.0  # seconds, in place of 90; Chromium opens a connection again after 3
PROGRAM = f"""
import sys
from isthmus.app import launch
from isthmus.app.limits import Limits
launch(port=int(sys.argv[-1]), limits=Limits(grace={GRACE}))
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon takes a silent page for closed."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'isthmus[app]'")
    with running(tmp_path_factory.mktemp("leaving"), program=("-c", PROGRAM)) as one:
        yield one


def given(server: Server) -> list[str]:
    """Files that visitors gave, as they lie on the server."""
    folders = (server.folder / "tmpdir").glob("isthmus-app-*")
    return [path.name for folder in folders for path in folder.rglob("*") if path.is_file()]


def until(found: Callable[[], bool], seconds: float = WITHIN / 1000) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


KEEP = """
window.connections = [];
window.EventSource = class extends EventSource {
  constructor(...given) { super(...given); window.connections.push(this); }
};
"""


def gone_to(browser: Any, url: str, script: str = "") -> Visit:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(WITHIN)
    context.add_init_script(script)
    one = Visit(context.new_page(), context, url)
    one.page.goto(url)
    one.page.get_by_role("tab").first.wait_for()
    return one


def test_the_files_of_a_closed_page_go_after_a_while(quick: Server, browser: Any, dog: Path) -> None:
    visit = gone_to(browser, quick.url)
    Explain(visit.page).asked(dog, "a dog")
    assert "dog.jpg" in given(quick)
    visit.page.wait_for_timeout(1000 * (GRACE + 2))
    assert "dog.jpg" in given(quick), "the page is still open"
    visit.check()
    visit.context.close()
    until(lambda: not given(quick))


def test_a_page_goes_on_after_its_connection_broke_off_once(quick: Server, browser: Any, dog: Path) -> None:
    with Cutting(urlsplit(quick.url).port or 0) as between:
        visit = gone_to(browser, between.url)
        explain = Explain(visit.page)
        explain.asked(dog, "a dog", "joint")
        assert between.cut() > 0
        visit.page.wait_for_timeout(1000 * (GRACE + 3))
        assert sum("/heartbeat/" in url for url in visit.asked) == 2, "it was opened again, once"
        assert "dog.jpg" in given(quick)
        explain.give_text("a dog on the grass")
        explain.run()
        explain.shown("a dog on the grass")
        assert explain.part("history").locator(".iv-past").count() == 2, "the former result is still there"
        explain.give_picture(EXAMPLES / "bird.jpg")
        explain.give_text("a bird")
        explain.run()
        explain.shown("a bird")
        assert not visit.page.locator(".toast-body").count()
        assert not [error for error in visit.errors if "ERR_" not in error], visit.errors
        visit.context.close()
        until(lambda: not given(quick))


def test_what_the_server_has_forgotten_is_said(quick: Server, browser: Any, dog: Path) -> None:
    """A page that was asleep for longer than the server waits for it."""
    visit = gone_to(browser, quick.url, KEEP)
    explain = Explain(visit.page)
    explain.asked(dog, "a dog", "joint")
    visit.page.evaluate("() => window.connections.forEach(one => one.close())")
    until(lambda: not given(quick))
    said = visit.page.locator(".toast-body")
    for button in ("python", "command", "save-json"):
        explain.part(button).click()
        assert "has forgotten this visit: explain it again." in said.first.inner_text()
        said.first.locator(".toast-close").click()
        said.first.wait_for(state="detached")
    visit.context.close()
