"""How the page begins and ends: what it says where it cannot, and that nobody's picture stays behind."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.acting import Explain
from app.bad_pictures import Bad, drawn
from app.client import Client
from app.server import Server, running
from isthmus.errors import OptionError

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'isthmus[app]'")


@pytest.fixture
def models(mini: Any) -> Any:
    from isthmus.app.models import Models, Served

    return Models([Served(mini)])


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a launch writes into the environment is taken back, and its folder lies in the test's own."""
    import tempfile

    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_port_that_is_taken_is_said(models: Any) -> None:
    from isthmus.app.serve import launch

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OptionError, match=r"cannot listen on 127\.0\.0\.1, port \d+: choose another --port\.$"):
            launch(models, port=other.getsockname()[1], block=False)


def test_port_0_takes_a_free_one(models: Any) -> None:
    from isthmus.app.serve import launch

    found = [launch(models, port=0, block=False) for _ in range(2)]
    try:
        ports = {urlsplit(one.local_url).port for one in found}
        assert len(ports) == 2
        assert not ports & {0, None}
        assert all(httpx.get(one.local_url).status_code == 200 for one in found)
    finally:
        for one in found:
            one.close()


def test_a_host_that_is_not_this_machines_is_said(models: Any) -> None:
    from isthmus.app.serve import launch

    with pytest.raises(OptionError, match=r"cannot listen on 192\.0\.2\.1, port 0: "):
        launch(models, host="192.0.2.1", port=0, block=False)


def test_a_page_that_does_not_answer_itself_is_said(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.app.serve import launch

    def busy(*_: Any, **__: Any) -> None:
        raise ValueError("When localhost is not accessible, a shareable link must be created.")

    monkeypatch.setattr(gradio.Blocks, "launch", busy)
    with pytest.raises(OptionError, match="does not answer this machine"):
        launch(models, block=False)


FULL = """
import sys
from isthmus.app import launch
from isthmus.app.limits import Limits
launch(port=int(sys.argv[-1]), limits=Limits(queue=0))
"""


def test_a_full_queue_is_said_on_the_page(tmp_path: Path, browser: Any) -> None:
    with running(tmp_path, program=("-c", FULL)) as server:
        page = browser.new_page()
        page.goto(server.url)
        explain = Explain(page)
        explain.give_text("a dog")
        explain.run()
        page.get_by_text("As many questions wait already as the server takes: ask again in a minute.").first.wait_for()
        page.close()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_server_leaves_no_upload_behind(tmp_path: Path, by: signal.Signals) -> None:
    with running(tmp_path) as server:
        _, (path, *_) = Client(server.url).upload(Bad("good", "good.png", drawn()))
        assert Path(path).is_file()
        server.process.send_signal(by)
        assert server.process.wait(60) == 0, server.said
    assert not _left(server), "an upload, or its folder, was left"
    assert "Traceback" not in server.said


def _left(server: Server) -> list[Path]:
    return [path for path in (server.folder / "tmpdir").rglob("*") if path.name.startswith("isthmus-app-")]
