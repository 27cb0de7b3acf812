"""Workers of a Ray cluster that misbehave; the cluster's machines import this module."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from isthmus.scale.actors import Explainer
from isthmus.scale.pieces import Piece
from isthmus.scale.raw import Raw


def noted() -> Path:
    """The folder that workers leave notes in."""
    return Path(os.environ["ISTHMUS_TEST_NOTES"])


def note(kind: str, text: str = "") -> None:
    (noted() / f"{kind}-{uuid.uuid4().hex}").write_text(text or str(os.getpid()))


class Telling(Explainer):
    """Leaves a note for each load of the model, with what it is on."""

    def _load(self, cores: int) -> Any:
        import ray

        node = ray.get_runtime_context().get_node_id()
        note("load", f"{os.getpid()} {node} {'gpu' if ray.get_gpu_ids() else 'cpu'}")
        return super()._load(cores)


def wait_for(workers: int) -> None:
    """Until so many workers have loaded."""
    for _ in range(900):
        if len(list(noted().glob("load-*"))) >= workers:
            return
        time.sleep(0.1)


class Together(Telling):
    """Begins when another worker does."""

    def _load(self, cores: int) -> Any:
        found = super()._load(cores)
        wait_for(2)
        return found


class Patient(Telling):
    """After a piece it goes on when there are three workers."""

    def _explained(self, piece: Piece) -> Any:
        if self._worker is not None:
            wait_for(3)
        return super()._explained(piece)


class Slow(Telling):
    """Takes a second for each piece, so that it can be killed at one."""

    def _explained(self, piece: Piece) -> Any:
        time.sleep(1)
        return super()._explained(piece)


def patch() -> None:
    """Let this process die wherever it explains a deadly record."""
    import isthmus.scale.worker as worker

    explain = worker.explain

    def deadly(model: Any, pictures: Any, texts: Any, **options: Any) -> Any:
        if any("deadly" in text for text in texts):
            note("death")
            os.kill(os.getpid(), signal.SIGKILL)
        return explain(model, pictures, texts, **options)

    worker.explain = deadly


class Deadly(Telling):
    """Dies at one record, whenever it explains it; so does the process that it watches then."""

    def _ended(self, piece: Piece) -> dict[str, Any]:
        if any(isinstance(item, Raw) and "deadly" in item.texts[0] for item in piece.items):
            from isthmus.scale import quarantine

            quarantine.BEFORE = "import ray_workers; ray_workers.patch()"
            patch()
        return super()._ended(piece)
