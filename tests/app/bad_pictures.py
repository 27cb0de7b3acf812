"""Uploads in the picture's place that are damaged, huge, of two kinds at once, or no picture at all. All seeded."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

SCRIPT = "<script>window.hacked=1</script>"
CANARY = "isthmus-canary"  # a name that must never be opened, made or run


@dataclass(frozen=True)
class Bad:
    """A file as a browser would upload it."""

    label: str
    filename: str
    data: bytes


def drawn(size: tuple[int, int] = (48, 40), mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    """A proper picture."""
    rng = np.random.default_rng(sum(size))
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, *, right: bool = True) -> bytes:
    """A chunk of a PNG; with a wrong checksum where not `right`."""
    crc = zlib.crc32(kind + data) ^ (0 if right else 1)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def zeros(count: int) -> bytes:
    """That many zero bytes, deflated: a thousandth of it."""
    packer = zlib.compressobj(6)
    block = bytes(1 << 20)
    parts = [packer.compress(block[: min(len(block), count - at)]) for at in range(0, count, len(block))]
    return b"".join(parts) + packer.flush()


def png(width: int, height: int, body: bytes, *, depth: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    """A PNG of any promise: `body` is what is said to be its deflated rows."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bombs() -> Iterator[Bad]:
    """Small files that would fill the memory, or the time, of whoever opens them."""
    few = zlib.compress(bytes(64))
    yield Bad("png of 2.5 gigapixels, no rows", "a.png", png(50_000, 50_000, few))
    yield Bad("png of the widest promise", "a.png", png(2**31 - 1, 2**31 - 1, few))
    yield Bad("png of 400 megapixels, whole", "a.png", png(20_000, 20_000, zeros(20_000 * 2501), depth=1))
    yield Bad("png of 144 megapixels, whole", "a.png", png(12_000, 12_000, zeros(12_000 * 1501), depth=1))
    yield Bad("png of a line of a million", "a.png", png(1_000_000, 1, zeros(125_001), depth=1))
    yield Bad("png of a column of a million", "a.png", png(1, 1_000_000, zeros(2_000_000), depth=1))
    text = b"Comment\0\0" + zeros(200 << 20)
    yield Bad("png with a text of 200 MB", "a.png", png(8, 8, zlib.compress(bytes(72)), before=chunk(b"zTXt", text)))
    profile = b"icc\0\0" + zeros(200 << 20)
    yield Bad(
        "png with a profile of 200 MB", "a.png", png(8, 8, zlib.compress(bytes(72)), before=chunk(b"iCCP", profile))
    )
    frames = [Image.new("P", (4, 4), n % 250) for n in range(3000)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    yield Bad("gif of 3000 frames", "a.gif", file.getvalue())
    yield Bad("gif of a screen of 4 gigapixels", "a.gif", b"GIF89a\xff\xff\xff\xff" + drawn(kind="GIF")[10:])
    yield Bad("ppm of 10 gigapixels", "a.ppm", b"P6 100000 100000 255\n" + bytes(100))
    yield Bad("pgm with a size of a thousand digits", "a.pgm", b"P5 " + b"9" * 1000 + b" 9 255\n")
    size = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Bad("bmp of the widest promise", "a.bmp", b"BM" + size)
    jpeg = bytearray(drawn(kind="JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    yield Bad("jpeg of 4 gigapixels", "a.jpg", bytes(jpeg))
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + b"\xff\xff\xff" * 2
    yield Bad("webp of the widest promise", "a.webp", b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x)
    tags = struct.pack("<HHII", 256, 4, 1, 2**31 - 1) + struct.pack("<HHII", 257, 4, 1, 2**31 - 1)
    yield Bad("tiff of the widest promise", "a.tif", b"II*\0\x08\0\0\0\x02\0" + tags + bytes(4))
    yield Bad(
        "tiff with a tag of 4 billion values",
        "a.tif",
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 273, 4, 2**32 - 1, 8) + bytes(4),
    )
    yield Bad("tiff whose directory follows itself", "a.tif", b"II*\0\x08\0\0\0\x00\0" + struct.pack("<I", 8))


def damaged() -> Iterator[Bad]:
    """Proper pictures, cut, twisted and with single bytes changed."""
    rng = random.Random(5)
    for kind, name in (
        ("PNG", "a.png"),
        ("JPEG", "a.jpg"),
        ("GIF", "a.gif"),
        ("WEBP", "a.webp"),
        ("TIFF", "a.tif"),
        ("BMP", "a.bmp"),
    ):
        whole = drawn(kind=kind)
        for share in (0.02, 0.3, 0.95):
            yield Bad(f"{kind} cut at {share:.0%}", name, whole[: int(len(whole) * share)])
        twisted = bytearray(whole)
        for _ in range(12):
            twisted[rng.randrange(8, len(twisted))] = rng.randrange(256)
        yield Bad(f"{kind} with bytes changed", name, bytes(twisted))
    rows = zlib.compress(bytes(72))
    yield Bad("png of no pixel", "a.png", png(0, 0, rows))
    yield Bad("png of an unknown colour type", "a.png", png(8, 8, rows, colour=5))
    yield Bad("png with rows of noise", "a.png", png(8, 8, bytes(rng.randrange(256) for _ in range(80))))
    yield Bad("png with a wrong checksum", "a.png", png(8, 8, rows, before=chunk(b"gAMA", bytes(4), right=False)))
    yield Bad("png with a chunk longer than the file", "a.png", drawn()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT1")
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 34665, 4, 1, 8) + struct.pack("<I", 8)
    yield Bad("jpeg whose exif follows itself", "a.jpg", _with_app1(loop))
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 99, 0) + bytes(4)
    yield Bad("jpeg turned the 99th way", "a.jpg", _with_app1(turned))
    yield Bad("jpeg with a segment of a false length", "a.jpg", b"\xff\xd8\xff\xe1\xff\xff" + drawn(kind="JPEG")[2:])


def _with_app1(data: bytes) -> bytes:
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(data) + 2) + data + drawn(kind="JPEG")[2:]


