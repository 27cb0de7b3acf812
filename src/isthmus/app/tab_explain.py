"""The tab Explain: a picture and a text, what passes between them, and what an edit of the text changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from isthmus.app import history
from isthmus.app.asking import (
    CANCELLED,
    LAYER,
    QUICK,
    STEPS,
    WORK,
    Settings,
    buttons_of,
    depth_of,
    options_of,
    picture_of,
    settings_of,
    status_of,
    text_of,
    there,
    worked,
)
from isthmus.app.difference import before_and_after, similarity_change
from isthmus.app.page import Page
from isthmus.app.question import Answer, Question, ask, ask_joint, check, similarity
from isthmus.app.samples import sample, strip
from isthmus.app.saving import Shown, save_row
from isthmus.app.sentences import Refused, sentence, told
from isthmus.app.snippets import Asked, loading_of
from isthmus.app.uploads import clean_text
from isthmus.app.view import View, payload
from isthmus.app.viewer import listing, viewer
from isthmus.app.work import CancelledError, Visit
from isthmus.errors import IsthmusError

_HINT = "Choose a picture and write what it might show: its regions and words answer here."
_ENDED = "Words and regions were not prepared: press Explain for them."
_WAITING = "Preparing words and regions, so that a click will answer at once …"


@dataclass(frozen=True, eq=False)
class _Parts:
    """The components of the tab."""

    picture: Any
    text: Any
    live: Any
    run: Any
    cancel: Any
    samples: Any
    settings: Settings
    shown: Any
    status: Any
    changes: Any
    past: Any
    undo: Any
    redo: Any
    visit: Any
    kept: Any

    @property
    def asked(self) -> list[Any]:
        """What a question is made of, and whose it is."""
        return [self.picture, self.text, *self.settings.inputs, self.visit]

    @property
    def results(self) -> list[Any]:
        """What an answer fills."""
        return [self.shown, self.changes, self.past, self.undo, self.redo, self.kept]


def tab(page: Page) -> None:
    """Build the tab within the page."""
    gr = page.gradio
    visit, kept = gr.State(Visit(), delete_callback=Visit.close), gr.State()
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=1, min_width=300, elem_classes="isthmus-ask"):
            picture = picture_of(page, "explain")
            samples = strip("explain-samples")
            text = text_of(page, "explain-text", "Text", "a dog on the grass", lines=1)
            live = gr.HTML(elem_id="explain-similarity", elem_classes="isthmus-live")
            run, cancel = buttons_of(page, "explain", "Explain", visit)
            status = status_of(page, "explain")
            settings = settings_of(page, "explain")
        with gr.Column(scale=3, min_width=320, elem_classes="isthmus-answer"):
            shown = viewer("explain-viewer", hint=_HINT)
            save_row("explain", kept)
            changes = viewer("explain-changes")
            with gr.Column(elem_classes="isthmus-past"):
                with gr.Row(elem_classes="isthmus-history"):
                    gr.HTML("<h2>History</h2>")
                    undo = gr.Button("Undo", size="sm", interactive=False, elem_id="explain-undo", min_width=70)
                    redo = gr.Button("Redo", size="sm", interactive=False, elem_id="explain-redo", min_width=70)
                past = listing("explain-history")
    _connect(
        page,
        _Parts(
            picture, text, live, run, cancel, samples, settings, shown, status, changes, past, undo, redo, visit, kept
        ),
    )


def _connect(page: Page, parts: _Parts) -> None:
    """What happens when."""
    gr, settings = page.gradio, parts.settings
    filled = [*parts.results, parts.status, parts.cancel]
    explain = told(_explainer(page))
    asking = WORK | {"trigger_mode": "multiple"}  # a new question takes the place of the one that is worked on
    gr.on([parts.run.click, parts.text.submit], explain, parts.asked, filled, **asking)
    chosen = parts.samples.select(told(_sampled(page)), None, [parts.picture, parts.text], **QUICK)
    chosen.success(explain, parts.asked, filled, **asking)
    gr.on(
        [parts.text.change, parts.picture.change, settings.model.change],
        told(_live(page)),
        [parts.picture, parts.text, settings.model],
        parts.live,
        trigger_mode="always_last",
        **(WORK | {"concurrency_id": "live", "concurrency_limit": 4}),
    )
    settings.model.change(told(_deepest(page)), [settings.model, settings.layer], settings.layer, **QUICK)
    moving = WORK | {"concurrency_id": "history", "concurrency_limit": 2}
    restored = [*parts.results, parts.text, parts.picture, *settings.inputs]
    for button, by in ((parts.undo, -1), (parts.redo, 1)):
        button.click(told(_mover(page, by)), [parts.visit, parts.picture], restored, **moving)
    parts.past.select(told(_chooser(page)), [parts.visit, parts.picture], restored, **moving)


def _explainer(page: Page) -> Any:
    def explain(
        picture: Any, text: str, model: str, method: str, layer: float, steps: float, visit: Visit
    ) -> Iterator[list[Any]]:
        models = page.models
        question = Question(
            models.get(model).name,
            history.same_picture(visit, there(picture)),
            clean_text(text),
            method=method,
            options=options_of(method, layer, steps),
        )
        check(models, question)
        turn = visit.next_turn()
        try:
            yield from _steps(page, visit, question, turn)
        except Exception as error:
            cancelled = isinstance(error, CancelledError)
            if visit.turn == turn:  # else another question has taken its place
                done = page.gradio.update(interactive=False)
                yield [*_results(page, visit, waiting=_ENDED), CANCELLED if cancelled else "", done]
            if not cancelled:
                raise

    return explain


def _steps(page: Page, visit: Visit, question: Question, turn: int) -> Iterator[list[Any]]:
    """Explain, then prepare words and regions, showing each as it is there."""
    gr, models = page.gradio, page.models
    still, done = [gr.skip()] * 6, gr.update(interactive=False)

    def row(line: str) -> list[Any]:
        return [*still, line, gr.update(interactive=True)]

    answer = yield from worked(
        visit, lambda watch: ask(models, question, watch=watch, store=visit.store), row, "Explaining", turn
    )
    if visit.turn != turn:
        return
    history.keep(visit, answer, page.limits.history)
    yield [*_results(page, visit), "", done]
    if not question.joint or visit.turn != turn:  # another one was asked while the answer went to the browser
        return
    whole = yield from worked(
        visit,
        lambda watch: ask_joint(models, answer, watch=watch, store=visit.store),
        row,
        "Preparing words and regions",
        turn,
    )
    history.improve(visit, answer, whole)
    if visit.turn == turn:
        yield [*_improved(page, visit, whole), "", done]


def _sampled(page: Page) -> Any:
    def sampled(event: Any) -> list[Any]:
        found = sample(getattr(event, "index", None))
        return [page.gradio.skip()] * 2 if found is None else list(found)

    sampled.__annotations__["event"] = page.gradio.EventData
    return sampled


def _live(page: Page) -> Any:
    def live(picture: Any, text: str, model: str) -> str:
        if picture is None or isinstance(picture, Refused) or not text.strip():
            return ""
        try:
            value = similarity(page.models, model, picture, clean_text(text))
        except IsthmusError as error:  # no alarm while somebody types
            return f"<p>{escape(sentence(error))}</p>"
        width = 100 * max(0.0, min(1.0, value))
        return (
            f"<p><span>similarity</span> <b>{value:.3f}</b></p>"
            f"<div class='isthmus-meter'><div style='width:{width:.1f}%'></div></div>"
        )

    return live


def _results(page: Page, visit: Visit, *, waiting: str = _WAITING) -> list[Any]:
    """Values of `_Parts.results` for what the visitor is at."""
    update, now, former = page.gradio.update, history.shown(visit), history.before(visit)
    return [
        None if now is None else _view(now, former, waiting),
        before_and_after(former, now),
        history.listed(visit),
        update(interactive=visit.at > 0),
        update(interactive=visit.at + 1 < len(visit.answers)),
        None if now is None else _kept(now),
    ]


def _improved(page: Page, visit: Visit, whole: Answer) -> list[Any]:
    """Values of `_Parts.results` once an answer has its joint map: nothing else has changed."""
    skip = page.gradio.skip()
    if history.shown(visit) is not whole:
        return [skip] * 6
    return [_view(whole, history.before(visit), ""), *[skip] * 4, _kept(whole)]


def _view(now: Answer, former: Answer | None, waiting: str) -> View:
    more = {"id": now.question.number, "waiting": waiting if now.question.joint else ""}
    return payload(now) | more | {"change": similarity_change(former, now)}


def _kept(now: Answer) -> Shown:
    """What the buttons below the result save."""
    one, found = now.question, now.explanation
    loading, joint = loading_of(found), found.joint is not None
    asked = Asked(one.model, (one.text,), "", (one.method,), one.options, joint, loading=loading)
    return Shown((found,), (asked,), picture=one.picture)


def _mover(page: Page, by: int) -> Any:
    return lambda visit, picture: _moved(page, visit, visit.at + by, picture)


def _chooser(page: Page) -> Any:
    def choose(visit: Visit, picture: Any, event: Any) -> list[Any]:
        return _moved(page, visit, getattr(event, "index", None), picture)

    choose.__annotations__["event"] = page.gradio.EventData
    return choose


def _moved(page: Page, visit: Visit, to: Any, picture: Any) -> list[Any]:
    """Go to a result, and put its question back where it was asked; `picture` is what the page holds."""
    skip = page.gradio.skip()
    was = history.shown(visit)
    now = history.move(visit, to)
    if now is None:
        return [skip] * 12
    question, options = now.question, now.question.options
    there_already = isinstance(picture, Image.Image) and history.same_picture(visit, picture) is question.picture
    return [
        *([skip] * 6 if now is was else _results(page, visit, waiting=_ENDED)),
        question.text,
        skip if there_already else question.picture,
        question.model,
        question.method,
        options.get("layer", LAYER),
        options.get("steps", STEPS),
    ]


def _deepest(page: Page) -> Any:
    def deepest(model: str, layer: float) -> Any:
        depth = depth_of(page.models.get(model))
        return page.gradio.update(maximum=depth, value=min(layer, depth))

    return deepest
