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


def test_who_has_a_model_for_long_lends_it(mini: Any) -> None:
    served, order = Served(mini), []

    def wait() -> None:
        with served.used():
            order.append("other")

    with served.used(long=True):
        thread = threading.Thread(target=wait)
        thread.start()
        _until(served, 1)
        order.append("first")
        served.lend()
        order.append("first again")
    thread.join()
    assert order == ["first", "other", "first again"]


def test_turns_are_in_order_and_long_ones_come_last(mini: Any) -> None:
    served, order = Served(mini), []

    def wait(name: str, long: bool) -> None:
        with served.used(long=long):
            order.append(name)

    threads = []
    with served.used(long=True):
        for place, (name, long) in enumerate([("c", True), ("a", False), ("d", True), ("b", False)], 1):
            threads.append(threading.Thread(target=wait, args=(name, long)))
            threads[-1].start()
            _until(served, place)
        served.lend()
        assert order == ["a", "b"], "a long one does not give way to another that is long"
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "d"]


@pytest.mark.parametrize("long", [False, True])
def test_what_is_quick_goes_before_whoever_has_the_turn(mini: Any, long: bool) -> None:
    served, order = Served(mini), []

    def wait(quick: bool) -> None:
        with served.used(quick=quick):
            order.append("quick" if quick else "other")

    with served.used(long=long):
        threads = []
        for place, quick in enumerate([False, True], 1):
            threads.append(threading.Thread(target=wait, args=(quick,)))
            threads[-1].start()
            _until(served, place)
        served.lend()
        order.append("first again")
    for thread in threads:
        thread.join()
    assert order == (["quick", "other", "first again"] if long else ["quick", "first again", "other"])


def test_nobody_gives_way_to_who_comes_later(mini: Any) -> None:
    served, order = Served(mini), []

    def wait() -> None:
        with served.used():
            order.append("later")

    with served.used():
        thread = threading.Thread(target=wait)
        thread.start()
        _until(served, 1)
        served.lend()
        order.append("first")
    thread.join()
    assert order == ["first", "later"]


def _until(served: Served, waiting: int) -> None:
    """Wait until so many wait."""
    end = time.monotonic() + 30
    while len(served._turns._waiting) < waiting:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_who_waits_can_give_up(mini: Any) -> None:
    served = Served(mini)

    def give_up(inputs: int) -> None:
        raise TimeoutError

    with served.used(), pytest.raises(TimeoutError), served.used(give_up):
        raise AssertionError("two use it")
    with served.used() as encoder:
        assert encoder is mini
