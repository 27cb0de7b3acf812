"""Whatever goes wrong, a visitor reads one sentence without internals, and the server's log has what nobody foresaw."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator

import gradio as gr
import pytest
import torch

from isthmus.app.sentences import sentence, told
from isthmus.errors import InputError, ModelError, OptionError


def test_the_librarys_sentences_are_kept_without_paths_and_without_the_command_line() -> None:
    assert sentence(InputError("The text is empty: give at least one word.")) == (
        "The text is empty: give at least one word."
    )
    long = InputError("The text 'x' has 99 tokens: shorten it, or pass truncate=True (--truncate).")
    assert sentence(long) == "The text 'x' has 99 tokens: shorten it."
    where = ModelError("The folder '/root/.cache/models/secret' or C:\\Users\\me\\x lacks config.json: get it.")
    assert sentence(where) == "The folder '…' or … lacks config.json: get it."
    assert len(sentence(OptionError("x" * 9999))) == 400
    assert "\n" not in sentence(OptionError("a\nb"))


def test_what_nobody_foresaw_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise KeyError("/root/secret")

    with caplog.at_level(logging.ERROR, logger="isthmus.app"), pytest.raises(gr.Error) as error:
        told(broken)()
    assert error.value.message.startswith("Something went wrong on the server")
    assert "secret" not in error.value.message
    assert "KeyError: '/root/secret'" in caplog.text
    assert error.value.print_exception is False
    assert error.value.__suppress_context__


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")])
def test_memory_that_runs_out_has_its_own_sentence(error: Exception) -> None:
    assert "too little memory" in sentence(error)


def test_quoted_texts_cannot_be_markup() -> None:
    def refuse() -> None:
        raise InputError("The text '<img src=x onerror=alert(1)>' is empty: give another.")

    with pytest.raises(gr.Error) as error:
        told(refuse)()
    assert "<" not in error.value.message
    assert "&lt;img" in error.value.message


def test_functions_and_generators_are_as_gradio_sees_them() -> None:
    def function(one: int, progress: gr.Progress = gr.Progress()) -> int:  # noqa: B008
        return one + 1

    def generator(one: int) -> Iterator[int]:
        yield one
        raise InputError("No more: stop.")

    assert told(function)(1) == 2
    assert inspect.signature(told(function)) == inspect.signature(function)
    assert inspect.isgeneratorfunction(told(generator))
    assert not inspect.isgeneratorfunction(told(function))
    running = told(generator)(5)
    assert next(running) == 5
    with pytest.raises(gr.Error, match="No more: stop"):
        next(running)


def test_gradios_own_errors_pass_unchanged() -> None:
    own = gr.Error("Wait a little.")

    def refuse() -> None:
        raise own

    with pytest.raises(gr.Error) as error:
        told(refuse)()
    assert error.value is own
