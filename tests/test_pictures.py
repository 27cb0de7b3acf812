"""Pictures of every kind open; those that cannot are refused in one sentence."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import picture
from isthmus.encoders.pictures import Picture, display_copy, open_picture
from isthmus.errors import InputError


def red_and_blue(mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_formats_open(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a b ü.{suffix}"
    red_and_blue().save(path)
    opened = open_picture(path)
    assert opened.source == str(path)
    assert opened.image.mode == "RGB"
    left, right = (np.asarray(opened.image)[10, x].astype(int) for x in (5, 35))
    assert np.abs(left - [255, 0, 0]).max() < 16
    assert np.abs(right - [0, 0, 255]).max() < 16


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "RGBA", "LAB"])
def test_colour_modes_keep_their_colours(mode: str) -> None:
    from PIL import ImageCms

    image = red_and_blue("RGB")
    if mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(image, transform)
    else:
        image = image.convert(mode)
    pixels = np.asarray(open_picture(image).image).astype(int)
    assert pixels[10, 5, 0] > 200
    assert pixels[10, 35, 2] > 150


def test_cmyk_jpeg_opens(tmp_path: Path) -> None:
    red_and_blue("CMYK").save(tmp_path / "c.jpg")
    assert np.asarray(open_picture(tmp_path / "c.jpg").image)[10, 5, 0] > 200


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    for source in (
        tmp_path / "ramp.png",
        Image.fromarray(ramp.astype(np.int32)),
        Image.fromarray(ramp / np.float32(65535)),
    ):
        found = np.asarray(open_picture(source).image)[0, :, 0].astype(int)
        assert np.abs(found - np.arange(256)).max() <= 1


def test_grey_values_without_a_scale_are_refused() -> None:
    with pytest.raises(InputError, match="8 or 16 bits"):
        open_picture(Image.fromarray(np.full((8, 8), 1e6, np.float32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    image.convert(mode).save(tmp_path / "t.png")
    pixels = np.asarray(open_picture(tmp_path / "t.png").image)
    assert pixels[4, 1].tolist() == [0, 0, 0]
    assert pixels[4, 6].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    red_and_blue().save(tmp_path / "turned.png", exif=exif)
    opened = open_picture(tmp_path / "turned.png").image
    assert opened.size == (20, 40)
    np.testing.assert_array_equal(opened, red_and_blue().transpose(Image.Transpose.ROTATE_270))


def test_arrays_and_tensors_are_pictures() -> None:
    pixels = np.asarray(red_and_blue())
    chw = np.moveaxis(pixels, 2, 0)
    for source in (pixels, chw, pixels / 255.0, torch.from_numpy(chw.copy()), torch.from_numpy(chw / 255.0)):
        np.testing.assert_array_equal(open_picture(source).image, pixels)
    for source in (pixels[..., 0], pixels[..., :1], pixels[..., 0] > 100):
        np.testing.assert_array_equal(np.asarray(open_picture(source).image)[..., 1], pixels[..., 0])
    given = Picture(red_and_blue())
    assert open_picture(given) is given


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.full((8, 8, 3), 2.0), r"lie in \[0, 1\].*PreparedImage"),
        (np.full((8, 8, 3), np.nan), r"lie in \[0, 1\]"),
        (np.zeros((8, 8, 3), np.int64), "array of int64"),
        (np.zeros((8, 8, 7), np.uint8), "no picture"),
        (np.zeros((2, 3, 8, 8), np.uint8), "no picture"),
        (np.zeros((0, 8, 3), np.uint8), "no picture"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels, too small"),
        (Image.new("RGB", (4000, 4)), "4000 x 4 pixels, too long and narrow"),
        (3.5, "not float"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_picture(source)


def bomb(path: Path, side: int) -> None:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def bad_files(folder: Path) -> dict[str, str]:
    """Name and expected message of files that cannot be opened."""
    whole = io.BytesIO()
    picture(1, (300, 200)).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:-2000])
    (folder / "text.png").write_text("I am no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    bomb(folder / "bomb.png", 30_000)
    bomb(folder / "large.png", 12_000)
    (folder / "folder.png").mkdir()
    return {
        "cut.jpg": r"damaged or cut off.*whole copy",
        "text.png": r"no picture that Pillow can read.*convert it",
        "empty.jpg": r"is empty: get a whole copy",
        "drawing.svg": r"no picture that Pillow can read",
        "dot.png": r"1 x 1 pixels, too small.*at least 4",
        "bomb.png": r"too many pixels|too large",
        "large.png": r"12000 x 12000 pixels, too large.*scale it",
        "folder.png": r"is a folder",
        "missing.png": r"There is no picture.*check the path",
    }


@pytest.mark.parametrize("as_text", [False, True])
def test_bad_files_get_one_sentence_each(tmp_path: Path, as_text: bool) -> None:
    for name, message in bad_files(tmp_path).items():
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match=message) as caught:
                open_picture(str(path) if as_text else path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_urls_are_not_fetched() -> None:
    with pytest.raises(InputError, match="URLs are not fetched: download"):
        open_picture("https://example.org/dog.jpg")


def test_display_copies_are_bounded() -> None:
    copy = display_copy(Picture(picture(0, (3000, 1500))), limit=1024)
    assert copy.shape == (512, 1024, 3)
    small = picture(0, (30, 20))
    np.testing.assert_array_equal(display_copy(Picture(small)), small)
