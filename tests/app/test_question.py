"""What the page answers is what `isthmus.explain` gives, and an edit of the text costs little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import isthmus
from conftest import EXAMPLES
from isthmus.app.models import Models, Served
from isthmus.app.question import Answer, Question, ask, ask_joint, similarity
from isthmus.encoders.sharing import Shared
from isthmus.errors import OptionError

STEPS = {"steps": 1}


@pytest.fixture(scope="module")
def models(mini: Any) -> Models:
    return Models([Served(mini)])


@pytest.fixture(scope="module")
def dog() -> Image.Image:
    return Image.open(EXAMPLES / "dog.jpg").convert("RGB")


def joint_of(answer: Answer) -> Any:
    assert answer.explanation.joint is not None
    return answer.explanation.joint


def test_an_answer_is_what_explain_gives(models: Models, mini: Any, dog: Image.Image) -> None:
    answer = ask(models, Question("mini", dog, "a dog", options=STEPS))
    expected = isthmus.explain(mini, dog, "a dog", **STEPS)
    assert answer.explanation.image == expected.image
    assert answer.explanation.text == expected.text
    assert answer.explanation.similarity == expected.similarity
    assert answer.explanation.joint is None
    assert answer.seconds > 0
    assert answer.joint_seconds == 0


def test_the_joint_map_comes_after_it_and_is_the_same_as_at_once(models: Models, mini: Any, dog: Image.Image) -> None:
    first = ask(models, Question("mini", dog, "a dog", options=STEPS))
    whole = ask_joint(models, first)
    expected = isthmus.explain(mini, dog, "a dog", joint=True, **STEPS)
    assert joint_of(whole) == expected.joint
    assert whole.explanation.image is first.explanation.image
    assert whole.joint_seconds > 0


def test_against_explains_the_contrast_and_has_no_joint_map(models: Models, mini: Any, dog: Image.Image) -> None:
    question = Question("mini", dog, "a dog", against="a cat", options=STEPS)
    assert not question.joint
    found = ask(models, question).explanation
    expected = isthmus.explain(mini, dog, "a dog", against="a cat", **STEPS)
    assert found.image == expected.image
    assert Question("mini", dog, "a dog").joint
    assert not Question("mini", dog, "a dog", method="gradcam").joint


def test_an_edit_runs_few_passes_and_changes_no_number(models: Models, dog: Image.Image) -> None:
    store, runs = Shared(), []
    former = ask_joint(models, ask(models, Question("mini", dog, "a dog", options=STEPS), store=store), store=store)
    edited = ask(models, Question("mini", dog, "a cat", options=STEPS), store=store)
    again = ask_joint(models, edited, watch=runs.append, store=store)
    alone = ask_joint(models, ask(models, Question("mini", dog, "a cat", options=STEPS)))
    assert joint_of(again) == joint_of(alone)
    assert joint_of(again) != joint_of(former)
    patches = len(joint_of(alone).patches)
    assert sum(runs) < patches  # as many as the whole vectors of the picture would take


def test_watching_can_end_the_work_and_the_model_is_free_again(models: Models, dog: Image.Image) -> None:
    def stop(inputs: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(models, Question("mini", dog, "a dog", options=STEPS), watch=stop)
    assert np.isfinite(similarity(models, "mini", dog, "a dog"))


def test_others_have_their_turn_while_a_joint_map_is_made(models: Models, mini: Any, dog: Image.Image) -> None:
    first = ask(models, Question("mini", dog, "a dog", options=STEPS))
    served, lent = models.get("mini"), []

    class Lending:
        used = served.used

        def lend(self) -> None:
            lent.append(similarity(Models([Served(mini)]), None, dog, "a cat"))  # another's, in between

    class Page(Models):
        def get(self, name: str | None) -> Any:
            return Lending()

    whole = ask_joint(Page([served]), first)
    assert len(lent) >= 2
    assert joint_of(whole) == joint_of(ask_joint(models, first))


def test_the_live_similarity_is_that_of_the_answer(models: Models, dog: Image.Image) -> None:
    answer = ask(models, Question("mini", dog, "a dog on the grass", options=STEPS))
    assert similarity(models, None, dog, "a dog on the grass") == pytest.approx(answer.explanation.similarity, abs=1e-6)


def test_questions_have_numbers_of_their_own(dog: Image.Image) -> None:
    assert len({Question("mini", dog, "a dog").number for _ in range(5)}) == 5


def test_a_model_that_the_page_does_not_have_is_refused(models: Models, dog: Image.Image) -> None:
    with pytest.raises(OptionError, match="choose one of mini"):
        ask(models, Question("openai/clip-vit-base-patch32", dog, "a dog"))
