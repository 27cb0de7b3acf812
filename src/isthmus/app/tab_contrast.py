"""The tab Contrast: why this text rather than that one, with the map of each beside the contrastive map."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from isthmus.app.asking import (
    WORK,
    answered,
    buttons_of,
    options_of,
    picture_of,
    samples_of,
    settings_of,
    status_of,
    text_of,
    there,
)
from isthmus.app.page import Page
from isthmus.app.question import Answer, Question, ask, check
from isthmus.app.saving import Shown, save_row
from isthmus.app.sentences import told
from isthmus.app.snippets import Asked, loading_of
from isthmus.app.uploads import clean_text
from isthmus.app.view import View, grid, payload
from isthmus.app.viewer import viewer
from isthmus.app.work import Visit

_TITLE = 60
_HINT = "Give two texts, and see which regions make the model prefer the first to the second."


def tab(page: Page) -> None:
    """Build the tab within the page."""
    gr = page.gradio
    visit, shown = gr.State(Visit(), delete_callback=Visit.close), gr.State(None)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=1, min_width=300, elem_classes="isthmus-ask"):
            picture = picture_of(page, "contrast")
            samples_of(page, "contrast", picture)
            text = text_of(page, "contrast-text", "Why this text …", "a dog", lines=1)
            against = text_of(page, "contrast-against", "… rather than this one?", "a cat", lines=1)
            run, cancel = buttons_of(page, "contrast", "Contrast", visit)
            status = status_of(page, "contrast")
            settings = settings_of(page, "contrast")
        with gr.Column(scale=3, min_width=320, elem_classes="isthmus-answer"):
            main = viewer("contrast-viewer", hint=_HINT)
            both = viewer("contrast-both")
            save_row("contrast", shown)
    gr.on(
        [run.click, text.submit, against.submit],
        told(_contraster(page)),
        [picture, text, against, *settings.inputs, visit],
        [main, both, shown, status, cancel],
        **WORK,
    )


def _contraster(page: Page) -> Any:
    def contrast(
        picture: Any,
        text: str,
        against: str,
        model: str,
        method: str,
        layer: float,
        steps: float,
        visit: Visit,
    ) -> Iterator[Any]:
        questions = questions_of(
            page.models.get(model).name,
            there(picture),
            (clean_text(text), clean_text(against)),
            method,
            options_of(method, layer, steps),
        )
        for one in questions:
            check(page.models, one)
        yield from answered(
            page,
            visit,
            lambda watch: [ask(page.models, one, watch=watch) for one in questions],
            lambda answers: [*views_of(answers), shown_of(answers)],
            "Explaining",
        )

    return contrast


def questions_of(
    model: str, picture: Any, texts: tuple[str, str], method: str, options: dict[str, Any]
) -> tuple[Question, Question, Question]:
    """The contrast, which explains the picture alone, then each text for itself."""
    first, second = texts
    return (
        Question(model, picture, first, second, method, {**options, "sides": "image"}),
        Question(model, picture, first, None, method, options),
        Question(model, picture, second, None, method, options),
    )


def views_of(answers: list[Answer]) -> tuple[View, View]:
    """The contrastive map, and the maps of both texts, all on one scale."""
    contrast, first, second = answers
    question, one = contrast.question, contrast.explanation
    main = payload(contrast, with_scale=(first, second))
    difference = one.image.completeness.open if one.image is not None else None
    main |= {
        "id": question.number,
        "similarity": difference,
        "similarityLabel": "similarity, first less second",
        "difference": True,
        "text": f"{question.text} rather than {question.against}",
        "alt": f"Why {question.text!r} rather than {question.against!r}. {main['alt']}",
    }
    cards = [
        payload(answer, title=shorten(title, _TITLE, placeholder=" …"), small=True, with_scale=answers)
        for answer, title in ((first, question.text), (second, question.against or ""))
    ]
    return main, grid(cards) | {"title": "Each text alone, on the same scale"}


def shown_of(answers: list[Answer]) -> Shown:
    """What is saved and copied."""
    found, asked = tuple(one.explanation for one in answers), tuple(map(_asked, answers))
    return Shown(found, asked, picture=answers[0].question.picture)


def _asked(answer: Answer) -> Asked:
    question = answer.question
    return Asked(
        question.model,
        (question.text,),
        question.against or "",
        (question.method,),
        question.options,
        loading=loading_of(answer.explanation),
    )
