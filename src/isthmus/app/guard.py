"""What stands before Gradio: it lets through what the page needs, refuses the rest, and hears who is there."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isthmus.app.limits import Limits
from isthmus.app.visits import LONGEST, Uploads, Visits

_LOG = logging.getLogger("isthmus.app")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LARGEST = 4 << 20  # bytes of a request that is no upload
_API = r"/gradio_api/"
_OPEN = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?"
    r"|/(assets|static|svelte|node)/.+"
    rf"|{_API}(app_id|startup-events|theme\.css|login_check|user|upload|upload_progress|cancel|reset)/?"
    rf"|{_API}(queue/(join|data)|heartbeat/\w+|file=.+|(run|api)/\w+|component_server)/?"
)
_ADDRESS = re.compile(r"^\s*[a-z][a-z0-9+.\-]*://|^\s*//", re.IGNORECASE)
_BODY = re.compile(rf"{_API}(queue/join|cancel|reset|component_server|run/.*|api/.*)/?")
_HEARTBEAT = re.compile(rf"{_API}heartbeat/(\w+)/?")
_JOIN = re.compile(rf"{_API}queue/join/?")
_FULL = "As many questions wait already as the server takes: ask again in a minute."
_UPLOAD = re.compile(rf"{_API}upload/?")
_ANSWERS = re.compile(rf"{_API}queue/data/?")

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}


class Guard:
    """An ASGI middleware around Gradio."""

    def __init__(self, app: Any, uploads: Uploads, visits: Visits, limits: Limits, tick: Callable[[], None]) -> None:
        """Guard `app`; `tick` is called now and then as long as the server runs, in a thread of its own."""
        self.app, self.uploads, self.visits, self.limits, self._tick = app, uploads, visits, limits, tick
        self._on_the_way = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            with self._connection(scope):
                await self._answer(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """From the server's start to its end."""
        ticking = asyncio.create_task(self._ticking())
        try:
            await self.app(scope, receive, send)
        finally:
            ticking.cancel()

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(self.visits.period)
            try:
                await asyncio.to_thread(self._tick)
            except Exception:  # the next one may go better, and without any nothing is ever deleted
                _LOG.exception("visits that have ended could not be forgotten")

    def _connection(self, scope: Scope) -> AbstractContextManager[None]:
        """What a request tells of its visit for as long as it lasts."""
        beat = _HEARTBEAT.fullmatch(scope["path"]) if scope["method"] == "GET" else None
        if beat is not None:
            return self.visits.connected(beat[1], heartbeat=True)
        if _ANSWERS.fullmatch(scope["path"]):
            (visit,) = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[:1]
            if visit:
                return self.visits.connected(visit, heartbeat=False)
        return nullcontext()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, started = scope["path"], False
        send = _fullness_said(send) if _JOIN.fullmatch(path) else send

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *_encoded(HEADERS)]}
            await send(message)

        upload = scope["method"] == "POST" and _UPLOAD.fullmatch(path)
        refusal = _refusal(scope) or (await self._room(scope) if upload else None)
        if refusal is not None:
            await _say(sending, *refusal, plain=bool(upload))
            return
        try:
            if scope["method"] == "POST" and _BODY.fullmatch(path):
                body, receive = await _whole(receive)
                wrong = self._read(body)
                if wrong is not None:
                    await _say(sending, *wrong)
                    return
            with self._coming(_length(scope) or 0) if upload else nullcontext():
                await self.app(scope, receive, sending)
        except Exception as error:
            if started:
                raise
            _LOG.warning(
                "a request that the page does not make: %s %s (%s)", scope["method"], path, type(error).__name__
            )
            await _say(sending, 400, "The page does not ask this: load it again.")

    async def _room(self, scope: Scope) -> tuple[int, str] | None:
        """A refusal where an upload is too large, or the disk too full for it."""
        length = _length(scope)
        if length is None:
            return 411, "An upload must say how large it is: give it on the page."
        if length > self.limits.upload:
            return 413, f"This has {length >> 20:,} MB: give at most {self.limits.upload >> 20:,} MB at once."
        if self._on_the_way + length + await asyncio.to_thread(self.uploads.bytes) > self.limits.disk:
            return 413, "The server holds as many files as it takes: try again later."
        return None

    @contextmanager
    def _coming(self, length: int) -> Iterator[None]:
        """Uploads that have not all arrived yet count as if they had."""
        self._on_the_way += length
        try:
            yield
        finally:
            self._on_the_way -= length

    def _read(self, body: bytes | None) -> tuple[int, str] | None:
        """Note the uploads that a request uses. Gives a refusal where it is none of the page's."""
        if body is None:
            return 413, "This is more than the page takes: give a shorter text."
        try:
            data = json.loads(body or b"null")
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return 400, "This request is damaged: load the page again."
        if not isinstance(data, dict):
            return 400, "This request is damaged: load the page again."
        try:
            strings = [*_paths(data)]
        except RecursionError:
            return 400, "This request is damaged: load the page again."
        if any(_ADDRESS.match(name) for name in strings):
            return 403, "Addresses are not fetched: give a file."
        visit = data.get("session_hash")
        if isinstance(visit, str) and len(visit) <= LONGEST:
            self.visits.heard(visit)
            self.uploads.note(visit, iter(strings))
        return None


