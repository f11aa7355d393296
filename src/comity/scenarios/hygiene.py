"""Exact and near duplicates within and across files and splits, and personas that training and evaluation share.

datasketch proposes pairs (MinHash, Broder 1997; locality-sensitive hashing), their exact Jaccard similarity decides. So
a pair that is reported is one; of pairs exactly at the threshold at most one in a hundred is missed, of closer ones
fewer. A paraphrase in other words is not found.
"""

import importlib.util
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from comity.errors import ConfigError
from comity.scenarios.kinds import Kind
from comity.scenarios.rows import Row
from comity.scenarios.words import list_ngrams, split_words

THRESHOLD = 0.3
"""Jaccard similarity of two texts' word 3-grams from which they count as near duplicates."""
SHINGLE_WORDS = 3
PERMUTATIONS = 128
LEAST_RECALL = 0.99

Aspect = Literal["matter", "persona"]


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a row and where it stands; matters (dilemmas, questions, cases) are not compared with personas."""

    file: str
    row: str
    field: str
    aspect: Aspect
    words: str
    split: str = ""

    @property
    def place(self) -> str:
        """Return the place in words."""
        return f"{self.file} {self.row} {self.field}" + (f" ({self.split})" if self.split else "")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two texts of one aspect that are alike; `similarity` is 1 for the same words in the same order."""

    first: Text
    second: Text
    similarity: float
    exact: bool

    @property
    def across(self) -> str:
        """Return what the pair crosses: `files`, `splits` or nothing."""
        if self.first.file != self.second.file:
            return "files"
        return "splits" if self.first.split != self.second.split else ""

    def describe(self) -> str:
        """Return the finding in one line."""
        what = "persona" if self.first.aspect == "persona" else "text"
        alike = f"the same {what} as" if self.exact else f"a near-duplicate {what} ({self.similarity:.2f}) of"
        across = f", across {self.across}" if self.across else ""
        return f"{self.second.place}: {alike} {self.first.place}{across}"


def collect_texts(file: str, kind: Kind, rows: Sequence[Row]) -> list[Text]:
    """Return the texts of a file that are compared: what each row is about, and its personas."""
    texts = []
    for row in rows:
        split = row.get("split", "")
        if kind.matter:
            texts.append(_make_text(file, row["id"], kind.matter, "matter", row[kind.matter], split))
        texts += [_make_text(file, row["id"], field, "persona", row[field], split) for field in kind.personas]
        texts += [
            _make_text(file, row["id"], f"stakeholders[{number}].interests", "persona", party["interests"], split)
            for number, party in enumerate(row["stakeholders"] if kind.name == "transfer" else ())
        ]
    return texts


def find_duplicates(texts: Sequence[Text], threshold: float = THRESHOLD) -> list[Duplicate]:
    """Return the pairs of texts whose similarity reaches the threshold, the likest first.

    A text is paired with the likest text before it: one in its own file and split, one in another split, one in another
    file. So a text that stands a thousand times gives a thousand findings, not half a million. Raise ConfigError for a
    threshold outside 0 to 1 and when datasketch is not installed.
    """
    index = SimilarTexts(threshold)
    found: list[Duplicate] = []
    for text in texts:
        likest: dict[str, Duplicate] = {}
        for pair in index.find(text):
            if pair.across not in likest or pair.similarity > likest[pair.across].similarity:
                likest[pair.across] = pair
        found += likest.values()
        index.add(text)
    return sorted(found, key=lambda pair: (-pair.similarity, pair.second.place, pair.first.place))


class SimilarTexts:
    """Texts among which those alike to another are found; more may be added at any time.

    Texts of `base` are found too; it stays as it is.
    """

    def __init__(self, threshold: float = THRESHOLD, base: "SimilarTexts | None" = None) -> None:
        require_search(threshold)
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self._base = base
        self._blank = MinHash(num_perm=PERMUTATIONS)
        bands = choose_bands(threshold)
        self._buckets = {aspect: MinHashLSH(num_perm=PERMUTATIONS, params=bands) for aspect in typing.get_args(Aspect)}
        self._texts: list[tuple[Text, frozenset[str]]] = []

    def add(self, text: Text) -> None:
        """Take a text into the set."""
        shingles = make_shingles(text.words)
        self._buckets[text.aspect].insert(len(self._texts), self._sign(shingles))
        self._texts.append((text, shingles))

    def find(self, text: Text) -> list[Duplicate]:
        """Return the texts of the set that are alike to this one, in the order in which they were added."""
        shingles = make_shingles(text.words)
        return list(self._propose(text, shingles, self._sign(shingles)))

    def _sign(self, shingles: frozenset[str]) -> Any:
        signature = self._blank.copy()
        signature.update_batch([shingle.encode() for shingle in shingles])
        return signature

    def _propose(self, text: Text, shingles: frozenset[str], signature: Any) -> Iterator[Duplicate]:
        if self._base is not None:
            yield from self._base._propose(text, shingles, signature)
        for number in sorted(self._buckets[text.aspect].query(signature)):
            known, known_shingles = self._texts[number]
            similarity = len(shingles & known_shingles) / len(shingles | known_shingles)
            if similarity >= self.threshold:
                yield Duplicate(known, text, similarity, known.words == text.words)


def require_search(threshold: float) -> None:
    """Raise ConfigError unless the threshold is in its range and datasketch is installed."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold is {threshold}: choose a number above 0 and at most 1")
    if importlib.util.find_spec("datasketch") is None:
        raise ConfigError("the search for near-duplicates needs datasketch: run `pip install comity[data]`")


def choose_bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many rows of a signature propose pairs.

    As many rows as possible, while a pair at the threshold shares a whole band with a probability of 99 % or more: a
    missed duplicate is worse than a proposal too many, which the exact similarity refuses.
    """
    fits = [(1, PERMUTATIONS)]
    for rows in range(1, PERMUTATIONS // 2 + 1):  # datasketch wants two bands
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= LEAST_RECALL:
            fits.append((rows, bands))
    rows, bands = max(fits)
    return bands, rows


def make_shingles(words: str) -> frozenset[str]:
    """Return the word 3-grams of a text given as words with spaces; a shorter text is one shingle."""
    return frozenset(list_ngrams(words.split(" "), SHINGLE_WORDS) or [words])


def _make_text(file: str, row: str, field: str, aspect: Aspect, text: str, split: str) -> Text:
    return Text(file, row, field, aspect, " ".join(split_words(text)), split)
