"""The tab Folder: several pictures or a zip of them with one text, as a gallery that is sorted and opened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape
from typing import Any

from isthmus.app.asking import QUICK, WORK, buttons_of, options_of, settings_of, text_of, worked
from isthmus.app.gallery import ORDERS, Gallery, left_out_said
from isthmus.app.page import Page
from isthmus.app.question import Question, ask
from isthmus.app.saving import Shown, save_row
from isthmus.app.sentences import sentence, told
from isthmus.app.snippets import Asked
from isthmus.app.uploads import LIMITS, Gathered, Upload, clean_text
from isthmus.app.view import payload
from isthmus.app.viewer import viewer
from isthmus.app.work import CancelledError, Visit
from isthmus.encoders.pictures import PICTURE_SUFFIXES
from isthmus.errors import InputError, IsthmusError

_HINT = f"Give several pictures or a zip, at most {LIMITS.pictures}, and see how well each matches one text, and why."


def tab(page: Page) -> None:
    """Build the tab within the page."""
    from isthmus.app.inputs import FilesInput

    gr = page.gradio
    visit = gr.State(Visit(), delete_callback=Visit.close)
    kept, shown = gr.State(None), gr.State(None)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=4, min_width=300, elem_classes="isthmus-ask"):
            files = FilesInput(
                label="Pictures, or a zip of them",
                file_count="multiple",
                file_types=[*sorted(PICTURE_SUFFIXES), ".zip"],
                elem_id="folder-files",
                height=180,
            )
            text = text_of(page, "folder-text", "Text", "a dog on the grass")
            run, cancel = buttons_of(page, "folder", "Explain all", visit)
            settings = settings_of(page, "folder")
        with gr.Column(scale=9, min_width=320, elem_classes="isthmus-answer"):
            order = gr.Radio(list(ORDERS), value="similarity", label="Sorted by", elem_id="folder-order")
            status = gr.HTML(elem_id="folder-status", elem_classes="isthmus-status")
            cards = viewer("folder-gallery", hint=_HINT)
            opened = viewer("folder-viewer")
            save_row("folder", shown)
    asked = [files, text, *settings.inputs, order, visit]
    results = [cards, opened, kept, shown, status, cancel]
    gr.on([run.click, text.submit], told(_explainer(page)), asked, results, **WORK)
    order.change(told(_sorted), [kept, order], cards, **QUICK)
    opening = {**WORK, "concurrency_id": "opening"}  # in the queue, without which a state's change is not told
    cards.select(told(_opener(page)), [kept, order], [opened, shown], **opening)


def _explainer(page: Page) -> Any:
    gr = page.gradio

    def explain_all(
        files: Gathered | None,
        text: str,
        model: str,
        method: str,
        layer: float,
        steps: float,
        order: str,
        visit: Visit,
    ) -> Iterator[Any]:
        if files is None:
            raise InputError("There are no pictures yet: drop some, or a zip of them.")
        served = page.models.get(model).name
        gallery = Gallery(served, clean_text(text), method, options_of(method, layer, steps), [], [*files.left_out])
        still = [gr.skip()] * 4

        def row(line: str) -> list[Any]:
            return [*still, line, gr.update(interactive=True)]

        ended = ""
        try:
            for number, upload in enumerate(files.uploads, 1):
                what = f"Picture {number} of {len(files.uploads)}"
                yield from worked(visit, partial(_add, page, gallery, upload), row, what)
        except CancelledError:
            ended = "Cancelled. "
        if not gallery.items and not ended:
            raise InputError(f"None of these pictures can be explained: {left_out_said(gallery.left_out)}")
        yield [
            gallery.view(_known(order)),
            None,
            gallery,
            None,
            _said(gallery, ended),
            gr.update(interactive=False),
        ]

    return explain_all


def _add(page: Page, gallery: Gallery, upload: Upload, watch: Any) -> None:
    """Explain one picture; one that cannot be used is left out with its reason."""
    watch(0)
    try:
        gallery.add(upload, ask(page.models, _question(gallery, upload), watch=watch))
    except CancelledError:
        raise
    except IsthmusError as error:
        gallery.left_out.append((upload.name, sentence(error)))


def _question(gallery: Gallery, upload: Upload) -> Question:
    return Question(gallery.model, upload.picture(), gallery.text, None, gallery.method, gallery.options)


def _sorted(gallery: Gallery | None, order: str) -> Any:
    return None if gallery is None else gallery.view(_known(order))


def _opener(page: Page) -> Any:
    def open_one(gallery: Gallery | None, order: str, event: page.gradio.EventData) -> Any:  # type: ignore[name-defined]
        place = getattr(event, "index", None)
        if gallery is None or not isinstance(place, int) or not 0 <= place < len(gallery.items):
            raise InputError("This picture is no longer here: explain the pictures again.")
        item = gallery.ordered(_known(order))[place]
        answer = item.answer(_question(gallery, item.upload))
        asked = Asked(
            gallery.model, (gallery.text,), methods=(gallery.method,), options=gallery.options, pictures=_names(gallery)
        )
        view = payload(answer, title=item.upload.name) | {"id": str(id(answer))}
        return view, Shown((answer.explanation,), (asked,))

    open_one.__annotations__["event"] = page.gradio.EventData
    return open_one


def _names(gallery: Gallery) -> tuple[str, ...]:
    return tuple(item.upload.name for item in gallery.items)


def _known(order: Any) -> str:
    if order not in ORDERS:
        raise InputError(f"There is no such order: choose {', '.join(ORDERS)}.")
    return str(order)


def _said(gallery: Gallery, ended: str) -> str:
    lines = [f"{ended}{len(gallery.items)} pictures, all on one scale; choose one to open it below."]
    lines += [left_out_said(gallery.left_out)] if gallery.left_out else []
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
