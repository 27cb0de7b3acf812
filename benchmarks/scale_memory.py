"""Peaks of memory of a process and all that it started, by what they are, and the time of the CPU that they took."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

_EVERY = 0.5  # seconds
_KINDS = {
    "ray::MapWorker": "worker",
    "ray::MapBatches": "worker",
    "ray::FlatMap": "reader",
    "ray::": "reader",  # between tasks: ray::IDLE
    "isthmus.scale.opening": "decoder",
}


class Memory(threading.Thread):
    """Reads, while it is open, what processes hold for themselves; `peaks` then has MiB by kind.

    A kind's figure is that of the largest process of it. `shared` is what the processes of a Ray cluster share, of the
    machine with the most. Pages of files, such as mapped libraries and weights, count once for each process.

    `seconds` are those of the CPU, of all processes together, by the clock: a machine that has other work changes them
    little, unlike the time that a run takes.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, int] = {}
        self.seconds: list[tuple[float, float]] = []
        self._taken: dict[int, float] = {}
        self._over = threading.Event()

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(_EVERY):
            for process in tree(os.getpid()):
                self._taken[process] = max(self._taken.get(process, 0.0), seconds_of(process))
                held, shared = sizes(process)
                kind = "driver" if process == os.getpid() else kind_of(process)
                for name, size in ((kind, held), ("shared", shared)):
                    self.peaks[name] = max(self.peaks.get(name, 0), size >> 20)
            self.seconds.append((time.monotonic(), sum(self._taken.values())))

    def between(self, begin: float, end: float) -> float:
        """Seconds of the CPU between two times of `time.monotonic`."""
        found = [taken for at, taken in self.seconds if begin <= at <= end]
        return found[-1] - found[0] if found else 0.0


def kind_of(process: int) -> str:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "other"
    return next((kind for part, kind in _KINDS.items() if part in command), "other")


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                stat = (path / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(path.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def sizes(process: int) -> tuple[int, int]:
    """Bytes that a process holds for itself, and that it shares with others."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = (line.partition(":") for line in lines)
    values = {name: int(value.split()[0]) << 10 for name, _, value in fields if value.endswith("kB")}
    return values.get("RssAnon", 0) + values.get("RssFile", 0), values.get("RssShmem", 0)


def seconds_of(process: int) -> float:
    """Seconds of the CPU that a process took."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
