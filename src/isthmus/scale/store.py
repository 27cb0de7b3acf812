"""OUTPUT: a run's folder on a disk or an object store, which loses nothing when the run dies and repeats nothing.

    manifest.json                       settings, versions, counts, state
    pairs/part-SSSSS-KKKKK.parquet      the rows of piece K of shard S: whole, or not there
    errors.parquet                      what failed and why, gathered when a run ends
    .work/errors-SSSSS-KKKKK.parquet    what failed in a piece, written before its part
    .work/ended-SSSSS-NNNNN.json        shard S has N pieces
    .work/trying-SSSSS-KKKKK.json       a piece that is at work, and what is known of it
    .work/retrying.json                 pieces are being taken back, see `isthmus.scale.retrying`
    .work/kept.parquet                  what errors.parquet alone told when the run began

A piece is done when its part is there. Several writers may be at work at once, on several machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from isthmus.datasets.records import Failure
from isthmus.errors import OptionError
from isthmus.scale import naming
from isthmus.scale.differences import differences
from isthmus.scale.gathering import ERRORS, READERS, gather, keep
from isthmus.scale.output import Output
from isthmus.scale.packing import errors_table, packed
from isthmus.scale.retrying import take_back

_OURS = ("manifest.json", "errors.parquet", "summary.json", "summary.html")


class Store(Output):
    """A run's output, also to be written. It can be pickled and sent to where it writes.

    Every method raises SaveError where the store cannot be written or read, at once where a disk is full or closed
    to us, after all tries otherwise.
    """

    def prepare(
        self,
        settings: Mapping[str, Any],
        *,
        about: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        retry_failed: bool = False,
    ) -> bool:
        """Begin a run, or go on with one of the same settings; called once, before anything else writes.

        Args:
            settings: what the rows follow from, as JSON values; a run goes on only where all are the same.
            about: what may differ from run to run, such as the engine, versions or the plan.
            overwrite: throw an earlier run away.
            retry_failed: take back what failed in an earlier run, so that it is done again.

        Returns:
            Whether an earlier run is gone on with.

        Raises:
            OptionError: the folder holds a run of other settings, or other files.
        """
        told, before = _plain(settings), self.manifest()
        if overwrite and (before or not self._strange()):
            self._clear()
            before = None
        elif before is None and self._strange():
            raise OptionError(f"The folder {self.url!r} holds other files: give another OUTPUT, or an empty one.")
        elif before is not None and (before.get("state") == "running" or self.done().pieces):
            self._check(before.get("settings", {}), told)
        self._tidy()
        if retry_failed or self.files.exists(naming.RETRYING):
            with self._gathering():
                take_back(self.files, self.read_part, self.done().pieces)
        self.files.make("pairs", ".work/writing")
        counts = {} if before is None else before.get("counts", {})
        manifest = {
            "format": 1,
            "state": "running",
            "settings": told,
            "about": _plain(about or {}),
            "counts": counts,
            "began": _now() if before is None else before.get("began", _now()),
            "ended": None,
        }
        self._write_manifest(manifest)
        return before is not None

    def finished(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The manifest of a run of the same settings of which nothing is left to do, and nothing is lost; or None."""
        manifest = self.manifest() or {}
        if manifest.get("state") != "complete" or manifest.get("settings") != _plain(settings):
            return None
        whole = manifest["counts"]["parts"] == len(self.done().pieces) and self.files.exists(ERRORS)
        return manifest if whole else None

    def _check(self, before: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        said = differences(before, told)
        if said:
            raise OptionError(
                f"The folder {self.url!r} holds a run with another {', '.join(said)}: give another OUTPUT, or "
                "--overwrite."
            )

    def _strange(self) -> bool:
        """Whether there are files that no run put there, or rows of a run that nothing is known of."""
        found = {name for name in self.files.names("") if not name.startswith(".")}
        return bool(found - {*_OURS, "pairs"}) or "manifest.json" in found or bool(self.files.names("pairs"))

    def _clear(self) -> None:
        self.files.remove("manifest.json", "errors.parquet")
        self.files.remove_folder("pairs", ".work")

    def _tidy(self) -> None:
        """Remove what a killed run was writing, and errors of pieces that it did not finish."""
        self.files.remove_folder(".work/writing")
        done = self.done().pieces
        names = {naming.errors(*one): one for one in naming.errors_among(self.files.names(naming.WORK))}
        with self._gathering():
            keep(self.files, self.read_part, sorted(names), done)
        self.files.remove(*(name for name, at in names.items() if at not in done))

    def put(
        self,
        shard: int,
        piece: int,
        table: Any,
        failures: Sequence[Failure] = (),
        *,
        last: bool = False,
        all_read: bool = False,
    ) -> None:
        """Write a piece: its failures, then whether it ends its shard, then its rows.

        Args:
            shard, piece: its place; another part there is replaced.
            table: of `isthmus.scale.rows.table_of`; no rows are well too.
            failures: the records of this piece that have no row, and why.
            last: the shard ends with it.
            all_read: none of its records failed by not being read, so that its pairs are the same in every run.
        """
        errors = naming.errors(shard, piece)
        if failures:
            self.files.write(errors, packed(errors_table(shard, failures, all_read=all_read)))
        elif self.files.exists(errors):  # of an earlier try, which failed where this one did not
            self.files.remove(errors)
        if last:
            self.files.write(naming.ended(shard, piece + 1), b"{}")
        self.files.write(naming.part(shard, piece), packed(table))

    def trying(self, shard: int, piece: int) -> dict[str, Any] | None:
        """Tell that a piece is at work, before it is.

        Returns:
            None as a rule. Where a process died at it, what that one told: `tries`, and what it gave to `note`.
        """
        name = naming.trying(shard, piece)
        content = self.files.read(name)
        try:
            before = None if content is None else dict(json.loads(content))
        except ValueError:
            before = {"tries": 1}
        self.note(shard, piece, {**(before or {}), "tries": (before or {}).get("tries", 0) + 1})
        return before

    def note(self, shard: int, piece: int, told: Mapping[str, Any]) -> None:
        """Keep what is known of a piece at work, for the one who takes it where this process dies."""
        self.files.write(naming.trying(shard, piece), json.dumps(_plain(told)).encode(), lasting=False)

    def clear(self, shard: int, piece: int) -> None:
        """Tell that a piece is no longer at work."""
        self.files.remove(naming.trying(shard, piece))

    def put_down(self) -> None:
        """Tell that no piece is at work: the run was ended by a user, and none of them ended it."""
        self.files.remove(*(f"{naming.WORK}/{name}" for name in naming.trying_among(self.files.names(naming.WORK))))

    @contextmanager
    def _gathering(self) -> Iterator[None]:
        """What goes wrong with errors.parquet, or a disk where it is put together, as one sentence."""
        try:
            yield
        except OSError as error:
            raise self.files.trouble("gathered", ERRORS, error) from error

    def finish(self, state: str = "complete", *, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Gather the errors of all pieces, count rows, and write the manifest; at the end of every run.

        Args:
            state: "complete", "interrupted" or "stopped".
            about: joins what `prepare` was told.

        Returns:
            The manifest.
        """
        done = self.done()
        told = naming.errors_among(self.files.names(naming.WORK))
        names = sorted(naming.errors(*one) for one in told if one in done.pieces)
        with self._gathering():
            failures = gather(self.files, self.read_part, names, lambda at: naming.part(*at), set(done.pieces))
        counts = {
            "rows": self._count(),
            "failures": failures,
            "parts": len(done.pieces),
            "shards_complete": len(done.complete()),
        }
        manifest = self.manifest() or {}
        about = {**manifest.get("about", {}), **_plain(about or {})}
        manifest |= {"state": state, "about": about, "counts": counts, "ended": _now()}
        self._write_manifest(manifest)
        return manifest

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.files.write("manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())

    def _count(self) -> int:
        """Rows of all parts, by the ends of their files."""
        with ThreadPoolExecutor(READERS) as pool:
            return sum(pool.map(self._rows, self.parts()))

    def _rows(self, name: str) -> int:
        with self.read_part(name) as part:
            return int(part.metadata.num_rows)


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that both sides of a comparison went the same way."""
    return dict(json.loads(json.dumps(told, default=str)))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
