"""What the tabs ask with, alike in each: picture, text, buttons and settings; and how their work is shown."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

from isthmus.app.models import Served
from isthmus.app.page import Page
from isthmus.app.samples import sample, strip
from isthmus.app.sentences import Refused, told
from isthmus.app.uploads import LIMITS, UNDRAWN
from isthmus.app.work import CancelledError, Visit
from isthmus.errors import InputError
from isthmus.methods import METHODS

T = TypeVar("T")

LAYER, STEPS = 0, 10  # of nib
MOST_STEPS = 40

WORK = {
    "show_progress": "hidden",
    "concurrency_id": "model",
    "concurrency_limit": 24,  # of Gradio's 40 threads: they take turns at the model, so most of them only wait
    "api_visibility": "private",
}
CANCELLED = "<p role='status'>Cancelled.</p>"
QUICK = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, eq=False)
class Settings:
    """Components that choose the model and the method; `method`, `layer` and `steps` None where a tab has none."""

    model: Any
    method: Any = None
    layer: Any = None
    steps: Any = None

    @property
    def inputs(self) -> list[Any]:
        """Those that there are, in this order."""
        return [one for one in (self.model, self.method, self.layer, self.steps) if one is not None]


def picture_of(page: Page, prefix: str) -> Any:
    """Where a visitor gives a picture, which is drawn there.

    One that cannot be read does not stay, and a sentence below says why.
    """
    from isthmus.app.inputs import PictureInput

    gr = page.gradio
    picture = PictureInput(
        label="Picture",
        sources=["upload", "clipboard", "webcam"],
        format="png",  # one that the page puts back is the same, to the bit
        elem_id=f"{prefix}-picture",
        height=240,
        buttons=[],
    )
    why = gr.HTML(visible=False, elem_id=f"{prefix}-refused", elem_classes="isthmus-status")

    def seen(given: Any) -> list[Any]:
        if isinstance(given, Refused):
            return [None, gr.update(value=f"<p role='alert'>{escape(given.sentence)}</p>", visible=True)]
        if given is not None and given.format in UNDRAWN:  # the box gets the same pixels as a PNG
            return [given, gr.update(visible=False)]
        return [gr.skip(), gr.skip() if given is None else gr.update(visible=False)]

    picture.change(told(seen), picture, [picture, why], **QUICK)
    return picture


def samples_of(page: Page, prefix: str, picture: Any, text: Any = None) -> Any:
    """The example pictures, to be placed below `picture`, which they fill, and `text` where there is one."""
    row = strip(f"{prefix}-samples")
    fields = [picture] if text is None else [picture, text]

    def fill(event: Any) -> Any:
        found = sample(getattr(event, "index", None))
        values = [page.gradio.skip()] * len(fields) if found is None else [*found[: len(fields)]]
        return values[0] if len(fields) == 1 else values

    fill.__annotations__["event"] = page.gradio.EventData
    row.select(told(fill), None, fields, **QUICK)
    return row


def status_of(page: Page, prefix: str) -> Any:
    """The line below the buttons that tells how far the work is."""
    return page.gradio.HTML(elem_id=f"{prefix}-status", elem_classes="isthmus-status")


def text_of(page: Page, name: str, label: str, placeholder: str, *, lines: int = 2) -> Any:
    """A field for a text, `name` its id; Enter is an answer's beginning where it has few lines."""
    return page.gradio.Textbox(
        label=label,
        placeholder=placeholder,
        lines=lines,
        max_lines=max(4, lines),
        max_length=LIMITS.characters if lines <= 2 else LIMITS.prompts * (LIMITS.characters + 1),
        elem_id=name,
    )


def buttons_of(page: Page, prefix: str, label: str, visit: Any) -> tuple[Any, Any]:
    """The button that begins the work, and the one that ends it."""
    gr = page.gradio
    with gr.Row(elem_classes="isthmus-buttons"):
        run = gr.Button(label, variant="primary", elem_id=f"{prefix}-run", scale=3, min_width=120)
        cancel = gr.Button("Cancel", interactive=False, elem_id=f"{prefix}-cancel", scale=1, min_width=90)
    cancel.click(Visit.cancel, visit, None, **QUICK)
    return run, cancel


