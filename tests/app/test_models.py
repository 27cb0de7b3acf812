"""Models are loaded once, by the names given at the start, and used by one at a time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import isthmus.explainer
from isthmus.app.models import Models, Served
from isthmus.errors import OptionError


def test_each_name_is_loaded_once_with_the_options(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> Any:
        loaded.append((name, options))
        return mini

    monkeypatch.setattr(isthmus.explainer, "load", load)
    models = Models.load(["mini", "mini"], device="cpu")
    assert loaded == [("mini", {"device": "cpu"})]
    assert models.names == ("mini",)
    assert models.get("mini") is models.get(None)


@pytest.mark.parametrize("name", ["other", "", 0, ["mini"], "../mini"])
def test_only_its_own_names_are_found(mini: Any, name: Any) -> None:
    with pytest.raises(OptionError, match=r"^This page has no such model: choose one of mini\.$"):
        Models([Served(mini)]).get(name)


def test_a_page_without_a_model_is_refused() -> None:
    with pytest.raises(OptionError, match="name at least one"):
        Models([])


def test_one_at_a_time_uses_a_model(mini: Any) -> None:
    served, inside, most = Served(mini), 0, 0

    def use() -> None:
        nonlocal inside, most
        with served.used() as encoder:
            assert encoder is mini
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_frees_the_model(mini: Any) -> None:
    served = Served(mini)
    with pytest.raises(ZeroDivisionError), served.used():
        raise ZeroDivisionError
    with served.used() as encoder:
        assert encoder is mini
