"""The tab Prompts: many texts for one picture, ranked by their similarity, each with its map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
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
from isthmus.app.question import Answer, Question, check_texts
from isthmus.app.saving import Shown, save_row
from isthmus.app.sentences import told
from isthmus.app.snippets import Asked, loading_of
from isthmus.app.uploads import LIMITS, clean_lines
from isthmus.app.view import View, grid, payload
from isthmus.app.viewer import viewer
from isthmus.app.work import Visit
from isthmus.encoders.counting import watched
from isthmus.explanation import Explanation

_BATCH = 4  # prompts between two looks at the button that cancels
_HINT = f"Write one prompt a line, at most {LIMITS.prompts}, and see them ranked, each with what speaks for it."
_EXAMPLE = "a photo of a dog\na photo of a cat\na dog on a lead"


def tab(page: Page) -> None:
    """Build the tab within the page."""
    gr = page.gradio
    visit, shown = gr.State(Visit(), delete_callback=Visit.close), gr.State(None)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=1, min_width=300, elem_classes="isthmus-ask"):
            picture = picture_of(page, "prompts")
            samples_of(page, "prompts", picture)
            text = text_of(page, "prompts-text", "Prompts, one a line", _EXAMPLE, lines=6)
            run, cancel = buttons_of(page, "prompts", "Rank", visit)
            status = status_of(page, "prompts")
            settings = settings_of(page, "prompts")
        with gr.Column(scale=3, min_width=320, elem_classes="isthmus-answer"):
            said = gr.HTML(elem_id="prompts-summary", elem_classes="isthmus-status")
            ranked = viewer("prompts-viewer", hint=_HINT)
            save_row("prompts", shown)
    run.click(
        told(_ranker(page)),
        [picture, text, *settings.inputs, visit],
        [ranked, shown, said, status, cancel],
        **WORK,
    )


def _ranker(page: Page) -> Any:
    def rank(
        picture: Any, text: str, model: str, method: str, layer: float, steps: float, visit: Visit
    ) -> Iterator[Any]:
        (prompts, again), options = clean_lines(text), options_of(method, layer, steps)
        question = Question(page.models.get(model).name, there(picture), prompts[0], None, method, options)
        check_texts(page.models, question.model, method, prompts)
        at = [0]
        yield from answered(
            page,
            visit,
            lambda watch: explained(page, question, prompts, watch, at),
            lambda found: [ranked_of(question, found), shown_of(question, found), _said(found, again)],
            lambda: f"Prompt {min(len(prompts), at[0] + 1)} of {len(prompts)}",
        )

    return rank


def explained(
    page: Page, question: Question, prompts: Sequence[str], watch: Any, at: list[int] | None = None
) -> list[Explanation]:
    """Each prompt's explanation, in one call; the picture is read once. `at` is kept at how many are done."""
    from isthmus.explainer import explain

    served, at = page.models.get(question.model), [0] if at is None else at

    def progress(done: int, total: int) -> None:
        del total
        at[0] = done
        served.lend()

    with served.used(watch, long=True) as encoder, watched(watch, served.lend):
        found = explain(
            encoder,
            question.picture,
            list(prompts),
            method=question.method,
            batch_size=_BATCH,
            progress=progress,
            **question.options,
        )
    assert isinstance(found, list)
    return found


def ranked_of(question: Question, found: Sequence[Explanation]) -> View:
    """Cards, the most similar first, on one scale."""
    answers = [Answer(question, one, one.provenance.seconds) for one in by_similarity(found)]
    cards = []
    for place, answer in enumerate(answers, 1):
        card = payload(answer, title=str(place), small=True, with_scale=answers)
        if answer.explanation.probability is not None:
            card["cardFacts"] = [f"{answer.explanation.probability:.1%} among these prompts"]
        cards.append(card)
    return grid(cards)


def by_similarity(found: Sequence[Explanation]) -> list[Explanation]:
    """The most similar first; equal ones in their order."""
    return sorted(found, key=lambda one: -(one.similarity if one.similarity is not None else -2.0))


def shown_of(question: Question, found: Sequence[Explanation]) -> Shown:
    """What is saved, ranked as on the page, and copied, in the order of the prompts."""
    asked = Asked(
        question.model,
        tuple(one.caption for one in found),
        methods=(question.method,),
        options=question.options,
        batch_size=_BATCH,
        loading=loading_of(found[0]),
    )
    return Shown(tuple(by_similarity(found)), (asked,), picture=question.picture)


def _said(found: Sequence[Explanation], again: int) -> str:
    best, seconds = by_similarity(found)[0], sum(one.provenance.seconds for one in found)
    passes = sum(sum(one.provenance.passes.values()) for one in found)
    closest = f"closest: <b>{escape(best.caption)}</b>"
    left = "" if not again else f" · {again} {'line' if again == 1 else 'lines'} left out, given more than once"
    cost = f"{passes:.0f} passes · {seconds:.1f} s"
    return f"<p>{len(found)} prompts{left} · {closest} · one scale for all maps · {cost}</p>"
