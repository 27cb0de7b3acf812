"""Errors as visitors read them: one sentence without internals; what nobody foresaw is logged on the server."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.extras import needed


@dataclass(frozen=True)
class Refused:
    """What stands for an upload that could not be read: the sentence that says why."""

    sentence: str


_LOG = logging.getLogger("isthmus.app")
_UNFORESEEN = "Something went wrong on the server, which has noted it: try again, or try another picture or text."
_MEMORY = "The server has too little memory for this: take a smaller picture, fewer steps or fewer texts."
# What only the command line or Python can do, and where files of the server are.
_ELSEWHERE = re.compile(r", or pass \w+=\w+ \(--[\w-]+\)| \(--[\w-]+\)")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":]+[/\\])+[^\s'\":,;]*")
_LONGEST = 400


def sentence(error: BaseException) -> str:
    """One sentence for a visitor, plain text; an error that is not the visitor's is logged with its traceback."""
    if isinstance(error, IsthmusError):
        told = _PATH.sub("…", _ELSEWHERE.sub("", " ".join(str(error).split())))
        return told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        _LOG.warning("out of memory: %s", type(error).__name__)
        return _MEMORY
    _LOG.error("unforeseen error", exc_info=error)
    return _UNFORESEEN


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """An event's function, or generator, that shows errors as sentences (`gr.Error`)."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generated(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise _shown(error) from None

        return generated

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _shown(error) from None

    return called


def _shown(error: Exception) -> Exception:
    """What Gradio shows; its messages are HTML, so that a quoted text is escaped."""
    shown: type[Exception] = needed("gradio").Error
    if isinstance(error, shown):
        return error
    found: Exception = shown(escape(sentence(error)), print_exception=False)  # type: ignore[call-arg]
    return found
