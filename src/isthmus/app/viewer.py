"""The page's own components: drawn in the browser, by its scripts, from data that the server gives as their value."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from isthmus.extras import needed

_SCRIPTS = (
    "colour.js",
    "telling.js",
    "viewer.js",
    "display.js",
    "hand.js",
    "interactive.js",
    "lists.js",
    "page.js",
    "heartbeat.js",
)
_STYLES = ("page.css", "viewer.css", "tabs.css")


def viewer(elem_id: str, *, hint: str = "") -> Any:
    """The viewer: its value is a view, a grid of them, or None; `hint` is told while it is None."""
    return mounted(elem_id, "view", None, hint=hint)


def listing(elem_id: str) -> Any:
    """A list of former results; its event `select` tells the `index` of the one that is chosen."""
    return mounted(elem_id, "history", None)


def mounted(elem_id: str, script: str, value: Any, *, hint: str = "") -> Any:
    """A `gr.HTML` that a function of the page's scripts draws.

    Its template holds nothing of a visitor's: Gradio runs a template as code.
    """
    frame = _text("viewer.html").strip().replace('data-hint=""', f'data-hint="{escape(hint, quote=True)}"')
    return needed("gradio").HTML(
        value,
        html_template=frame,
        js_on_load=f"window.isthmus.{script}(element, props, watch, trigger)",
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=f"iv-host iv-{script}",
    )


def head() -> str:
    """The page's scripts, for its head."""
    return "".join(f"<script>{_text(name)}</script>" for name in _SCRIPTS)


def style() -> str:
    """The page's style."""
    return "\n".join(_text(name) for name in _STYLES)


def _text(name: str) -> str:
    return files("isthmus.app").joinpath(name).read_text(encoding="utf-8")
