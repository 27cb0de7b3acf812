"""The app as a process of its own, watched: what it opens, binds, calls and says."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
WATCHED = Path(__file__).parent / "watched"
STARTS_WITHIN = 600  # seconds; a busy machine imports torch slowly


@dataclass(frozen=True)
class Server:
    """A running `isthmus app`. All that it may write lies in `folder`; `home`, `work` and `temporary` are there."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def said(self) -> str:
        """What the process wrote to its output and errors so far."""
        return (self.folder / "said.log").read_text(encoding="utf-8", errors="replace")

    def noted(self, kind: str) -> set[str]:
        """What of a kind it did so far: see watched/sitecustomize.py."""
        lines = (self.folder / "watched.log").read_text(encoding="utf-8").splitlines()
        found = (line.split("\t", 1) for line in lines)
        return {ast.literal_eval(value) for one, value in found if one == kind}

    def resident(self) -> int:
        """Bytes of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's but the path to programs; home and temporary files lie in `folder`."""
    places = {name: folder / name.lower() for name in ("HOME", "WORK", "TMPDIR")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join([str(WATCHED), str(ROOT / "src")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ISTHMUS_WATCHED": str(folder / "watched.log"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(places["HOME"]),
        "TMPDIR": str(places["TMPDIR"]),
    }


@contextmanager
def running(
    folder: Path, options: Sequence[str] = ("--models", "mini"), program: Sequence[str] = ("-m", "isthmus", "app")
) -> Iterator[Server]:
    """Start the app on a free port of loopback, wait until it answers, and end it afterwards.

    Another `program`, as Python takes it, is given the same options.
    """
    port = free_port()
    surroundings = environment(folder)
    command = [sys.executable, *program, *options, "--port", str(port)]
    with (folder / "said.log").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder / "work", env=surroundings, stdout=said, stderr=said)
    server = Server(f"http://127.0.0.1:{port}/", folder, process)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise AssertionError(f"the app ended with {server.process.returncode}:\n{server.said}")
        try:
            if httpx.get(server.url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the app did not answer within {STARTS_WITHIN} s:\n{server.said}")
