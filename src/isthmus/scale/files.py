"""Files in a folder of any file system that fsspec knows: each is there whole, or not at all; failures are retried."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from isthmus.errors import InputError, IsthmusError, SaveError
from isthmus.extras import needed
from isthmus.scale.patience import is_final, of_network, rest
from isthmus.scale.steady import steady

T = TypeVar("T")

# Where what is written appears only when it is whole; elsewhere it is written beside its place and then moved.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf", "memory"})


class Files:
    """Files by their names relative to a folder.

    Args:
        url, storage_options, tries, pause: see `isthmus.scale.store.Store`.

    Raises:
        InputError: no file system knows this URL.
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, Any] | None, tries: int, pause: float) -> None:
        """See the class."""
        self.url, self._tries, self._pause = url, tries, pause
        try:
            self.fs, root = needed("fsspec.core").url_to_fs(url, **(storage_options or {}))
        except (ValueError, ImportError) as error:
            raise InputError(
                f"{url!r} cannot be opened ({error}): give a folder, or a URL that fsspec knows."
            ) from error
        self.root = str(root).rstrip("/")
        names = self.fs.protocol if isinstance(self.fs.protocol, (tuple, list)) else (self.fs.protocol,)
        self._local = "file" in names
        self._whole = bool(_WHOLE.intersection(names))

    def path(self, name: str) -> str:
        """The path of a name in its file system."""
        return f"{self.root}/{name}" if name else self.root

    def make(self, *folders: str) -> None:
        """Make folders, where the file system has such."""
        for name in folders:
            self._tried(lambda name=name: self.fs.makedirs(self.path(name), exist_ok=True), "made", name)  # type: ignore[misc]

    def write(self, name: str, content: bytes | IO[bytes], *, lasting: bool = True) -> None:
        """Put a file in its place, whole or not at all.

        Args:
            name: where.
            content: bytes, or a file whose content it gets from where that stands.
            lasting: make sure that it outlives a power cut, where this machine can.
        """
        start = 0 if isinstance(content, bytes) else content.tell()

        def once() -> None:
            if not isinstance(content, bytes):
                content.seek(start)
            if self._local:
                self._write_local(name, content, lasting)
            elif self._whole:
                self._send(self.path(name), content)
            else:
                self._write_beside(name, content)

        self._tried(once, "written", name)

    def _write_local(self, name: str, content: bytes | IO[bytes], lasting: bool) -> None:
        beside, place = Path(self.path(_beside())), Path(self.path(name))
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("xb") as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    shutil.copyfileobj(content, stream)
                stream.flush()
                if lasting:
                    os.fsync(stream.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            beside.replace(place)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise

    def _write_beside(self, name: str, content: bytes | IO[bytes]) -> None:
        beside = self.path(_beside())
        try:
            self._send(beside, content)
            try:
                self.fs.mv(beside, self.path(name))
            except OSError:  # some do not move onto a file
                if not self.fs.exists(self.path(name)):
                    raise
                self.fs.rm_file(self.path(name))
                self.fs.mv(beside, self.path(name))
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(beside)
            raise

    def _send(self, path: str, content: bytes | IO[bytes]) -> None:
        if isinstance(content, bytes):
            self.fs.pipe_file(path, content)
            return
        with self.fs.open(path, "wb") as stream:
            shutil.copyfileobj(content, stream)

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where there is none."""

        def once() -> bytes | None:
            try:
                return bytes(self.fs.cat_file(self.path(name)))
            except FileNotFoundError:
                return None

        return self._tried(once, "read", name)

    def open(self, name: str) -> Any:
        """A file to read from, at any place in it; reads are tried again too, and raise what they failed with."""
        try:
            return steady(lambda: self.fs.open(self.path(name), "rb"), tries=self._tries, pause=self._pause)
        except Exception as error:  # each file system has its own
            if not of_network(error):
                raise
            raise self.trouble("read", name, error) from error

    def exists(self, name: str) -> bool:
        """Whether a file is there now."""

        def once() -> bool:
            self.fs.invalidate_cache()
            try:
                return bool(self.fs.info(self.path(name)))
            except FileNotFoundError:
                return False  # `exists` of many file systems says so of any error

        return self._tried(once, "read", name)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, but for empty files, which a power cut leaves; none where there is no folder."""

        def once() -> list[str]:
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.path(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            own = self.path(folder).strip("/")
            kept = (one for one in found if one.get("type") == "directory" or one.get("size") != 0)
            paths = (str(one["name"]).rstrip("/") for one in kept)
            return [path.rpartition("/")[2] for path in paths if path.strip("/") != own]

        return self._tried(once, "read", folder)

    def remove(self, *names: str) -> None:
        """Remove files; those that are not there are well too."""

        def once(name: str) -> None:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))

        for name in names:
            self._tried(lambda name=name: once(name), "removed", name)  # type: ignore[misc]

    def remove_folder(self, *folders: str) -> None:
        """Remove folders with all that is in them."""

        def once(name: str) -> None:
            with suppress(FileNotFoundError):
                self.fs.rm(self.path(name), recursive=True)

        for name in folders:
            self._tried(lambda name=name: once(name), "removed", name)  # type: ignore[misc]

    def _tried(self, work: Callable[[], T], what: str, name: str) -> T:
        """Do it, again where that may help. Raises SaveError, in one sentence, where it does not."""
        for number in range(self._tries):
            try:
                return work()
            except IsthmusError:
                raise
            except Exception as error:
                if not of_network(error):
                    raise
                if number == self._tries - 1 or is_final(error):
                    raise self.trouble(what, name, error) from error
            rest(number, self._pause)
        raise AssertionError("there is one try at least")

    def trouble(self, what: str, name: str, error: Exception) -> SaveError:
        """What to raise where something could not be `what`, such as "written"."""
        place = f"{self.url.rstrip('/')}/{name}" if name else self.url
        said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space, and run the same command again." if full else "check that it can be reached."
        return SaveError(f"{place!r} cannot be {what} ({said.rstrip('.')}): {mend}")


def _beside() -> str:
    return f".work/writing/{uuid.uuid4().hex}"
