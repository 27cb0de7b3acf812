"""The tab Folder: several pictures or a zip of them with one text, as a gallery that is sorted and opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from typing import Any

from isthmus.app.asking import CANCELLED, QUICK, WORK, buttons_of, options_of, settings_of, status_of, text_of, worked
from isthmus.app.gallery import ORDERS, Gallery, Restored, left_out_said
from isthmus.app.page import Page
from isthmus.app.question import Answer, ask, ask_joint, check_texts
from isthmus.app.saving import Shown, save_row
from isthmus.app.sentences import sentence, told
from isthmus.app.snippets import Asked, loading_of
from isthmus.app.uploads import LIMITS, Gathered, Upload, clean_text
from isthmus.app.view import View, payload
from isthmus.app.viewer import viewer
from isthmus.app.work import CancelledError, Visit
from isthmus.encoders.pictures import PICTURE_SUFFIXES
from isthmus.errors import InputError, IsthmusError

WAITING = "Preparing words and regions, so that a click will answer at once …"
_BACK = "<p><a href='#folder-gallery'>Back to all pictures</a></p>"
ENDED = "Words and regions were not prepared: open the picture again for them."
_HINT = f"Give several pictures or a zip, at most {LIMITS.pictures}, and see how well each matches one text, and why."

# The opened picture lies below the gallery: sight and focus go there as soon as its name stands over it.
_GO_THERE = """() => {
  const wanted = document.activeElement?.textContent;
  let left = 50;
  const timer = setInterval(() => {
    const name = document.querySelector('#folder-opened h2');
    if (!--left || (name && name.textContent === wanted)) clearInterval(timer);
    if (!name || name.textContent !== wanted) return;
    name.tabIndex = -1;
    name.focus();
    name.scrollIntoView();
  }, 100);
}"""


def tab(page: Page) -> None:
    """Build the tab within the page."""
    from isthmus.app.inputs import FilesInput

    gr = page.gradio
    visit = gr.State(Visit(), delete_callback=Visit.close)
    kept, shown, whole = gr.State(None), gr.State(None), gr.State(None)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=1, min_width=300, elem_classes="isthmus-ask"):
            files = FilesInput(
                label="Pictures, or a zip of them",
                file_count="multiple",
                file_types=[*sorted(PICTURE_SUFFIXES), ".zip"],
                elem_id="folder-files",
                height=180,
            )
            text = text_of(page, "folder-text", "Text", "a dog on the grass", lines=1)
            run, cancel = buttons_of(page, "folder", "Explain all", visit)
            status = status_of(page, "folder")
            settings = settings_of(page, "folder")
        with gr.Column(scale=3, min_width=320, elem_classes="isthmus-answer"):
            order = gr.Radio(list(ORDERS), value="similarity", label="Sorted by", elem_id="folder-order", visible=False)
            said = gr.HTML(elem_id="folder-summary", elem_classes="isthmus-status")
            cards = viewer("folder-gallery", hint=_HINT)
            with gr.Column():  # the style hides the row below a viewer that is empty
                save_row("folder-all", whole, picture=False)
            name = gr.HTML(elem_id="folder-opened", elem_classes="isthmus-history")
            preparing = status_of(page, "folder-opened")
            stop = gr.Button("Cancel", size="sm", visible=False, elem_id="folder-opened-cancel")
            opened = viewer("folder-viewer")
            save_row("folder", shown)
    asked = [files, text, *settings.inputs, order, visit]
    filled = [cards, name, opened, kept, shown, said, status, cancel, whole, order, preparing, stop]
    gr.on([run.click, text.submit], told(_explainer(page)), asked, filled, **WORK)
    stop.click(Visit.cancel, visit, None, **QUICK)
    order.change(told(_sorted), [kept, order], cards, **QUICK)
    opening = WORK | {"trigger_mode": "multiple"}  # another picture takes the place of the one that is opened
    # In the queue, without which the page does not learn that a state has changed.
    cards.select(None, None, None, js=_GO_THERE)
    cards.select(told(_opener(page)), [kept, order, visit], [name, opened, shown, preparing, stop], **opening)


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
        check_texts(page.models, served, method, [gallery.text])
        turn = visit.next_turn()  # what is still prepared for an opened picture has lost its place
        hidden, off = gr.update(visible=False), gr.update(interactive=False)
        yield [None, "", None, None, None, "", "", gr.update(interactive=True), None, hidden, "", hidden]
        ended = ""
        try:
            yield from _all(page, visit, gallery, files.uploads, turn)
        except CancelledError:
            ended = "Cancelled. "
        except Exception:
            if visit.turn == turn:
                yield [*[gr.skip()] * 6, "", off, *[gr.skip()] * 4]
            raise
        if visit.turn != turn:  # other pictures have taken their place
            return
        cards, several = gallery.view(_known(order)), gr.update(visible=len(gallery.items) > 1)
        whole = whole_of(gallery) if gallery.items else None
        yield [cards, "", None, gallery, None, _said(gallery, ended), "", off, whole, several, "", hidden]

    return explain_all


def _all(page: Page, visit: Visit, gallery: Gallery, uploads: Sequence[Upload], turn: int) -> Iterator[list[Any]]:
    """Explain the pictures, telling which one is at work. Raises InputError where none of them gives anything."""
    gr, total, before = page.gradio, len(uploads), gallery.done

    def row(line: str) -> list[Any]:
        return [*[gr.skip()] * 6, line, gr.update(interactive=True), *[gr.skip()] * 4]

    def at() -> str:
        return f"Picture {min(total, 1 + gallery.done - before)} of {total}"

    yield from worked(visit, partial(_add_all, page, gallery, uploads), row, at, turn)
    if not gallery.items:
        raise InputError(f"None of these pictures can be explained: {left_out_said(gallery.left_out)}")


def _add_all(page: Page, gallery: Gallery, uploads: Sequence[Upload], watch: Callable[[int], None]) -> None:
    """Explain one picture after the other; one that cannot be used is left out with its reason."""
    for upload in uploads:
        watch(0)  # a picture that cannot be used has no pass
        try:
            gallery.add(upload, ask(page.models, gallery.question(upload), watch=watch, long=True))
        except CancelledError:
            raise
        except IsthmusError as error:
            gallery.left_out.append((upload.name, sentence(error)))


def _sorted(gallery: Gallery | None, order: str) -> Any:
    return None if gallery is None else gallery.view(_known(order))


def _opener(page: Page) -> Any:
    gr = page.gradio

    def open_one(gallery: Gallery | None, order: str, visit: Visit, event: Any) -> Iterator[Any]:
        place = getattr(event, "index", None)
        if gallery is None or not isinstance(place, int) or not 0 <= place < len(gallery.items):
            raise InputError("This picture is no longer here: explain the pictures again.")
        item, done = gallery.ordered(_known(order))[place], gr.update(visible=False)
        answer = item.answer(gallery.question(item.upload))
        heading = f"<h2>{escape(item.upload.name)}</h2>{_BACK}"
        turn = visit.next_turn()
        visit.cancel()
        yield [heading, _view(answer), shown_of(answer), "", done]
        if not answer.question.joint or visit.turn != turn:
            return

        def row(line: str) -> list[Any]:
            return [*[gr.skip()] * 3, line, gr.update(visible=True)]

        try:
            whole = yield from worked(
                visit,
                lambda watch: ask_joint(page.models, answer, watch=watch),
                row,
                "Preparing words and regions",
                turn,
            )
        except Exception as error:
            cancelled = isinstance(error, CancelledError)
            if visit.turn == turn:
                yield [heading, _view(answer) | {"waiting": ENDED}, gr.skip(), CANCELLED if cancelled else "", done]
            if not cancelled:
                raise
            return
        if visit.turn == turn:
            yield [heading, _view(whole), shown_of(whole), "", done]

    open_one.__annotations__["event"] = gr.EventData
    return open_one


def _view(answer: Answer) -> View:
    return payload(answer) | {"id": answer.question.number, "waiting": WAITING if answer.question.joint else ""}


def shown_of(answer: Answer) -> Shown:
    """What is saved and copied of the opened picture."""
    one, found = answer.question, answer.explanation
    loading, joint = loading_of(found), found.joint is not None
    asked = Asked(one.model, (one.text,), "", (one.method,), one.options, joint, loading=loading)
    return Shown((found,), (asked,), picture=one.picture)


def whole_of(gallery: Gallery) -> Shown:
    """What is saved and copied of all pictures."""
    names = tuple(item.upload.called for item in gallery.items)
    loading = loading_of(gallery.items[0].explanation)
    asked = Asked(
        gallery.model, (gallery.text,), "", (gallery.method,), gallery.options, pictures=names, loading=loading
    )
    return Shown(Restored(gallery), (asked,))


def _known(order: Any) -> str:
    if order not in ORDERS:
        raise InputError(f"There is no such order: choose {', '.join(ORDERS)}.")
    return str(order)


def _said(gallery: Gallery, ended: str) -> str:
    there = f"{len(gallery.items)} pictures, all on one scale; choose one to open it below."
    lines = [ended + (there if gallery.items else "No picture was explained.")]
    lines += [left_out_said(gallery.left_out)] if gallery.left_out else []
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