def _refusal(scope: Scope) -> tuple[int, str] | None:
    path = scope["path"]
    if scope["method"] not in ("GET", "HEAD") and _from_elsewhere(scope):
        return 403, "Another site asks this in your name: open the page itself."
    if not _OPEN.fullmatch(path):
        return 404, "There is nothing here."
    file = path.partition("/gradio_api/file=")[2]
    if file and _ADDRESS.match(file):
        return 403, "Addresses are not fetched: give a file."
    return None


def _from_elsewhere(scope: Scope) -> bool:
    """Whether another site's page makes a browser ask this. What is no browser says nothing of where it comes from."""
    headers = _headers(scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "cross-site":
        return True
    if origin is None or site == "same-origin":  # no page can forge that, and a proxy may change the host's name
        return False
    hosts = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    return urlsplit(origin).netloc.lower() not in [host.strip().lower() for host in hosts if host.strip()]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", [])}


def _length(scope: Scope) -> int | None:
    """The bytes that a request announces, which the server holds it to."""
    headers = _headers(scope)
    given = "" if "transfer-encoding" in headers else headers.get("content-length", "")  # it goes before the length
    return int(given) if given.isascii() and given.isdigit() else None


def _paths(data: Any) -> Iterator[str]:
    """Every path of a file that a request names."""
    if isinstance(data, dict):
        if isinstance(data.get("path"), str):
            yield data["path"]
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from _paths(item)


async def _whole(receive: Receive) -> tuple[bytes | None, Receive]:
    """A request's body, None where it is too large, and a way to read it again."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        size += len(message.get("body", b""))
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
        if size > _LARGEST:
            return None, receive
    body, given = b"".join(parts), False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again


def _fullness_said(send: Send) -> Send:
    """Answer that the queue is full in a sentence of our own; at Gradio's 503 the page would show one of Gradio's."""
    full = False

    async def sending(message: MutableMapping[str, Any]) -> None:
        nonlocal full
        if message["type"] == "http.response.start" and message["status"] == 503:
            full = True
            start, body = _said(429, _FULL)
            await send({**start, "headers": [*start["headers"], *_encoded(HEADERS)]})
            await send(body)
        elif not full:
            await send(message)

    return sending


async def _say(send: Send, status: int, text: str, *, plain: bool = False) -> None:
    """Answer with a sentence; `plain` where the page shows the answer as it is."""
    for message in _said(status, text, plain=plain):
        await send(message)


def _said(status: int, text: str, *, plain: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Such an answer."""
    headers = _encoded({"content-type": "text/plain; charset=utf-8" if plain else "application/json"})
    body = text if plain else json.dumps({"detail": text})
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body.encode()}


def _encoded(headers: MutableMapping[str, str] | dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
