"""What stands before Gradio: only the page's requests pass, and a file goes with the last visit that uses it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from isthmus.app.guard import HEADERS, Guard
from isthmus.app.limits import Limits
from isthmus.app.visits import Uploads, Visits


class Gradio:
    """In its place: says what reached it, or breaks."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/broken"):
            raise KeyError(scope["path"])
        self.bodies.append((await receive())["body"])
        if b"too many" in self.bodies[-1]:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"Queue", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Asked:
    def __init__(self, folder: Path) -> None:
        self.gradio, self.uploads, self.gone, self.back, self.now = Gradio(), Uploads(folder), [], [], 0.0
        self.visits = Visits(self._left, self.back.append, grace=90, idle=3600, clock=lambda: self.now)
        self.guard = Guard(self.gradio, self.uploads, self.visits, Limits(upload=100, disk=250), self.visits.end)

    def _left(self, visit: str) -> None:
        self.gone.append(visit)
        self.uploads.leave(visit)

    def after(self, seconds: float) -> list[str]:
        """Who has left that much later."""
        self.now += seconds
        self.visits.end()
        return self.gone

    def __call__(
        self, path: str, body: bytes = b"", method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        asyncio.run(self.guard({"type": "http", "path": path, "method": method, "headers": given}, receive, send))
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, sent[1]["body"]


@pytest.fixture
def ask(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/file=/tmp/a/dog.jpg"]
)
def test_what_the_page_needs_passes_with_headers(ask: Asked, path: str) -> None:
    status, headers, body = ask(path)
    assert (status, body, headers["x-own"]) == (200, b"ok", "1")
    assert HEADERS.items() <= headers.items()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/monitoring", 404),
        ("/gradio_api/info", 404),
        ("/gradio_api/deep_link", 404),
        ("/gradio_api/vibe-code", 404),
        ("/gradio_api/proxy=https://example.org/x", 404),
        ("/gradio_api/file=http://127.0.0.1:1/x", 403),
        ("/gradio_api/file=HTTPS://example.org/x", 403),
        ("/gradio_api/file=//example.org/x", 403),
    ],
)
def test_what_it_does_not_need_is_refused_in_one_sentence(ask: Asked, path: str, status: int) -> None:
    found, headers, body = ask(path)
    assert found == status
    assert json.loads(body)["detail"].endswith(".")
    assert ask.gradio.bodies == []
    assert HEADERS.items() <= headers.items()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"data": ["\\ud800"]}', 400),
        (b"[" * 100_000, 400),
        (json.dumps({"data": [{"path": "http://127.0.0.1/x"}]}).encode(), 403),
        (json.dumps({"data": "x" * (5 << 20)}).encode(), 413),
    ],
)
def test_damaged_requests_do_not_reach_gradio(ask: Asked, body: bytes, status: int) -> None:
    assert ask("/gradio_api/queue/join", body, "POST")[0] == status
    assert ask.gradio.bodies == []


OWN, EVIL = "http://127.0.0.1:7860", "https://evil.example"


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8888"},
        {"origin": "http://127.0.0.1:8888", "sec_fetch_site": "same-site"},
        {"origin": EVIL, "x_forwarded_host": "isthmus.example"},
        {"sec_fetch_site": "cross-site"},
        {"origin": OWN, "sec_fetch_site": "cross-site"},
    ],
)
def test_what_another_site_asks_is_refused(ask: Asked, path: str, headers: dict[str, str]) -> None:
    status, _, body = ask(path, b"{}", "POST", host="127.0.0.1:7860", content_length="2", **headers)
    assert status == 403
    assert b"Another site asks this" in body
    assert ask.gradio.bodies == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": OWN},
        {"origin": OWN, "sec_fetch_site": "same-origin"},
        {"origin": "https://me-isthmus.hf.space", "x_forwarded_host": "inner, Me-Isthmus.hf.space"},
        {"origin": "https://me-isthmus.hf.space", "sec_fetch_site": "same-origin"},
    ],
)
def test_what_the_page_asks_passes_be_it_behind_a_proxy(ask: Asked, headers: dict[str, str]) -> None:
    assert ask("/gradio_api/queue/join", b"{}", "POST", host="127.0.0.1:7860", **headers)[0] == 200


def test_uploads_are_bounded_each_and_all_together(ask: Asked, tmp_path: Path) -> None:
    def upload(length: str | None) -> tuple[int, str]:
        status, _, body = ask(
            "/gradio_api/upload", b"", "POST", **({} if length is None else {"content_length": length})
        )
        return status, body.decode()

    assert upload("100") == (200, "ok")
    assert upload("101")[0] == 413
    assert upload(None)[0] == upload("-1")[0] == 411
    assert ask("/gradio_api/upload", b"", "POST", content_length="9", transfer_encoding="chunked")[0] == 411
    (tmp_path / "there").write_bytes(b"x" * 200)
    assert upload("50") == (200, "ok")
    assert upload("51") == (413, "The server holds as many files as it takes: try again later.")
    with ask.guard._coming(40):
        assert upload("11")[0] == 413
        assert upload("10") == (200, "ok")
    assert upload("50") == (200, "ok")