class _Runs:
    """An object that runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {CANARY}",)


def others() -> Iterator[Bad]:
    """No pictures, under a picture's name; formats that can run or fetch something."""
    rng, program = random.Random(6), pickle.dumps(_Runs())
    eps = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch {CANARY}) (w) file pop\nshowpage\n%%EOF\n"
    href = f'<image href="file:///etc/passwd"/><image href="http://127.0.0.1:9/{CANARY}"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" onload="window.hacked=1">{SCRIPT}{href}</svg>'
    laughs = '<!DOCTYPE a [<!ENTITY b "ha">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("bcdefgh", "cdefghi", strict=True)
    )
    entity = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    bodies: dict[str, bytes | str] = {
        "nothing.png": b"",
        "one-byte.png": b"\x89",
        "page.png": f"<html>{SCRIPT}</html>",
        "page.html": f"<html><body onload='window.hacked=1'>{SCRIPT}</body></html>",
        "script.js": "window.hacked=1",
        "program.jpg": b"\x7fELF\x02\x01\x01" + bytes(200),
        "windows.jpg": b"MZ" + bytes(200),
        "shell.png": f"#!/bin/sh\ntouch {CANARY}\n",
        "pickled.png": program,
        "pickled.pkl": program,
        "array.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)
        + program,
        "noise.png": rng.randbytes(1 << 20),
        "zeros.jpg": bytes(5 << 20),
        "words.png": "a dog on the grass\n" * 1000,
        "data.json": '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
        "print.eps": eps,
        "print.png": eps,
        "paper.pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF",
        "drawing.svg": svg,
        "drawing.png": svg,
        "laughs.svg": f"{laughs}]><svg>&i;</svg>",
        "entity.svg": entity,
        "windows.wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "photo.psd": b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(60),
        "stars.fits": b"SIMPLE  =                    T".ljust(80)
        + b"NAXIS1  = 99999999999".ljust(80)
        + b"END".ljust(2720),
        "movie.fli": struct.pack("<IHHHH", 128, 0xAF11, 65535, 65535, 65535) + bytes(120),
        "grib.png": b"GRIB\x00\x00\x00\x01" + bytes(50),
        "icon.ico": b"\0\0\1\0\xff\xff" + bytes(16) * 20,
        "apple.icns": b"icns\xff\xff\xff\xff" + b"ic10\xff\xff\xff\xff" + bytes(50),
        "texture.dds": b"DDS \x7c\0\0\0" + bytes(4) + struct.pack("<II", 2**31, 2**31) + bytes(120),
        "future.avif": b"\0\0\0\x1cftypavif" + bytes(40),
        "jpeg2000.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
        "bits.xbm": f"#define im_width 999999\n#define im_height 999999\nstatic char im_bits[] = {{{'0x00,' * 99}}}",
        "pixels.xpm": f'/* XPM */\nstatic char *a[] = {{"9999 9999 9999 9"{",0" * 99}}};',
    }
    for name, body in bodies.items():
        yield Bad(f"not a picture: {name}", name, body.encode() if isinstance(body, str) else body)


