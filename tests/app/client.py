"""Speaks to the running app as a hostile client can: plain HTTP, any file, any value in any place."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.bad_pictures import Bad

QUICK = "gradcam"  # a method of few passes, which has no joint map of words and regions
WITHIN = 120  # seconds that one answer may take on a busy machine


@dataclass(frozen=True)
class Answer:
    """What came back: the status and everything that a person could read in it."""

    status: int
    text: str
    events: tuple[Mapping[str, Any], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the event ended, well or with a message."""
        return any(event["msg"] == "process_completed" for event in self.events)

    @property
    def succeeded(self) -> bool:
        return any(event["msg"] == "process_completed" and event["success"] for event in self.events)

    @property
    def message(self) -> str:
        """The sentence of an error, "" where there is none."""
        ends = [event for event in self.events if event["msg"] == "process_completed" and not event["success"]]
        return str(ends[0]["output"].get("error") or "") if ends else ""


@dataclass
class Slot:
    """One input of one event of the page."""

    event: Mapping[str, Any]
    index: int
    component: Mapping[str, Any]

    def __str__(self) -> str:
        shown = self.component["props"].get("label") or self.component["props"].get("elem_id") or self.component["id"]
        return f"{self.event['api_name'] or self.event['id']}: {shown}"


@dataclass
class Client:
    """A session without a browser."""

    url: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:11])

    def __post_init__(self) -> None:
        once = httpx.Limits(max_keepalive_connections=0)  # a server that failed at one request hangs up
        self.http = httpx.Client(base_url=self.url, timeout=WITHIN, limits=once)
        self.config = self.http.get("config").json()
        self.components = {one["id"]: one for one in self.config["components"]}

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Any request."""
        found = self.http.request(method, path, **options)
        return Answer(found.status_code, found.text)

    def upload(self, bad: Bad) -> tuple[Answer, list[str]]:
        """Send a file as the page does; the answer and the server's names of what it took."""
        name = bad.filename.replace("\r", "%0D").replace("\n", "%0A")
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="'.encode()
        head += name.replace('"', "%22").encode("utf-8", "surrogatepass")
        body = head + b'"\r\nContent-Type: image/png\r\n\r\n' + bad.data + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = self.ask("POST", "gradio_api/upload", content=body, headers=kind)
        return answer, json.loads(answer.text) if answer.status == 200 else []

    def slots(self, kinds: Sequence[str]) -> Iterator[Slot]:
        """Every input of these kinds of components, of every event that runs on the server."""
        for event in self.config["dependencies"]:
            if event.get("backend_fn"):
                for index, id_ in enumerate(event["inputs"]):
                    if self.components[id_]["type"] in kinds:
                        yield Slot(event, index, self.components[id_])

    def usual(self, event: Mapping[str, Any], picture: Any, text: str) -> list[Any]:
        """Inputs of an event as an untroubled person would leave them."""
        return [self._usual(self.components[id_], picture, text) for id_ in event["inputs"]]

    def _usual(self, component: Mapping[str, Any], picture: Any, text: str) -> Any:
        kind, value = component["type"], component["props"].get("value")
        if component["props"].get("elem_id", "").endswith(("-method", "-methods")):
            return [QUICK] if isinstance(value, list) else QUICK
        if kind == "image":
            return picture
        if kind == "textbox":
            return value or text
        return None if kind == "state" else value

    def call(self, event: Mapping[str, Any], data: Sequence[Any], **more: Any) -> Answer:
        """Run an event with these inputs and read its stream to the end."""
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "trigger_id": None, **more}
        content = json.dumps(body).encode()
        found = self.http.post("gradio_api/queue/join", content=content, headers={"Content-Type": "application/json"})
        if found.status_code != 200:
            return Answer(found.status_code, found.text)
        address = f"gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", address) as stream:
            lines = [line[5:] for line in stream.iter_lines() if line.startswith("data:")]
        events = tuple(json.loads(line) for line in lines)
        return Answer(found.status_code, "\n".join(lines), events)


def file_of(path: str, bad: Bad) -> dict[str, Any]:
    """How the page names a file that it has sent."""
    return {"path": path, "orig_name": bad.filename, "size": len(bad.data), "meta": {"_type": "gradio.FileData"}}
