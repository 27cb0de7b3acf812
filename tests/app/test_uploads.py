"""What visitors give: hostile bytes, archives and texts end in one sentence, good ones in the picture itself."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.app.uploads import Limits, clean_lines, clean_text, gather, read_picture, read_upload
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
SMALL = Limits(file_bytes=200_000, pixels=100_000, pictures=4, archive_bytes=400_000, characters=100, prompts=3)


def picture(size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(kind: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int, data: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    told = str(error.value)
    assert "\n" not in told
    assert "Traceback" not in told
    assert told.endswith((".", "…")), told
    return told


def tried(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call gives, or the sentence that it is refused with."""
    try:
        return call(), ""
    except InputError as error:
        return None, str(error)


def refused(data: bytes, limits: Limits = SMALL) -> str:
    with pytest.raises(InputError) as error:
        read_picture(data, limits)
    return one_sentence(error)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_of_each_kind_is_that_which_the_library_opens(kind: str, tmp_path: Path) -> None:
    data = encoded(kind)
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(data)
    found = read_picture(data, SMALL)
    assert found.mode == "RGB"
    assert found.format == kind
    assert np.array_equal(np.asarray(found), np.asarray(open_picture(path).image))


def test_it_is_upright_and_carries_nothing_else() -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    exif[0x8298] = "a name"
    found = read_picture(encoded("JPEG", picture((40, 30)), exif=exif.tobytes()), SMALL)
    assert found.size == (30, 40)
    assert not found.getexif()


def test_a_polyglot_is_nothing_but_its_picture() -> None:
    behind = b"<script>alert(1)</script>" + zipped({"a.png": encoded()})
    plain = encoded("PNG")
    assert np.array_equal(np.asarray(read_picture(plain + behind, SMALL)), np.asarray(read_picture(plain, SMALL)))
    assert "no picture" in refused(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>" + plain)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\0" * 64, "no picture"),
        (b"GIF89a", "picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(ls) system\n", "no picture"),
        (b"P6 30000 30000 255\n" + b"\0" * 99, "no picture"),
        (png_of_size(60_000, 60_000), "million pixels"),
        (png_of_size(12_000, 12_000), "million pixels"),  # below Pillow's own bound
        (png_of_size(2_000_000_000, 2), "million pixels"),
        (png_of_size(0, 10), "picture"),
        (png_of_size(100, 100, b"\0" * 10), "damaged"),
        (png_of_size(3, 3, b"\0" * 30), "too small"),
        (png_of_size(500, 4, b"\0" * 1501 * 4), "narrow"),
        (encoded("PNG")[:-400], "damaged"),
        (encoded("JPEG")[:200], "picture"),
        (b"x" * 200_001, "MB"),
    ],
)
def test_bad_bytes_are_refused_in_a_sentence(data: bytes, said: str) -> None:
    assert said in refused(data)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = png_of_size(10_000, 9_000, b"\0" * 10_000)
    assert len(bomb) < 1000
    assert "10000 x 9000" in refused(bomb)


def test_metadata_that_unpacks_to_much_is_refused() -> None:
    text = b"Comment\0\0" + zlib.compress(b"A" * (80 << 20))
    plain = png_of_size(40, 30, b"\0" * 121 * 30)
    data = plain[:33] + png_chunk(b"zTXt", text) + plain[33:]
    found, said = tried(lambda: read_picture(data, SMALL))
    assert "damaged" in said if found is None else "Comment" not in found.info


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    plain = encoded("JPEG", progressive=True)
    assert read_picture(plain, SMALL).size == (40, 30)
    start = plain.rindex(b"\xff\xda")
    assert "slow" in refused(plain[:start] + plain[start:-2] * 200)


