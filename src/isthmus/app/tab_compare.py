"""The tab Compare: one picture and one text as several methods explain them, each in its own unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.app.asking import (
    WORK,
    answered,
    buttons_of,
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
from isthmus.app.sentences import sentence, told
from isthmus.app.snippets import Asked, loading_of
from isthmus.app.uploads import LIMITS, clean_text
from isthmus.app.view import View, grid, payload
from isthmus.app.viewer import viewer
from isthmus.app.work import Visit
from isthmus.drawing.compared_words import cost, meaning_of_agreement
from isthmus.drawing.scale import region_scale, word_scale
from isthmus.encoders.counting import watched
from isthmus.errors import InputError
from isthmus.methods import METHODS

if TYPE_CHECKING:
    from isthmus.comparison import CompareRow, Comparison

_USUAL = ("nib", "m2ib", "gradcam", "grad-eclip", "chefer", "clip-surgery")
_UNITS = {"score": "that of the similarity", "bits": "bits", "": "none"}
_HINT = "Choose some methods, and see what each of them says of one picture and one text."


def tab(page: Page) -> None:
    """Build the tab within the page."""
    gr = page.gradio
    visit, shown = gr.State(Visit(), delete_callback=Visit.close), gr.State(None)
    with gr.Row(elem_classes="isthmus-tab"):
        with gr.Column(scale=1, min_width=300, elem_classes="isthmus-ask"):
            picture = picture_of(page, "compare")
            place = gr.Row()
            text = text_of(page, "compare-text", "Text", "a dog on the grass", lines=1)
            with place:
                samples_of(page, "compare", picture, text)
            methods = gr.Dropdown(
                sorted(METHODS),
                value=[name for name in _USUAL if name in METHODS],
                multiselect=True,
                max_choices=LIMITS.methods,
                label="Methods, the first one the reference",
                elem_id="compare-methods",
            )
            run, cancel = buttons_of(page, "compare", "Compare", visit)
            status = status_of(page, "compare")
            settings = settings_of(page, "compare", method=False)
        with gr.Column(scale=3, min_width=320, elem_classes="isthmus-answer"):
            said = gr.HTML(elem_id="compare-summary", elem_classes="isthmus-status")
            compared = viewer("compare-viewer", hint=_HINT)
            save_row("compare", shown)
    gr.on(
        [run.click, text.submit],
        told(_comparer(page)),
        [picture, text, methods, *settings.inputs, visit],
        [compared, shown, said, status, cancel],
        **WORK,
    )


def _comparer(page: Page) -> Any:
    def compare(picture: Any, text: str, methods: Any, model: str, visit: Visit) -> Iterator[Any]:
        question = Question(page.models.get(model).name, there(picture), clean_text(text))
        names = chosen_of(methods)
        for name in names:
            check_texts(page.models, question.model, name, [question.text])
        at = [0]
        yield from answered(
            page,
            visit,
            lambda watch: compared_by(page, question, names, watch, at),
            lambda found: [cards_of(question, found), shown_of(question, found), _said(found)],
            lambda: f"Method {min(len(names), at[0] + 1)} of {len(names)}",
        )

    return compare


def chosen_of(methods: Any) -> list[str]:
    """The names that were chosen, each once. Raises InputError where there is none, or too many."""
    names = list(dict.fromkeys(name for name in methods if isinstance(name, str))) if isinstance(methods, list) else []
    if not names:
        raise InputError("There is no method yet: choose one or more.")
    if len(names) > LIMITS.methods:
        raise InputError(f"There are {len(names)} methods: choose at most {LIMITS.methods} at once.")
    return names


def compared_by(
    page: Page, question: Question, names: Sequence[str], watch: Any, at: list[int] | None = None
) -> Comparison:
    """What the methods say; one that refuses has a row with its sentence. `at` is kept at how many are done."""
    from isthmus.comparison import compare

    served, at = page.models.get(question.model), [0] if at is None else at

    def progress(done: int, total: int) -> None:
        del total
        at[0] = done
        watch(0)  # between two methods, of which some have no pass of their own
        served.lend()

    with served.used(watch, long=True) as encoder, watched(watch, served.lend):
        return compare(encoder, question.picture, question.text, methods=names, progress=progress)


def cards_of(question: Question, comparison: Comparison) -> View:
    """A card for each method, on a scale of its own."""
    return grid([_card(question, row, row is comparison.first("image")) for row in comparison.rows])


def _card(question: Question, row: CompareRow, reference: bool) -> View:
    head = {"title": row.method, "subtitle": row.title}
    if row.explanation is None:
        refused = {"small": True, "text": "", "words": [], "similarity": None, "alt": "", "cardFacts": []}
        return {**refused, **head, "absent": f"No result: {sentence(_reason(row))}"}
    view = payload(Answer(question, row.explanation, row.seconds or 0.0), small=True)
    absent = [
        f"It does not explain the {name}."
        for name, side in (("picture", row.explanation.image), ("text", row.explanation.text))
        if side is None
    ]
    return {**view, **head, "similarity": None, "absent": " ".join(absent), "cardFacts": facts_of(row, reference)}


def facts_of(row: CompareRow, reference: bool = False) -> list[str]:
    """The scales in the method's own unit, what it costs, and how far it agrees with the first method."""
    one = row.explanation
    assert one is not None
    scales = [
        f"{name} ±{scale.limit:.3g}" if any(values) else f"{name} zero everywhere"
        for name, scale, values in (
            ("regions", region_scale([one]), [] if one.image is None else one.image.scores.ravel().tolist()),
            ("words", word_scale([one]), [] if one.text is None else [word.score for word in one.text.words]),
        )
        if values
    ]
    agreed = [
        f"{name} {value:+.2f}".replace("-", "\u2212")
        for name, value in (("regions", row.agreement_image), ("words", row.agreement_text))
        if value is not None
    ]
    agreement = (
        "the reference" if reference else "agreement: " + ", ".join(agreed) if agreed else "no agreement defined"
    )
    return [", ".join(scales), f"unit: {_UNITS[row.units]}", ", ".join(value for _, value in cost(row)), agreement]


def _reason(row: CompareRow) -> InputError:
    return InputError(row.reason or "The method gave no reason.")


def shown_of(question: Question, comparison: Comparison) -> Shown:
    """What is saved and copied."""
    names = tuple(row.method for row in comparison.rows)
    found = comparison.explanations
    asked = Asked(question.model, (question.text,), methods=names, compared=True, loading=loading_of(found[0]))
    return Shown(found, (asked,), comparison, question.picture)


def _said(comparison: Comparison) -> str:
    one = comparison.explanations[0]
    similarity = "" if one.similarity is None else f"similarity <b>{one.similarity:.3f}</b> · "
    return (
        f"<p>{similarity}Each method has a scale of its own, since methods do not measure in one unit. "
        f"{meaning_of_agreement(comparison)}</p>"
    )
