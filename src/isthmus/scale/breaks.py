"""What is told of a shard that breaks off."""

from __future__ import annotations

from isthmus.datasets.records import Failure
from isthmus.scale.patience import is_passing
from isthmus.scale.raw import Shard


def broken(shard: Shard, error: Exception) -> Failure:
    """The rest of a shard cannot be read, for this error."""
    mend = "run it with --retry-failed once it can be reached." if is_passing(error) else "get a whole copy."
    return Failure(shard.shown, f"The rest of {shard.shown!r} cannot be read ({said(error)}): {mend}")


def said(error: Exception) -> str:
    """An error in one line."""
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")