def settings_of(page: Page, prefix: str, *, method: bool = True) -> Settings:
    """Model, and where wanted the method with NIB's layer and steps, folded away."""
    gr, names = page.gradio, page.models.names
    with gr.Accordion("Settings", open=False, elem_id=f"{prefix}-settings"):
        model = gr.Dropdown(list(names), value=names[0], label="Model", elem_id=f"{prefix}-model")
        if not method:
            return Settings(model)
        chosen = gr.Dropdown(sorted(METHODS), value="nib", label="Method", elem_id=f"{prefix}-method")
        layer = _slider(page, "Layer", (0, depth_of(page.models.get(None))), LAYER, f"{prefix}-layer")
        steps = _slider(page, "Steps", (1, MOST_STEPS), STEPS, f"{prefix}-steps")
    chosen.change(lambda name: [gr.update(visible=name == "nib")] * 2, chosen, [layer, steps], **QUICK)
    return Settings(model, chosen, layer, steps)


def _slider(page: Page, name: str, span: tuple[int, int], default: int, elem_id: str) -> Any:
    """A slider with a mark at its default."""
    told = {"Layer": "the block whose input is explained", "Steps": "nodes of the integral"}[name]
    return page.gradio.Slider(
        *span,
        value=default,
        step=1,
        label=name,
        info=f"{told}; {default} by default",
        elem_id=elem_id,
        elem_classes=f"isthmus-marked isthmus-default-{default}",
    )


def options_of(method: str, layer: float, steps: float) -> dict[str, Any]:
    """The options that are not at their default."""
    if method != "nib":
        return {}
    given = {"layer": (int(layer), LAYER), "steps": (int(steps), STEPS)}
    return {name: value for name, (value, default) in given.items() if value != default}


def there(picture: Any) -> Any:
    """The picture. Raises InputError where there is none yet, or one that cannot be read."""
    if isinstance(picture, Refused):
        raise InputError(picture.sentence)
    if picture is None:
        raise InputError("There is no picture yet: drop one, or choose an example.")
    return picture


def worked(
    visit: Visit,
    function: Callable[[Callable[[int], None]], T],
    row: Callable[[str], list[Any]],
    what: str | Callable[[], str],
    turn: int,
) -> Generator[list[Any], None, T]:
    """Run work for a visitor, yielding rows of outputs that tell how far it is; returns what it gave.

    `what` names the work, or tells at any time what is done just now; it is not a visitor's. `turn` is that of the
    question that it is for.

    Raises CancelledError where it was cancelled, or another question has taken the place of this one.
    """
    work = visit.begin(function, turn)
    name = what if callable(what) else lambda: what
    yield row(progress(name(), 0, 0.0))
    for passes, seconds in work.ticks():
        if visit.turn != turn:  # what is shown is the other's by now
            raise CancelledError("Another question has taken the place of this one.")
        yield row(progress(name(), passes, seconds))
    return work.result()


def answered(
    page: Page,
    visit: Visit,
    function: Callable[[Callable[[int], None]], T],
    show: Callable[[T], list[Any]],
    what: str | Callable[[], str],
) -> Iterator[list[Any]]:
    """Run work for a visitor: three outputs that stay until `show` fills them, the line on how far it is, Cancel."""
    gr, turn = page.gradio, visit.next_turn()
    still, ended = [gr.skip()] * 3, gr.update(interactive=False)
    try:
        found = yield from worked(visit, function, lambda line: [*still, line, gr.update(interactive=True)], what, turn)
        row = [*show(found), "", ended]
    except CancelledError:
        row = [*still, CANCELLED, ended]
    except Exception:
        if visit.turn == turn:
            yield [*still, "", ended]
        raise
    if visit.turn == turn:  # else the line and the button are another question's
        yield row


def progress(what: str, passes: int, seconds: float) -> str:
    """A line of HTML; `what` is not a visitor's."""
    return f"<p role='status'>{what} · {passes} passes · {seconds:.1f} s</p>"


def depth_of(served: Served) -> int:
    """The last layer that both towers have."""
    return min(served.encoder.image.depth, served.encoder.text.depth)