def test_random_damage_gives_a_picture_or_a_sentence() -> None:
    rng = random.Random(7)
    kinds = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]
    outcomes = {"picture": 0, "sentence": 0}
    for turn in range(300):
        data = bytearray(encoded(kinds[turn % len(kinds)], picture((24, 18), turn)))
        for _ in range(rng.choice([1, 4, 40])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data
        found, said = tried(lambda data=bytes(data): read_picture(data, SMALL))
        outcomes["picture" if found is not None else "sentence"] += 1
        if found is None:
            assert said.endswith(".")
            assert "\n" not in said
        else:
            assert found.mode == "RGB"
            assert found.width * found.height <= SMALL.pixels
    assert min(outcomes.values()) > 30, outcomes


def test_only_files_in_the_folder_of_uploads_are_opened(tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "secret.png"
    cache.mkdir()
    outside.write_bytes(encoded())
    inside = cache / "given.png"
    inside.write_bytes(encoded())
    (cache / "link.png").symlink_to(outside)
    assert read_upload(inside, cache, SMALL).size == (40, 30)
    tricks = [outside, cache / "link.png", cache / ".." / "secret.png", cache, "/etc/passwd", "", "a\0b", "x" * 5000]
    for path in [*tricks, "http://localhost/a.png", cache / "gone.png"]:
        with pytest.raises(InputError) as error:
            read_upload(path, cache, SMALL)
        assert "no longer" in one_sentence(error)
        assert str(tmp_path) not in str(error.value)


def zipped(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            archive.writestr(info, data)
    return buffer.getvalue()


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Any]:
    """Gather files of these contents from a folder of uploads, and see that nothing else appears on the disk."""

    def run(*contents: bytes | tuple[str, bytes], limits: Limits = SMALL) -> Any:
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        paths = []
        for number, content in enumerate(contents):
            name, data = content if isinstance(content, tuple) else (f"{number}.zip", content)
            paths.append(cache / name)
            paths[-1].write_bytes(data)
        before = sorted(tmp_path.rglob("*"))
        try:
            return gather(paths, cache, limits)
        finally:
            assert sorted(tmp_path.rglob("*")) == before

    return run


def test_pictures_of_files_and_archives_come_in_the_order_of_their_names(given: Callable[..., Any]) -> None:
    found = given(("c.png", encoded()), zipped({"x/b.jpg": encoded("JPEG"), "a.png": encoded(), "notes.txt": b"hi"}))
    assert [one.name for one in found.uploads] == ["a.png", "b.jpg", "c.png"]
    assert [one.picture(SMALL).size for one in found.uploads] == [(40, 30)] * 3
    assert found.left_out == [("notes.txt", "no picture by its name")]


def test_path_tricks_in_an_archive_are_labels_only(given: Callable[..., Any]) -> None:
    names = ["../../etc/a.png", "/etc/b.png", "C:\\windows\\c.png", "..\\..\\d\x1b[31m\n.png"]
    found = given(zipped({name: encoded() for name in names}))
    assert sorted(one.name for one in found.uploads) == ["a.png", "b.png", "c.png", "d[31m.png"]


def test_a_file_keeps_its_own_name_and_its_path_in_an_archive(given: Callable[..., Any], tmp_path: Path) -> None:
    found = given(zipped({name: encoded() for name in ("b/1.jpg", "a/1.jpg", "b/2.jpg")}))
    assert [(one.name, one.called) for one in found.uploads] == [
        ("2.jpg", "b/2.jpg"),
        ("a/1.jpg", "a/1.jpg"),
        ("b/1.jpg", "b/1.jpg"),
    ]
    tricks = ["../../etc/a.png", "/etc/b.png", "C:\\windows\\c.png", "x/./../d.png"]
    found = given(zipped({name: encoded() for name in tricks}))
    assert [one.called for one in found.uploads] == ["etc/a.png", "etc/b.png", "windows/c.png", "x/d.png"]
    own = ["Wow! $5 {x}.jpg", "n" * 70 + ".png", "../../etc/passwd.png", "..", None]
    paths = [tmp_path / "cache" / f"{n}.png" for n in range(len(own))]
    for path in paths:
        path.write_bytes(encoded())
    found = gather(paths, tmp_path / "cache", Limits(), names=own)
    assert sorted(one.called for one in found.uploads) == sorted([*own[:2], "passwd.png", "3.png", "4.png"])
    assert max(len(one.name) for one in found.uploads) == 60


def test_links_locks_hidden_files_and_archives_in_archives_are_left_out(given: Callable[..., Any]) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    good = zipped({"a.png": encoded()})
    found = given(("0.zip", zipped({"l.png": b"/etc/passwd"}, link)), ("1.zip", good))
    assert [one.name for one in found.uploads] == ["a.png"]
    assert found.left_out == [("l.png", "a link, which is not followed")]
    hidden = {".a.png": encoded(), "__MACOSX/a.png": encoded(), "inner.zip": good, "b.png": encoded()}
    found = given(zipped(hidden))
    assert [one.name for one in found.uploads] == ["b.png"]
    assert found.left_out == [("inner.zip", "no picture by its name")]
    locked = bytearray(zipped({"a.png": encoded()}))
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="password"):
        given(bytes(locked))


def test_archives_that_unpack_to_much_are_refused(given: Callable[..., Any]) -> None:
    zeros = b"\0" * 150_000
    bomb = zipped({f"{i}.png": zeros for i in range(4)})
    assert len(bomb) < 2000
    with pytest.raises(InputError, match="unpacks to more"):
        given(bomb)
    found = given(zipped({"big.png": b"\0" * 250_000, "a.png": encoded()}))
    assert found.left_out == [("big.png", "more than 0.191 MB")]
    assert [one.name for one in found.uploads] == ["a.png"]


def test_an_archive_that_lies_of_its_sizes_is_refused(given: Callable[..., Any]) -> None:
    data = bytearray(zipped({"a.png": b"\0" * 190_000}))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)
    with pytest.raises(InputError, match="damaged"):
        given(bytes(data))


