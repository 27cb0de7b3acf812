"""The tab Explain: a picture and a text, what passes between them, and what an edit of the text changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from isthmus.app import history
from isthmus.app.difference import before_and_after
from isthmus.app.models import Served
from isthmus.app.page import Page
from isthmus.app.question import Answer, Question, ask, ask_joint, similarity
from isthmus.app.sentences import told
from isthmus.app.uploads import clean_text
from isthmus.app.view import payload
from isthmus.app.viewer import listing, viewer
from isthmus.app.work import CancelledError, Visit
from isthmus.errors import InputError
from isthmus.methods import METHODS

LAYER, STEPS = 0, 10  # of nib
_HINT = "Drop a picture, write what it might show, and see which regions and words speak for the match."
_WAITING = "Preparing words and regions, so that a click will answer at once …"


@dataclass(frozen=True, eq=False)
class _Parts:
    """The components of the tab."""

    picture: Any
    text: Any
    live: Any
    run: Any
    cancel: Any
    model: Any
    method: Any
    layer: Any
    steps: Any
    shown: Any
    status: Any
    changes: Any
    past: Any
    undo: Any
    redo: Any
    visit: Any

    @property
    def asked(self) -> list[Any]:
        """What a question is made of, and whose it is."""
        return [self.picture, self.text, self.model, self.method, self.layer, self.steps, self.visit]

    @property
    def results(self) -> list[Any]:
        """What an answer fills."""
        return [self.shown, self.changes, self.past, self.undo, self.redo]


def tab(page: Page) -> None:
    """Build the tab within the page."""
    gr = page.gradio
    visit = gr.State(Visit(), delete_callback=Visit.close)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=4, min_width=300, elem_classes="isthmus-ask"):
            asked = _asked(page)
        with gr.Column(scale=9, min_width=320, elem_classes="isthmus-answer"):
            found = _answer(page)
    parts = _Parts(**asked, **found, visit=visit)
    _connect(page, parts)


def _asked(page: Page) -> dict[str, Any]:
    from isthmus.app.inputs import PictureInput

    gr = page.gradio
    picture = PictureInput(
        label="Picture", sources=["upload", "clipboard", "webcam"], elem_id="explain-picture", height=260, buttons=[]
    )
    text = gr.Textbox(
        label="Text", placeholder="a dog on the grass", lines=2, max_lines=4, max_length=1000, elem_id="explain-text"
    )
    live = gr.HTML(elem_id="explain-similarity", elem_classes="isthmus-live")
    with gr.Row(elem_classes="isthmus-buttons"):
        run = gr.Button("Explain", variant="primary", elem_id="explain-run", scale=3)
        cancel = gr.Button("Cancel", interactive=False, elem_id="explain-cancel", scale=1, min_width=90)
    with gr.Accordion("Settings", open=False, elem_id="explain-settings"):
        model = gr.Dropdown(list(page.models.names), value=page.models.names[0], label="Model", elem_id="explain-model")
        method = gr.Dropdown(sorted(METHODS), value="nib", label="Method", elem_id="explain-method")
        layer = gr.Slider(
            0,
            _depth(page.models.get(None)),
            value=LAYER,
            step=1,
            label="Layer",
            info=f"the block whose input is explained; default {LAYER}",
            elem_id="explain-layer",
        )
        steps = gr.Slider(
            1,
            40,
            value=STEPS,
            step=1,
            label="Steps",
            info=f"nodes of the integral; default {STEPS}",
            elem_id="explain-steps",
        )
    return {
        "picture": picture,
        "text": text,
        "live": live,
        "run": run,
        "cancel": cancel,
        "model": model,
        "method": method,
        "layer": layer,
        "steps": steps,
    }


def _answer(page: Page) -> dict[str, Any]:
    gr = page.gradio
    shown = viewer("explain-viewer", hint=_HINT)
    status = gr.HTML(elem_id="explain-status", elem_classes="isthmus-status")
    changes = viewer("explain-changes")
    with gr.Row(elem_classes="isthmus-history"):
        undo = gr.Button("Undo", size="sm", interactive=False, elem_id="explain-undo", min_width=80)
        redo = gr.Button("Redo", size="sm", interactive=False, elem_id="explain-redo", min_width=80)
    past = listing("explain-history")
    return {"shown": shown, "status": status, "changes": changes, "past": past, "undo": undo, "redo": redo}


def _connect(page: Page, parts: _Parts) -> None:
    """What happens when."""
    gr = page.gradio
    run = gr.on(
        [parts.run.click, parts.text.submit],
        told(_explainer(page)),
        parts.asked,
        [*parts.results, parts.status, parts.cancel],
        show_progress="hidden",
        concurrency_id="model",
        concurrency_limit=4,
        api_visibility="private",
    )
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    parts.cancel.click(_cancel, parts.visit, None, **quick)
    gr.on(
        [parts.text.input, parts.picture.change, parts.model.change],
        told(_live(page)),
        [parts.picture, parts.text, parts.model],
        parts.live,
        trigger_mode="always_last",
        concurrency_id="live",
        concurrency_limit=4,
        show_progress="hidden",
        api_visibility="private",
    )
    parts.model.change(told(_sliders(page)), [parts.model, parts.layer], parts.layer, **quick)
    parts.method.change(_for_nib, parts.method, [parts.layer, parts.steps], **quick)
    restored = [*parts.results, parts.text, parts.picture, parts.model, parts.method, parts.layer, parts.steps]
    for button, by in ((parts.undo, -1), (parts.redo, 1)):
        button.click(told(_mover(page, by)), [parts.visit], restored, **quick)
    parts.past.select(told(_chooser(page)), [parts.visit], restored, **quick)
    assert run is not None


def _explainer(page: Page) -> Any:
    def explain(
        picture: Any, text: str, model: str, method: str, layer: float, steps: float, visit: Visit
    ) -> Iterator[list[Any]]:
        gr = page.gradio
        if picture is None:
            raise InputError("There is no picture yet: drop one, or choose an example.")
        question = Question(
            page.models.get(model).name,
            history.same_picture(visit, picture),
            clean_text(text),
            method=method,
            options=_options(method, layer, steps),
        )
        still, cancel = [gr.skip()] * 5, gr.update(interactive=True)
        try:
            work = visit.begin(lambda watch: ask(page.models, question, watch=watch))
            for passes, seconds in work.ticks():
                yield [*still, _told("Explaining", passes, seconds), cancel]
            answer = work.result()
            history.keep(visit, answer, page.limits.history)
            yield [*_results(page, visit), "", cancel]
            if question.joint:
                more = visit.begin(lambda watch: ask_joint(page.models, answer, watch=watch))
                for passes, seconds in more.ticks():
                    yield [*still, _told("Preparing words and regions", passes, seconds), cancel]
                history.improve(visit, answer, more.result())
                yield [*_results(page, visit), "", gr.update(interactive=False)]
        except CancelledError:
            yield [*still, "<p>Cancelled.</p>", gr.update(interactive=False)]
        yield [*still, gr.skip(), gr.update(interactive=False)]

    return explain


def _live(page: Page) -> Any:
    def live(picture: Any, text: str, model: str) -> str:
        if picture is None or not text.strip():
            return ""
        value = similarity(page.models, model, picture, clean_text(text))
        width = 100 * max(0.0, min(1.0, value))
        return (
            f"<p><span>similarity</span> <b>{value:.3f}</b></p>"
            f"<div class='isthmus-meter'><div style='width:{width:.1f}%'></div></div>"
        )

    return live


def _results(page: Page, visit: Visit) -> list[Any]:
    """Values of `_Parts.results` for what the visitor is at."""
    update, now, former = page.gradio.update, history.shown(visit), history.before(visit)
    return [
        None if now is None else _view(now, former),
        before_and_after(former, now),
        history.listed(visit),
        update(interactive=visit.at > 0),
        update(interactive=visit.at + 1 < len(visit.answers)),
    ]


def _view(now: Answer, former: Answer | None) -> dict[str, Any]:
    return payload(now) | {"id": str(id(now.question)), "waiting": _WAITING if now.question.joint else ""}


def _mover(page: Page, by: int) -> Any:
    return lambda visit: _moved(page, visit, visit.at + by)


def _chooser(page: Page) -> Any:
    def choose(visit: Visit, event: page.gradio.EventData) -> list[Any]:  # type: ignore[name-defined]
        return _moved(page, visit, getattr(event, "index", None))

    choose.__annotations__["event"] = page.gradio.EventData
    return choose


def _moved(page: Page, visit: Visit, to: Any) -> list[Any]:
    """Go to a result, and put its question back where it was asked."""
    skip = page.gradio.skip()
    was = history.shown(visit)
    now = history.move(visit, to)
    if now is None or now is was:
        return [skip] * 11
    question = now.question
    picture = skip if was is not None and was.question.picture is question.picture else question.picture
    options = question.options
    return [
        *_results(page, visit),
        question.text,
        picture,
        question.model,
        question.method,
        options.get("layer", LAYER),
        options.get("steps", STEPS),
    ]


def _sliders(page: Page) -> Any:
    def sliders(model: str, layer: float) -> Any:
        depth = _depth(page.models.get(model))
        return page.gradio.update(maximum=depth, value=min(layer, depth))

    return sliders


def _for_nib(method: str) -> list[Any]:
    import gradio as gr

    return [gr.update(visible=method == "nib")] * 2


def _cancel(visit: Visit) -> None:
    visit.cancel()


def _options(method: str, layer: float, steps: float) -> dict[str, Any]:
    """The options that are not at their default."""
    if method != "nib":
        return {}
    given = {"layer": (int(layer), LAYER), "steps": (int(steps), STEPS)}
    return {name: value for name, (value, default) in given.items() if value != default}


def _depth(served: Served) -> int:
    """The last layer that both towers have."""
    return min(served.encoder.image.depth, served.encoder.text.depth)


def _told(what: str, passes: int, seconds: float) -> str:
    return f"<p>{what} · {passes} passes · {seconds:.1f} s</p>"
