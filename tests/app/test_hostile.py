"""Bad uploads and texts, sent to the running app over HTTP: it answers with a sentence, and stays in its own folder."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bad_archives import archives
from app.bad_pictures import CANARY, Bad, drawn, pictures
from app.bad_texts import texts
from app.client import Answer, Client, Slot, file_of
from app.server import Server, running
from conftest import ROOT

INSIDE = re.compile(
    r'Traceback|File "|site-packages|\.py\b|<class |0x[0-9a-f]{6,}|line \d+|isthmus/|Exception:|Error:|\bNone\b(?! of)'
)
TRACE = re.compile(r'Traceback|site-packages|File \\?"/')
GROWTH = 1 << 30  # bytes; a bomb that was opened would take more


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: what it did is judged afterwards, all of it."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'isthmus[app]'")
    with running(tmp_path_factory.mktemp("hostile")) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url)


@pytest.fixture(scope="module")
def picture(client: Client) -> Any:
    """An untroubled picture, sent."""
    good = Bad("good", "good.png", drawn())
    return file_of(client.upload(good)[1][0], good)


def judge(answer: Answer, label: str, *, told: bool = True) -> None:
    """No failure of the server, nothing of its insides in what it says, and a sentence where it refuses.

    What no page sends may be refused by Gradio, which then only says "Error": not `told`.
    """
    assert answer.status < 500, f"{label}: {answer.status} {answer.text[:300]}"
    if answer.status != 200:
        return
    assert answer.finished, f"{label}: never ended: {answer.text[-300:]}"
    assert not TRACE.search(answer.text), f"{label}: {answer.text[:300]}"
    if told and not answer.succeeded:
        assert answer.message, f"{label}: refused without a sentence: {answer.text[-300:]}"
        assert not INSIDE.search(answer.message), f"{label}: {answer.message}"
        assert len(answer.message) < 500, f"{label}: {answer.message[:500]}"


def sent(client: Client, slot: Slot, bad: Bad, picture: Any) -> tuple[Answer, str]:
    """Upload a file as the page does and give it to an event."""
    label = f"{bad.label} in {slot}"
    answer, paths = client.upload(bad)
    if not paths:
        assert 400 <= answer.status < 500, f"{label}: {answer.status} {answer.text[:300]}"
        return answer, label
    data = client.usual(slot.event, picture, "a dog")
    given: Any = file_of(paths[0], bad)
    data[slot.index] = [given] if slot.component["props"].get("file_count") == "multiple" else given
    return client.call(slot.event, data), label


def test_there_are_enough_of_them() -> None:
    labels = [bad.label for bad in [*pictures(), *archives()]] + list(texts())
    assert len(labels) == len(set(labels)) >= 200


@pytest.mark.parametrize(("kind", "make"), [("image", pictures), ("file", archives)])
def test_bad_files_are_refused_in_a_sentence_or_shown(
    server: Server, client: Client, picture: Any, kind: str, make: Any
) -> None:
    slots = itertools.cycle(client.slots([kind]))
    before = server.resident()
    for bad in make():
        judge(*sent(client, next(slots), bad, picture))
    assert server.resident() - before < GROWTH
    assert server.process.poll() is None


def test_bad_texts_are_refused_in_a_sentence_or_shown(client: Client, picture: Any) -> None:
    slots = itertools.cycle(client.slots(["textbox"]))
    for name, text in texts().items():
        slot = next(slots)
        data = client.usual(slot.event, picture, "a dog")
        data[slot.index] = text
        judge(client.call(slot.event, data), f"{name} in {slot}")


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**9,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "nib; rm",
    "../mini",
    "/etc/passwd",
    "openai/clip",
    [],
    ["mini"],
    {},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"__proto__": 1},
    "x" * 100_000,
    [[[[1]]]],
    "\ud800",
)


def test_values_that_no_control_gives_are_refused_in_a_sentence_or_taken(client: Client, picture: Any) -> None:
    """Sliders, choices, switches and the viewer's own values, each with values of other kinds and sizes."""
    kinds = {one["type"] for one in client.components.values()} - {"image", "file", "textbox", "state"}
    values = itertools.cycle(VALUES)
    for slot in client.slots(sorted(kinds)):
        for value in itertools.islice(values, 4):
            data = client.usual(slot.event, picture, "a dog")
            data[slot.index] = value
            judge(client.call(slot.event, data), f"{value!r:.60} in {slot}", told=False)


def test_paths_in_the_place_of_uploads_are_not_opened(server: Server, client: Client, tmp_path: Path) -> None:
    """Files of the machine, addresses, and files of Gradio's that this session did not send."""
    secret = tmp_path / f"{CANARY}.png"
    secret.write_bytes(drawn())
    meta = {"meta": {"_type": "gradio.FileData"}}
    tricks: list[Any] = [
        {"path": path, **more, **meta}
        for path in (
            str(secret),
            f"{server.folder}/said.log",
            "/etc/passwd",
            f"../../../..{secret}",
            f"file://{secret}",
            "/dev/zero",
        )
        for more in ({}, {"url": f"file://{secret}"}, {"url": f"http://127.0.0.1:9/{CANARY}"})
    ]
    tricks += [
        {"path": f"http://127.0.0.1:9/{CANARY}.png", **meta},
        {"path": "", "url": "http://127.0.0.1:9/a", **meta},
    ]
    tricks += [
        {"path": None, "url": "data:text/html;base64,AAAA", **meta},
        str(secret),
        [str(secret)],
        {"path": str(secret)},
    ]
    slots = itertools.cycle(client.slots(["image", "file"]))
    for trick in tricks:
        slot = next(slots)
        data = client.usual(slot.event, None, "a dog")
        data[slot.index] = [trick] if slot.component["props"].get("file_count") == "multiple" else trick
        judge(client.call(slot.event, data), f"{trick} in {slot}", told=False)
    assert not {path for path in server.noted("read") if CANARY in path or path in ("/etc/passwd", "/dev/zero")}


BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"data": 1}',
    b'{"data": []}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"fn_index": 1e400}',
    b"a" * 3_000_000,
)


def test_raw_requests_never_fail_the_server(server: Server, client: Client) -> None:
    """Addresses and bodies that no page sends."""
    requests: list[tuple[str, str, dict[str, Any]]] = []
    for body in BODIES:
        for path in (
            "queue/join",
            "component_server",
            "cancel",
            "reset",
            "run/predict",
            "call/explain",
            "upload",
            "api/x",
        ):
            kind = "multipart/form-data; boundary=x" if path == "upload" else "application/json"
            requests.append(("POST", f"gradio_api/{path}", {"content": body, "headers": {"Content-Type": kind}}))
    joins: list[dict[str, Any]] = [{"fn_index": n, "data": [], "session_hash": "x"} for n in (-1, 99_999, None, 0, 1)]
    joins += [
        {"fn_index": 0, "data": ["a"] * 50, "session_hash": s} for s in ("", "../x", "x" * 10_000, "\ud800", None)
    ]
    joins += [
        {"fn_index": 0, "data": [], "session_hash": "x", "event_data": e, "trigger_id": 9**9} for e in ({}, [], "x")
    ]
    requests += [("POST", "gradio_api/queue/join", {"content": json.dumps(join).encode()}) for join in joins]
    servers = [
        {"data": 1, "component_id": c, "session_hash": "x", "fn_name": f}
        for c in (0, 1, 99_999, "x")
        for f in ("x", "__init__", "preprocess")
    ]
    requests += [("POST", "gradio_api/component_server", {"json": one}) for one in servers]
    inside = [
        "/etc/passwd",
        f"{server.folder}/said.log",
        str(ROOT / "pyproject.toml"),
        "../../../../etc/passwd",
        "..%2f..%2fetc/passwd",
    ]
    inside += ["%00", "\\etc\\passwd", "", "~", ".", f"http://127.0.0.1:9/{CANARY}", "file:///etc/passwd"]
    for prefix in (
        "gradio_api/file=",
        "file=",
        "gradio_api/file/",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/proxy=",
        "custom_component/",
    ):
        requests += [("GET", prefix + path, {}) for path in inside]
    seen = [
        "config",
        "gradio_api/info",
        "gradio_api/queue/status",
        "monitoring",
        "monitoring/x",
        "gradio_api/vibe-code",
        "gradio_api/runs",
        "login",
    ]
    requests += [("GET", path, {}) for path in seen]
    requests += [(method, "", {}) for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW")]
    for method, path, options in requests:
        answer = client.ask(method, path, **options)
        label = f"{method} {path} {str(options)[:120]}"
        assert answer.status < 500, f"{label}: {answer.status} {answer.text[:300]}"
        assert "Traceback" not in answer.text, f"{label}: {answer.text[:300]}"
        assert "root:" not in answer.text, label
        assert "[build-system]" not in answer.text, label


def test_uploads_of_another_site_or_of_no_known_size_are_refused(server: Server, client: Client) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + drawn() + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for headers, content, status in (
        ({}, body, 200),
        ({"Origin": server.url.rstrip("/")}, body, 200),
        ({"Origin": "https://evil.example"}, body, 403),
        ({"Sec-Fetch-Site": "cross-site"}, body, 403),
        ({}, iter([body]), 411),  # in pieces, without a length
    ):
        answer = client.ask("POST", "gradio_api/upload", content=content, headers=kind | headers)
        assert answer.status == status, f"{headers}: {answer}"
        assert status == 200 or answer.text.endswith("."), answer


def test_two_sessions_do_not_reach_each_others_files(server: Server, client: Client) -> None:
    """The folder of uploads is not listed, and names in it cannot be guessed from outside."""
    own = Bad("own", "mine.png", drawn((31, 37)))
    (path,) = client.upload(own)[1]
    other = Client(server.url)
    for guess in (str(Path(path).parent), str(Path(path).parents[1]), str(Path(path).parents[1] / "x" / "mine.png")):
        assert other.ask("GET", f"gradio_api/file={guess}").status in (403, 404)


def test_afterwards_it_works_and_nothing_was_done_elsewhere(server: Server, client: Client, picture: Any) -> None:
    """What the process wrote, bound, called and ran in the tests above, and that it still explains."""
    event = next(iter(client.slots(["image"]))).event
    assert client.call(event, client.usual(event, picture, "a dog on the grass")).succeeded
    elsewhere = {
        path for kind in ("write", "remove") for path in server.noted(kind) if not _within(path, server.folder)
    }
    assert elsewhere <= {"/dev/null"}
    assert all("127.0.0.1" in address for address in server.noted("bind") | server.noted("connect")), server.noted(
        "connect"
    )
    assert server.noted("run") <= {"'fc-list'"}  # by which matplotlib finds fonts
    assert not list(server.folder.rglob(f"*{CANARY}*"))
    assert not {path for path in server.noted("read") if CANARY in path and not _within(path, server.folder)}


def _within(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder.resolve())
