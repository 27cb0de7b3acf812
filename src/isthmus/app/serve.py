"""Serves the page: on this machine alone unless it is told otherwise, within bounds, and without asking anybody."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.app.limits import Limits
from isthmus.app.models import Models
from isthmus.app.uploads import LIMITS as UPLOADS
from isthmus.app.work import Visit
from isthmus.errors import OptionError
from isthmus.extras import needed

LOOPBACK = "127.0.0.1"
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def launch(
    models: Sequence[str] | Models = ("mini",),
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    open_page: bool = False,
    limits: Limits | None = None,
    block: bool = True,
    **options: Any,
) -> Any:
    """Serve the page until it is interrupted.

    Args:
        models: names that `isthmus.load` takes, the first the default; or models that are loaded.
        host: the address to listen on; "0.0.0.0" lets other machines in.
        port: a port; None takes the first free one from 7860, 0 any free one.
        open_page: open the page in the browser.
        limits: bounds of the page.
        block: wait until it ends; else the running `gr.Blocks` is given back, to be closed by its `close()`.
        options: of `isthmus.load`, such as device and dtype.

    Raises:
        ModelError: no such model.
        OptionError: Gradio is not installed, or the port is taken.
    """
    os.environ.update(_QUIET)  # before Gradio is imported: it reads some of them then
    folder = tempfile.mkdtemp(prefix="isthmus-app-")  # of this server and this user alone
    os.environ["GRADIO_TEMP_DIR"] = folder
    needed("gradio")
    from isthmus.app.page import build
    from isthmus.app.visits import Uploads

    limits = limits or Limits()
    uploads = Uploads(Path(folder), limits.idle)
    atexit.register(uploads.clear)
    loaded = models if isinstance(models, Models) else Models.load(models, **options)
    blocks = build(loaded, limits)
    blocks.queue(max_size=limits.queue, api_open=False)
    try:
        blocks.launch(
            server_name=host,
            server_port=_free(host) if port == 0 else port,
            inbrowser=open_page,
            prevent_thread_lock=True,
            **_closed(limits, uploads, blocks),
        )
    except OSError as error:
        where = f"{host}, port {'from 7860' if port is None else port}"
        raise OptionError(f"The page cannot listen on {where}: choose another --port.") from error
    except ValueError as error:  # Gradio asks its own page whether it is there
        blocks.close()
        raise OptionError(
            f"The page on {host} does not answer this machine: try again if it is busy, or set "
            f"NO_PROXY={LOOPBACK},localhost if it has a proxy."
        ) from error
    if block:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are deleted then, too
        print(f"Isthmus is at {blocks.local_url} (Ctrl+C ends it).", flush=True)
        blocks.block_thread()
    return blocks


def _free(host: str) -> int:
    """A port that nobody listens on, as the system chooses it; Gradio takes 0 for a port's own number."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        return int(one.getsockname()[1])


def _closed(limits: Limits, uploads: Any, blocks: Any) -> dict[str, Any]:
    """What keeps the page to itself, as `gr.Blocks.launch` takes it."""
    from starlette.middleware import Middleware

    from isthmus.app.guard import Guard
    from isthmus.app.page import look
    from isthmus.app.stored import forget_recent
    from isthmus.app.visits import Visits
    from isthmus.app.weighing import lighten

    def forget(session: str) -> None:
        """Forget the results of a visit."""
        kept = blocks.app.state_holder.session_data.pop(session, None)
        for value in () if kept is None else kept.state_data.values():
            if isinstance(value, Visit):
                value.close()

    def left(session: str) -> None:
        """Forget all of a visit."""
        uploads.leave(session)
        forget(session)

    def back(session: str) -> None:
        """Keep a visit's state, which Gradio gives up an hour after a heartbeat has ended."""
        kept = blocks.app.state_holder.session_data.get(session)
        if kept is not None:
            kept.is_closed = False

    visits = Visits(left, back, limits.grace, limits.idle)

    def tick() -> None:
        visits.end()
        uploads.sweep()
        forget_recent()
        sessions = [*blocks.app.state_holder.session_data.items()]  # that of the last request comes last
        lighten({name: [*kept.state_data.values()] for name, kept in sessions}, limits.kept, forget)

    return {
        "share": False,
        "quiet": True,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "max_file_size": UPLOADS.archive_bytes,
        "state_session_capacity": limits.sessions,
        "app_kwargs": {
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "middleware": [Middleware(Guard, uploads=uploads, visits=visits, limits=limits, tick=tick)],
        },
        **look(),
    }