def test_one_damaged_file_of_an_archive_does_not_cost_the_others(given: Callable[..., Any]) -> None:
    noise = encoded("PNG", picture((60, 60)))
    data = bytearray(zipped({"a.png": noise, "b.png": encoded()}))
    data[200:260] = b"\xff" * 60
    found = given(bytes(data))
    assert [one.name for one in found.uploads] == ["b.png"]
    assert found.left_out == [("a.png", "damaged")]


def test_an_archive_of_very_many_names_is_refused_before_they_are_read(given: Callable[..., Any]) -> None:
    many = zipped({f"{i:05}{'x' * 150}.txt": b"" for i in range(6000)})
    with pytest.raises(InputError, match="unusual"):
        given(many, limits=Limits())
    with pytest.raises(InputError, match="MB"):
        given(zipped({"a.png": random.Random(0).randbytes(450_000)}))


def test_more_pictures_than_the_limit_are_named_as_left_out(given: Callable[..., Any]) -> None:
    found = given(zipped({f"{i}.png": encoded() for i in range(7)}))
    assert [one.name for one in found.uploads] == ["0.png", "1.png", "2.png", "3.png"]
    assert [name for name, _ in found.left_out] == ["5.png", "6.png", "4.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_a_bound_are_left_out(given: Callable[..., Any], method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.png", encoded())
    with pytest.raises(InputError, match="unusual way"):
        given(buffer.getvalue())


def test_damaged_archives_end_in_a_sentence(given: Callable[..., Any]) -> None:
    rng, whole, read = random.Random(3), zipped({f"{i}.png": encoded() for i in range(3)}), 0
    for turn in range(200):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        data = data[: rng.randrange(5, len(data))] if turn % 3 == 0 else data
        found, said = tried(lambda data=bytes(data): given(data))
        read += found is not None
        assert said.endswith(".") if found is None else len(found.uploads) <= 3
    assert read > 10


def test_nothing_that_is_a_picture_is_a_sentence(given: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="no picture in what you gave"):
        given(zipped({"a.txt": b"hi"}))
    with pytest.raises(InputError, match="no picture in what you gave"):
        given()


def test_texts_are_cleaned_and_bounded() -> None:
    assert clean_text("  a dog\n on\ta\0 bench\x85 ", SMALL) == "a dog  on a  bench"
    assert clean_text("<script>alert(1)</script>", SMALL) == "<script>alert(1)</script>"
    assert clean_text("犬 🐕 كلب", SMALL) == "犬 🐕 كلب"
    for bad in (None, "", " \n", "\0\1", "a" * 101, "a" * 1_000_000, "\ud800", 7, ["a"], {"a": 1}):
        with pytest.raises(InputError) as error:
            clean_text(bad, SMALL)
        assert len(one_sentence(error)) < 200


def test_prompts_are_one_a_line_each_once() -> None:
    assert clean_lines("a dog\n\n a cat \r\na dog\n", SMALL) == (["a dog", "a cat"], 1)
    for bad in (None, "", "\n\n", "a\nb\nc\nd", "a" * 5000, 3):
        with pytest.raises(InputError) as error:
            clean_lines(bad, SMALL)
        one_sentence(error)
