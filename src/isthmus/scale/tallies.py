"""Statistics of a stream in little memory, whatever its length: histograms, words, positions, what stands out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isthmus.frozen import Array

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_MARKS = "\"'.,;:!?()[]{}<>«»“”‘’…。，、！？"


class Histogram:
    """Numbers counted in equal bins, of themselves or of their logarithm.

    Values below the first bin and above the last count as of those; extremes and the mean are exact. A quantile is
    off by a bin at most: `resolution` in the value, or its share of the value where `log`.

    Args:
        low, high: of the bins; above zero where `log`.
        bins: how many.
        log: equal in the logarithm. Zeros and infinities are counted apart.
    """

    def __init__(self, low: float, high: float, bins: int, *, log: bool = False) -> None:
        """See the class."""
        self.log = log
        self._edges = (
            np.linspace(math.log10(low), math.log10(high), bins + 1) if log else np.linspace(low, high, bins + 1)
        )
        self.bins = np.zeros(bins, dtype=np.int64)
        self.count = self.zeros = self.infinite = 0
        self._sum = self._squares = 0.0
        self.least, self.most = math.inf, -math.inf

    @property
    def resolution(self) -> float:
        """The width of a bin; where `log`, by what share one edge is above the other."""
        width = float(self._edges[1] - self._edges[0])
        return 10**width - 1 if self.log else width

    def add(self, values: Array) -> None:
        """Count some; those that are not numbers are left out."""
        values = np.asarray(values, dtype=np.float64)
        values = values[~np.isnan(values)]
        self.count += len(values)
        finite = values[np.isfinite(values)]
        self.infinite += len(values) - len(finite)
        if not len(finite):
            return
        self._sum += float(finite.sum())
        self._squares += float((finite**2).sum())
        self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))
        if self.log:
            self.zeros += int((finite <= 0).sum())
            finite = np.log10(finite[finite > 0])
        place = (finite - self._edges[0]) / (self._edges[1] - self._edges[0])
        self.bins += np.bincount(place.astype(int).clip(0, len(self.bins) - 1), minlength=len(self.bins))

    @property
    def mean(self) -> float:
        """Of the finite values."""
        return self._sum / max(self.count - self.infinite, 1)

    @property
    def deviation(self) -> float:
        """The standard deviation of the finite values."""
        variance = self._squares / max(self.count - self.infinite, 1) - self.mean**2
        return math.sqrt(max(variance, 0.0))

    def quantile(self, share: float) -> float:
        """The value below which a share of all lies, between the edges of its bin."""
        wanted = share * self.count
        if self.zeros and wanted <= self.zeros:
            return 0.0
        sums = self.zeros + np.cumsum(self.bins)
        at = int(np.searchsorted(sums, wanted))
        if at == len(self.bins):
            return math.inf if self.infinite else self.most
        before = float(sums[at] - self.bins[at])
        inside = (wanted - before) / max(int(self.bins[at]), 1)
        value = float(self._edges[at] + inside * (self._edges[at + 1] - self._edges[at]))
        return float(np.clip(10**value if self.log else value, self.least, self.most))

    def told(self) -> dict[str, Any] | None:
        """What there is to tell, as JSON; None where nothing was counted."""
        if not self.count:
            return None
        used = np.flatnonzero(self.bins)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        edges = self._edges[first : last + 1]
        return {
            "count": self.count,
            "mean": self.mean,
            "deviation": self.deviation,
            "least": self.least,
            "most": self.most,
            "zeros": self.zeros,
            "infinite": self.infinite,
            "quantiles": {f"{share:g}": self.quantile(share) for share in QUANTILES},
            "resolution": self.resolution,
            "log": self.log,
            "edges": (10**edges if self.log else edges).tolist() if last else [],
            "bins": self.bins[first:last].tolist(),
        }


class WordTally:
    """Lower-cased words with how often they come and what they carry; marks alone are no words.

    At most `limit` words are kept: beyond, the rarer half is forgotten. Each forgetting adds the highest count that it
    threw away to `missed`, by which no word's count falls short; so a word with a much higher count is all but exact.

    Args:
        limit: words in memory.
    """

    def __init__(self, limit: int = 200_000) -> None:
        """See the class."""
        self._limit = limit
        self._found: dict[str, Array] = {}  # count, sum of scores, sum of shares
        self.missed = self.forgotten = self.total = 0

    def add(self, words: Sequence[str], scores: Array, shares: Array) -> None:
        """Count occurrences; a share is a word's score over the sum of the sizes of its text's scores."""
        plain = np.array([plain_word(word) for word in words], dtype=object)
        kept = plain != ""
        self.total += int(kept.sum())
        names, places = np.unique(plain[kept], return_inverse=True)
        sums = [np.bincount(places, weights, len(names)) for weights in (None, scores[kept], shares[kept])]
        for name, *values in zip(names.tolist(), *sums, strict=True):
            known = self._found.get(name)
            if known is None:
                self._found[name] = np.array(values, dtype=np.float64)
            else:
                known += values
        if len(self._found) > self._limit:
            self._forget()

    def _forget(self) -> None:
        order = sorted(self._found, key=lambda name: (-self._found[name][0], name))
        self.missed += int(self._found[order[self._limit // 2]][0])
        self.forgotten += len(order) - self._limit // 2
        self._found = {name: self._found[name] for name in order[: self._limit // 2]}

    def told(self, least: int, count: int) -> dict[str, Any]:
        """The `count` words that carry most, and least, by the mean of their score, among those that come often.

        Args:
            least: how often a word comes.
            count: words on either side; none is on both.
        """
        often = [(name, values) for name, values in self._found.items() if values[0] >= least]
        often.sort(key=lambda one: (-one[1][1] / one[1][0], one[0]))
        count = min(count, (len(often) + 1) // 2)
        most, least_ = often[:count], often[max(count, len(often) - count) :][::-1]
        by_sum = sorted(often, key=lambda one: (-abs(one[1][1]), one[0]))[:count]
        return {
            "occurrences": self.total,
            "words": len(self._found),
            "often": len(often),
            "least_count": least,
            "forgotten": self.forgotten,
            "missed_at_most": self.missed,
            "most": [_word(*one) for one in most],
            "least": [_word(*one) for one in least_],
            "largest_sum": [_word(*one) for one in by_sum],
        }


def plain_word(word: str) -> str:
    """A word in lower case, without marks around it; "" where it has no letter or digit."""
    word = word.lower().strip()
    return word.strip(_MARKS) if any(letter.isalnum() for letter in word) else ""


def _word(name: str, values: Array) -> dict[str, Any]:
    count, score, share = (float(value) for value in values)
    return {
        "word": name,
        "count": int(count),
        "mean_score": score / count,
        "mean_share": share / count,
        "sum_score": score,
        "sum_share": share,
    }


@dataclass
class Kept:
    """Rows that stand out, the farthest first; one a picture.

    Attributes:
        limit: how many.
        rows: `(figure, id, row)`, the figure signed so that the highest stands out most.
    """

    limit: int
    rows: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)

    def offer(self, figures: Array, ids: Sequence[str], pictures: Sequence[str], row: Callable[[int], Any]) -> None:
        """Look at a batch.

        Args:
            figures: `(N,)`; NaN never stands out.
            ids: of the rows; the lower stands before where figures are the same.
            pictures: of the rows.
            row: gives the row at a place in the batch; called for few.
        """
        if not self.limit:
            return
        order = np.argsort(-figures, kind="stable")
        for i in order[: int(np.isfinite(figures).sum() + np.isposinf(figures).sum())]:
            key = (-float(figures[i]), ids[i])
            if len(self.rows) == self.limit and key >= (-self.rows[-1][0], self.rows[-1][1]):
                if key[0] > -self.rows[-1][0]:
                    return
                continue
            same = next((n for n, one in enumerate(self.rows) if one[2]["picture"] == pictures[i]), None)
            if same is not None:
                if key >= (-self.rows[same][0], self.rows[same][1]):
                    continue
                del self.rows[same]
            self.rows.append((float(figures[i]), ids[i], row(int(i))))
            self.rows.sort(key=lambda one: (-one[0], one[1]))
            del self.rows[self.limit :]
