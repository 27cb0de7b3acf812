"""The page: its tabs, its look, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from inspect import signature
from typing import Any

from isthmus.app.limits import Limits
from isthmus.app.models import Models
from isthmus.app.viewer import head, style
from isthmus.extras import needed

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
# Gradio's own greys for small print are too faint to read.
_INK = {
    f"{name}{mode}": colour
    for name in ("body_text_color_subdued", "block_info_text_color", "input_placeholder_color")
    for mode, colour in (("", "#5c5c66"), ("_dark", "#a9a9b4"))
}


@dataclass(frozen=True, eq=False)
class Page:
    """What the tabs share.

    Attributes:
        gradio: the library's module.
        models: the models of the page.
        limits: its bounds.
    """

    gradio: Any
    models: Models
    limits: Limits


def build(models: Models, limits: Limits | None = None) -> Any:
    """The page as a `gr.Blocks`, to be launched with `look()`.

    Args:
        models: those it offers.
        limits: its bounds.

    Raises:
        OptionError: Gradio is not installed.
    """
    gr = needed("gradio")
    from isthmus.app.inputs import refuse_addresses

    refuse_addresses()
    page = Page(gr, models, limits or Limits())
    with gr.Blocks(
        title="Isthmus",
        analytics_enabled=False,
        fill_width=False,
    ) as blocks:
        gr.HTML(_title(models), elem_id="title")
        with gr.Tabs(elem_id="tabs", **_all_in_sight(gr)):
            for name, tab in _tabs():
                with gr.Tab(name, id=name.lower()):
                    tab(page)
    _without_heartbeat(blocks)
    return blocks


def _without_heartbeat(blocks: Any) -> None:
    """Leave the heartbeat to heartbeat.js, which opens it again where it breaks off."""
    configured = blocks.get_config_file

    def config(*args: Any, **kwargs: Any) -> Any:
        return configured(*args, **kwargs) | {"connect_heartbeat": False}

    blocks.get_config_file = config
    blocks.config = config()


def _all_in_sight(gr: Any) -> dict[str, Any]:
    """Tabs wrap where they have no room, instead of hiding in a menu without a name, where Gradio is new enough."""
    name = "overflow_behavior"
    return {name: "wrap"} if name in signature(gr.Tabs).parameters else {}


def _title(models: Models) -> str:
    """What the page is, and which models it has."""
    names = ", ".join(f"<b>{escape(name)}</b>" for name in models.names)
    notices = " ".join(escape(notice) for notice in models.notices)
    return (
        "<h1>Isthmus</h1><p>See what passes between a picture and a text, as a model sees it.</p>"
        f"<p class='isthmus-models'>{'Model' if len(models.names) == 1 else 'Models'}: {names}. {notices}</p>"
    )


def _tabs() -> list[tuple[str, Callable[[Page], None]]]:
    from isthmus.app import tab_compare, tab_contrast, tab_explain, tab_folder, tab_prompts

    return [
        ("Explain", tab_explain.tab),
        ("Contrast", tab_contrast.tab),
        ("Compare", tab_compare.tab),
        ("Prompts", tab_prompts.tab),
        ("Folder", tab_folder.tab),
    ]


def look() -> dict[str, Any]:
    """Theme, style and scripts, as `launch` takes them; nothing of them comes from elsewhere."""
    gr = needed("gradio")
    theme = gr.themes.Base(
        primary_hue="slate", secondary_hue="slate", neutral_hue="zinc", radius_size="lg", font=_FONT, font_mono=_MONO
    ).set(**_INK)
    return {"theme": theme, "css": style(), "head": head()}