def polyglots() -> Iterator[Bad]:
    """Pictures that are something else as well."""
    shown = SCRIPT.encode()
    zipped = b"PK\x05\x06" + bytes(18)
    yield Bad("png and page", "both.png", drawn() + shown)
    yield Bad("png and page, named html", "both.html", drawn() + shown)
    yield Bad("png and svg, named svg", "both.svg", drawn() + f"<svg>{SCRIPT}</svg>".encode())
    yield Bad("png and zip", "both.png", drawn() + zipped)
    yield Bad("jpeg and zip", "both.zip.jpg", drawn(kind="JPEG") + zipped)
    yield Bad("gif and script", "both.gif", b"GIF89a=window.hacked=1//" + drawn(kind="GIF")[6:])
    yield Bad(
        "png with a script in its text", "text.png", drawn()[:33] + chunk(b"tEXt", b"Title\0" + shown) + drawn()[33:]
    )
    yield Bad("jpeg with a script in its comment", "comment.jpg", drawn(kind="JPEG", comment=shown))
    yield Bad("jpeg before a pdf", "both.pdf", drawn(kind="JPEG") + b"%PDF-1.7\n%%EOF")
    yield Bad("pickle before a png", "both.png", pickle.dumps(_Runs()) + drawn())
    yield Bad("jpeg named png", "wrong.png", drawn(kind="JPEG"))


def odd() -> Iterator[Bad]:
    """Proper pictures of kinds that are seldom met."""
    for mode, kind in (
        ("1", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("F", "TIFF"),
    ):
        yield Bad(f"{kind} in mode {mode}", f"mode.{kind.lower()}", drawn(mode=mode, kind=kind))
    for size in ((1, 1), (1, 3000), (3000, 1), (2, 2)):
        yield Bad(f"png of {size}", "thin.png", drawn(size))


NAMES = (
    "../../../../etc/passwd",
    "../../up.png",
    "..\\..\\up.png",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "%2e%2e%2fup.png",
    "....//up.png",
    f"{SCRIPT}.png",
    '"><img src=x onerror=window.hacked=1>.png',
    "a\x00b.png",
    "x" * 3000 + ".png",
    "\u202egnp.exe",
    ".htaccess",
    "CON.png",
    "new\nline.png",
    "~/.bashrc",
    "file:///etc/passwd",
    "http://127.0.0.1:9/a.png",
    ".",
    "..",
    "",
    "$(touch x).png",
    "{{7*7}}.png",
    "é😀.png",
)


def named() -> Iterator[Bad]:
    """A proper picture under names that lead elsewhere."""
    for name in NAMES:
        yield Bad(f"named {name[:40]!a}", name, drawn())


def pictures() -> list[Bad]:
    """All of them, always the same."""
    return [*bombs(), *damaged(), *others(), *polyglots(), *odd(), *named()]
