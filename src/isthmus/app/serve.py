"""Serves the page: on this machine alone unless it is told otherwise, within bounds, and without asking anybody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from isthmus.app.limits import Limits
from isthmus.app.models import Models
from isthmus.app.uploads import LIMITS as UPLOADS
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
        port: a port; None takes the first free one from 7860.
        open_page: open the page in the browser.
        limits: bounds of the page.
        block: wait until it ends; else the running `gr.Blocks` is given back, to be closed by its `close()`.
        options: of `isthmus.load`, such as device and dtype.

    Raises:
        ModelError: no such model.
        OptionError: Gradio is not installed, or the port is taken.
    """
    os.environ.update(_QUIET)  # before Gradio is imported: it reads some of them then
    needed("gradio")
    from isthmus.app.page import build, look

    limits = limits or Limits()
    loaded = models if isinstance(models, Models) else Models.load(models, **options)
    blocks = build(loaded, limits)
    blocks.queue(max_size=limits.queue, api_open=False)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_page,
            share=False,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=UPLOADS.archive_bytes,
            state_session_capacity=limits.sessions,
            prevent_thread_lock=True,
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            **look(),
        )
    except OSError as error:
        raise OptionError(
            f"The page cannot listen on {host}, port {port or 'from 7860'}: choose another --port."
        ) from error
    if block:
        print(f"Isthmus is at {blocks.local_url} (Ctrl+C ends it).")
        blocks.block_thread()
    return blocks
