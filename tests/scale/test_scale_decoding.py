"""Pictures are decoded elsewhere: the same pixels, in order, and a crash there is the fault of one picture alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from given import damaged, encoded
from poison import DEADLY

from isthmus.datasets.records import Failure
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.errors import IsthmusError
from isthmus.scale import decoding
from isthmus.scale.decoding import Decoder
from isthmus.scale.raw import Raw
from isthmus.scale.schema import Where


def raw(name: str, picture: bytes | str) -> Raw:
    return Raw(name, picture, ("a dog",), name, Where(name))


def raws(count: int) -> list[Raw]:
    return [raw(str(n), encoded(n)) for n in range(count)]


def children(decoder: Decoder) -> list[int]:
    return [child.pid for child in decoder._children if child.pid is not None]


def test_the_same_pixels_in_order(tmp_path: Path) -> None:
    from conftest import EXAMPLES

    paths = [str(path) for path in sorted(EXAMPLES.glob("*.jpg"))]
    turned, grey = tmp_path / "turned.jpg", tmp_path / "grey.png"
    image = open_picture(paths[0]).image
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(turned, exif=exif)
    image.convert("LA").save(grey)
    paths += [str(turned), str(grey)]
    fsspec.filesystem("memory").pipe_file("/decoding/a.jpg", Path(paths[0]).read_bytes())
    given: list[bytes | str] = [*paths, *(Path(path).read_bytes() for path in paths)]
    with Decoder(2) as decoder:
        found = decoder.decode([raw(str(n), picture) for n, picture in enumerate(given)])
        (far,) = decoder.decode([raw("far", "memory://decoding/a.jpg")])
    assert isinstance(far, Picture)
    assert np.array_equal(np.asarray(far.image), np.asarray(open_picture(paths[0]).image))
    for picture, wanted in zip(found, [*paths, *paths], strict=True):
        assert isinstance(picture, Picture)
        assert np.array_equal(np.asarray(picture.image), np.asarray(open_picture(wanted).image))
    assert [one.source for one in found] == [*paths, *[""] * len(paths)]  # type: ignore[union-attr]


def test_what_is_wrong_with_a_picture(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    given = {
        "whole": encoded(1),
        "cut": damaged(1),
        "half": whole_half(),
        "none": b"",
        "text": str(tmp_path / "text.jpg"),
        "gone": str(tmp_path / "gone.jpg"),
        "url": "memory://nowhere/gone.jpg",
    }
    with Decoder(1) as decoder:
        found = decoder.decode([raw(name, picture) for name, picture in given.items()])
    assert isinstance(found[0], Picture)
    reasons = {one.id: one.reason for one in found[1:] if isinstance(one, Failure)}
    assert set(reasons) == set(given) - {"whole"}
    assert "of a format that Pillow cannot read" in reasons["cut"]
    assert "truncated" in reasons["half"]
    assert reasons["none"] == "Its picture is empty: get a whole copy."
    assert "is no picture that Pillow can read" in reasons["text"]
    assert "There is no picture" in reasons["gone"]
    assert "There is no picture" in reasons["url"]


def whole_half() -> bytes:
    from conftest import EXAMPLES

    whole = (EXAMPLES / "dog.jpg").read_bytes()
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("deadly", [[5], [0, 1], [3, 17]])
def test_a_deadly_picture_is_found(deadly: list[int]) -> None:
    given = [raw(str(n), DEADLY if n in deadly else encoded(n)) for n in range(18)]
    with Decoder(2, opener="poison:deadly") as decoder:
        found = decoder.decode(given)
    bad = [place for place, one in enumerate(found) if isinstance(one, Failure)]
    assert bad == deadly
    assert all("ended the process" in found[place].reason for place in bad)  # type: ignore[union-attr]


def test_a_killed_process_loses_nothing() -> None:
    with Decoder(2, opener="poison:slow") as decoder:
        decoder.decode(raws(8))
        coming = decoder.begin(raws(24))
        for _ in range(3):
            time.sleep(0.3)
            for pid in children(decoder)[:1]:
                os.kill(pid, signal.SIGKILL)
        found = coming.result()
    for n, picture in enumerate(found):
        assert isinstance(picture, Picture)
        assert np.array_equal(np.asarray(picture.image), np.asarray(open_picture(fresh(n)).image))


def fresh(seed: int) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(encoded(seed)))


def test_a_picture_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PATIENCE", 0.05)
    with Decoder(1, opener="poison:slow") as decoder:
        decoder._children[0].start()
        (found,) = decoder.decode(raws(1))
    assert isinstance(found, Failure)


def test_what_a_library_prints_is_no_answer() -> None:
    with Decoder(1, opener="poison:noisy") as decoder:
        assert all(isinstance(one, Picture) for one in decoder.decode(raws(6)))


def test_errors_of_an_opener_are_told() -> None:
    with Decoder(1, opener="poison:broken") as decoder:
        (found,) = decoder.decode(raws(1))
    assert found == Failure("0", "Its picture cannot be opened (RuntimeError: nothing works).")
    with Decoder(1, opener="nowhere:nothing") as decoder, pytest.raises(IsthmusError, match="cannot be started"):
        decoder.decode(raws(1))


def test_the_processes_end_with_the_decoder_and_with_the_one_who_asks() -> None:
    with Decoder(2) as decoder:
        decoder.decode(raws(8))
        alive = children(decoder)
    assert len(alive) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in alive)
    assert threading.active_count() < 20
    code = (
        "import os, signal, sys; sys.path.insert(0, 'tests/scale'); sys.path.insert(0, 'tests')\n"
        "from test_scale_decoding import Decoder, raws, children\n"
        "decoder = Decoder(1); decoder.decode(raws(2)); print(*children(decoder), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (pid,) = ran.stdout.split()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_no_torch_in_the_processes() -> None:
    code = "import sys, isthmus.scale.opening; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
