"""The viewer as a component of the page: one for every tab, drawn in the browser from what `view.payload` gives."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from isthmus.extras import needed

_SCRIPTS = ("colour.js", "viewer.js", "interactive.js", "history.js")
_STYLES = ("page.css", "viewer.css")


def viewer(elem_id: str, *, hint: str = "") -> Any:
    """A `gr.HTML` whose value is a view, a grid of them, or None; `hint` is told while it is None.

    Its templates hold nothing of a visitor's: Gradio runs a template as code.
    """
    frame = _text("viewer.html").replace('data-hint=""', f'data-hint="{escape(hint, quote=True)}"')
    return needed("gradio").HTML(
        None,
        html_template=frame.strip(),
        js_on_load="window.isthmus.view(element, props, watch)",
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="iv-host",
    )


def head() -> str:
    """The viewer's scripts, for the head of the page."""
    return "".join(f"<script>{_text(name)}</script>" for name in _SCRIPTS)


def style() -> str:
    """The page's own style and the viewer's."""
    return "\n".join(_text(name) for name in _STYLES)


def _text(name: str) -> str:
    return files("isthmus.app").joinpath(name).read_text(encoding="utf-8")
