"""Archives of pictures that would fill the disk or lead out of the folder."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping

from app.bad_pictures import CANARY, SCRIPT, Bad, bombs, drawn


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def linked(name: str, target: str) -> bytes:
    """A zip with a symbolic link."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
        archive.writestr("after.png", drawn())
    return file.getvalue()


def _path_tricks() -> Iterator[Bad]:
    names = (
        f"../{CANARY}.png",
        f"../../../../tmp/{CANARY}.png",
        f"/tmp/{CANARY}.png",
        f"a/../../{CANARY}.png",
        f"..\\{CANARY}.png",
        f"C:\\{CANARY}.png",
        f"a/./../../{CANARY}.png",
        f"....//{CANARY}.png",
        "a\x00.png",
        "x" * 5000 + ".png",
        "a/" * 500 + "a.png",
        f"{SCRIPT}.png",
        '"><img src=x onerror=window.hacked=1>.png',
        ".hidden.png",
        "new\nline.png",
        "\u202egnp.exe",
        "CON.png",
        " .png",
        "a.png/",
    )
    for name in names:
        yield Bad(f"zip with {name[:40]!a}", "pictures.zip", packed({name: drawn()}))
    for target in ("/etc/passwd", "..", "/", "after.png", "/dev/zero"):
        yield Bad(f"zip with a link to {target}", "pictures.zip", linked("link.png", target))


def _bombs() -> Iterator[Bad]:
    zeros = bytes(64 << 20)
    yield Bad("zip of a file of 64 MB of zeros", "pictures.zip", packed({"a.png": zeros}))
    yield Bad("zip of 40 files of 8 MB", "pictures.zip", packed({f"{n}.png": zeros[: 8 << 20] for n in range(40)}))
    inner = packed({"a.png": zeros})
    for _ in range(5):
        inner = packed({f"{n}.zip": inner for n in range(10)})
    yield Bad("zips in zips", "pictures.zip", inner)
    yield Bad(
        "zip of 20,000 files", "pictures.zip", packed({f"{n}.png": b"" for n in range(20_000)}, zipfile.ZIP_STORED)
    )
    yield Bad("zip of picture bombs", "pictures.zip", packed({f"{n}.png": bad.data for n, bad in enumerate(bombs())}))
    yield Bad("zip with lzma zeros", "pictures.zip", packed({"a.png": zeros[: 16 << 20]}, zipfile.ZIP_LZMA))
    whole = bytearray(packed({"a.png": zeros[: 1 << 20]}))
    at = whole.index(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 10)
    yield Bad("zip that claims 10 bytes for 1 MB", "pictures.zip", bytes(whole))


def _damaged() -> Iterator[Bad]:
    whole = packed({"a.png": drawn(), "b.jpg": drawn(kind="JPEG")})
    for share in (0.1, 0.5, 0.99):
        yield Bad(f"zip cut at {share:.0%}", "pictures.zip", whole[: int(len(whole) * share)])
    yield Bad("zip of nothing", "pictures.zip", packed({}))
    yield Bad("zip of no picture", "pictures.zip", packed({"read.me": b"hello", "data.csv": b"image\n/etc/passwd\n"}))
    yield Bad(
        "zip with a table of paths",
        "pictures.zip",
        packed({"metadata.csv": b"file_name\n../../etc/passwd\n", "a.png": drawn()}),
    )
    changed = bytearray(whole)
    changed[60:70] = bytes(10)
    yield Bad("zip with a wrong checksum", "pictures.zip", bytes(changed))
    locked = bytearray(whole)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + offset] |= 1
    yield Bad("zip that says it is encrypted", "pictures.zip", bytes(locked))
    method = bytearray(whole)
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        method[method.index(mark) + offset] = 99
    yield Bad("zip of an unknown method", "pictures.zip", bytes(method))
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.png", drawn())
        archive.writestr("A.png", drawn((20, 20)))
        archive.writestr("a.png ", drawn((30, 30)))
    yield Bad("zip of names that differ by little", "pictures.zip", twice.getvalue())
    yield Bad("zip in name only", "pictures.zip", drawn())
    yield Bad("end record alone, counts of 65535", "pictures.zip", b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2))
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"../{CANARY}.png")
        info.size = len(drawn())
        archive.addfile(info, io.BytesIO(drawn()))
    yield Bad("tar with a path up, named zip", "pictures.zip", tarred.getvalue())


def archives() -> list[Bad]:
    """All of them, always the same."""
    return [*_path_tricks(), *_bombs(), *_damaged()]