def test_a_good_request_reaches_it_whole(ask: Asked) -> None:
    body = json.dumps({"data": ["see http://example.org"], "session_hash": "a"}).encode()
    assert ask("/gradio_api/queue/join", body, "POST")[0] == 200
    assert ask.gradio.bodies == [body]


def test_what_breaks_it_is_no_500(ask: Asked) -> None:
    status, _, body = ask("/gradio_api/run/broken", b"{}", "POST")
    assert (status, json.loads(body)) == (400, {"detail": "The page does not ask this: load it again."})


def test_a_full_queue_is_said_in_a_sentence_of_the_pages_own(ask: Asked) -> None:
    status, headers, body = ask("/gradio_api/queue/join", b'{"data": ["too many"]}', "POST")
    said = "As many questions wait already as the server takes: ask again in a minute."
    assert (status, json.loads(body)) == (429, {"detail": said})
    assert "content-length" not in headers
    assert HEADERS.items() <= headers.items()


def test_a_file_goes_with_the_last_visit_that_uses_it(ask: Asked, tmp_path: Path) -> None:
    file = tmp_path / "hash" / "dog.jpg"
    file.parent.mkdir()
    file.write_bytes(b"x")
    for visit in ("one", "two"):
        body = json.dumps({"session_hash": visit, "data": [{"path": str(file), "meta": {}}]}).encode()
        ask("/gradio_api/queue/join", body, "POST")
    ask("/gradio_api/heartbeat/one")
    ask.now += 80
    ask("/gradio_api/heartbeat/two")
    assert ask.after(20) == ["one"]
    assert file.is_file()
    assert ask.after(70) == ["one", "two"]
    assert not file.parent.exists()
    assert tmp_path.is_dir()


def test_a_visit_goes_on_that_comes_back_in_time(ask: Asked) -> None:
    ask("/gradio_api/heartbeat/one")
    assert ask.after(80) == []
    ask("/gradio_api/queue/join", b'{"session_hash": "one", "data": []}', "POST")
    assert ask.after(80) == []
    with ask.visits.connected("one", heartbeat=True):
        assert ask.after(4000) == []
        with ask.visits.connected("one", heartbeat=True):  # the page opens it before the server finds the first broken
            assert ask.after(4000) == []
    ask("/gradio_api/queue/data")
    assert ask.after(89) == []
    assert ask.after(1) == ["one"]
    assert ask.after(9999) == ["one"]
    assert set(ask.back) == {"one"}


def test_one_that_came_back_too_late_is_let_go_as_any_other(ask: Asked) -> None:
    for times in (1, 2):
        ask("/gradio_api/heartbeat/one")
        assert ask.after(91) == ["one"] * times


def test_a_program_without_a_heartbeat_stays_longer(ask: Asked) -> None:
    ask("/gradio_api/queue/join", b'{"session_hash": "one", "data": []}', "POST")
    assert ask.after(3599) == []
    assert ask.after(1) == ["one"]


def test_files_that_nobody_uses_go_and_those_in_use_stay(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, idle=-1)  # as if all had come long ago
    used, unused = tmp_path / "a" / "used.jpg", tmp_path / "b" / "unused.jpg"
    for file in (used, unused):
        file.parent.mkdir()
        file.write_bytes(b"12345")
    assert uploads.bytes() == 10
    uploads.note("one", iter([str(used)]))
    Uploads(tmp_path, idle=60).sweep()
    assert unused.is_file(), "it may still be used"
    uploads.sweep()
    assert used.is_file()
    assert not unused.parent.exists()


def test_it_looks_for_those_that_have_left_as_long_as_the_server_runs(tmp_path: Path) -> None:
    looked: list[int] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        while len(looked) < 3:
            await asyncio.sleep(0.01)

    def tick() -> None:
        looked.append(len(looked))
        if len(looked) == 1:
            raise OSError("once")

    visits = Visits(str, str, grace=0.04, idle=1)
    guard = Guard(lifespan, Uploads(tmp_path), visits, Limits(), tick)
    asyncio.run(asyncio.wait_for(guard({"type": "lifespan"}, None, None), 20))  # type: ignore[arg-type]
    assert looked[:3] == [0, 1, 2], "it goes on after one that failed"


def test_files_elsewhere_are_left_alone(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other.txt"
    mine.mkdir()
    other.write_text("keep")
    (mine / "link").symlink_to(other)
    uploads = Uploads(mine)
    uploads.note("a", iter([str(other), str(mine / "link"), str(mine / ".." / "other.txt"), "\0", "x" * 9999]))
    uploads.leave("a")
    assert other.read_text() == "keep"
