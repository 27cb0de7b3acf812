"""A visitor's question, and its answer: what `isthmus.explain` gives."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from isthmus.app.models import Models
from isthmus.app.stored import keeps_pictures
from isthmus.encoders.counting import watched
from isthmus.encoders.sharing import Shared, sharing
from isthmus.explanation import Explanation
from isthmus.methods import registry

_NUMBERS = itertools.count()


@keeps_pictures("picture")
@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a model.

    Attributes:
        model: a name of the page's models.
        picture: upright RGB, as `uploads` gives it; it is kept as its file's bytes and decoded when it is looked at.
        text: the text, as `uploads.clean_text` gives it.
        against: why the text rather than this one; None for the text alone.
        method: a name of `isthmus.methods`.
        options: the method's own; those at their default are left out.
        number: tells it from every other question of this server.
    """

    model: str
    picture: Image.Image
    text: str
    against: str | None = None
    method: str = "nib"
    options: Mapping[str, Any] = field(default_factory=dict)
    number: int = field(default_factory=_NUMBERS.__next__)

    @property
    def joint(self) -> bool:
        """Whether this question has a joint map of words and regions."""
        return self.against is None and registry.get(self.method).joint is not None


@dataclass(frozen=True, eq=False)
class Answer:
    """An explanation and the question that it answers.

    Attributes:
        question: what was asked.
        explanation: what `isthmus.explain` gave; its `joint` is there once it is asked for.
        seconds: what the answer took, the joint map apart.
        joint_seconds: what the joint map took, 0 without one.
    """

    question: Question
    explanation: Explanation
    seconds: float
    joint_seconds: float = 0.0


Watch = Callable[[int], None]


def ask(
    models: Models,
    question: Question,
    *,
    watch: Watch | None = None,
    store: Shared | None = None,
    long: bool = False,
) -> Answer:
    """Explain a question's picture and text, without the joint map.

    Args:
        models: those of the page.
        question: what is asked.
        watch: told the number of inputs of every run of the model; may raise to end the work.
        store: a visitor's own, where what a question has in common with the former ones is found again.
        long: let other questions go first, as one of many should.

    Raises:
        InputError, OptionError, ModelError: as `isthmus.explain`.
    """
    began = time.perf_counter()
    found = _explained(models, question, watch, store, long=long)
    return Answer(question, found, time.perf_counter() - began)


def ask_joint(models: Models, answer: Answer, *, watch: Watch | None = None, store: Shared | None = None) -> Answer:
    """The answer with its joint map, which is what `isthmus.explain(..., joint=True)` gives; see `ask`."""
    began = time.perf_counter()
    # The text's own map is the cheap one to make again beside it.
    found = _explained(models, answer.question, watch, store, long=True, joint=True, sides="text")
    with_joint = replace(answer.explanation, joint=found.joint)
    return replace(answer, explanation=with_joint, joint_seconds=time.perf_counter() - began)


def check_texts(models: Models, model: str, method: str, texts: Sequence[str]) -> None:
    """Find what would be refused before any pass, so that only a good question ends the work on the one before.

    Raises:
        InputError: a text that the model cannot read, such as one that is too long for it.
        OptionError: no such model or method.
    """
    registry.get(method)
    models.get(model).encoder.processing.texts([*texts], truncate=False)


def check(models: Models, question: Question) -> None:
    """The same for a question."""
    own = [question.text, *([] if question.against is None else [question.against])]
    check_texts(models, question.model, question.method, own)


def similarity(models: Models, model: str | None, picture: Image.Image, text: str) -> float:
    """The cosine of a picture and a text, without an explanation.

    Raises:
        InputError: a picture or text that the model cannot read.
    """
    from isthmus.targets import embeddings_of

    with models.get(model).used(quick=True) as encoder:
        image, words = (embeddings_of(encoder, [item])[0] for item in (picture, text))
    return float((image[0] * words[0]).sum())


def _explained(
    models: Models, question: Question, watch: Watch | None, store: Shared | None, *, long: bool = False, **more: Any
) -> Explanation:
    from isthmus.explainer import explain

    served = models.get(question.model)
    with served.used(watch, long=long) as encoder, watched(watch or _unwatched, served.lend), sharing(store):
        found = explain(
            encoder,
            question.picture,
            question.text,
            method=question.method,
            against=question.against,
            **question.options,
            **more,
        )
    assert isinstance(found, Explanation), "one picture and one text give one explanation"
    return found


def _unwatched(inputs: int) -> None:
    """Nobody watches."""
