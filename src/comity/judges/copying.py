"""Rules against copies: a parroted message is not an agreement, a repeated dilemma is not an answer.

The limits concern near-verbatim copies only. Restating a concrete plan in one's own words is how people agree. A copy
in letters of another script that look the same, or with marks on them, is a copy.
"""

import re
import unicodedata
from collections.abc import Sequence

from comity.prompts import neutralise

REPEAT_LIMIT = 0.5
"""A text whose share of repeated 4-grams is above this says the same thing over and over."""
_LOOK_ALIKES = str.maketrans(
    "АВСЕНІЈКМОРЅТХУаеоросухіјѕһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοιυνρκχ", "ABCEHIJKMOPSTXYaeopocyxijshdqwABEZHIKMNOPTYXaoiuvpkx"
)
"""Cyrillic and Greek letters and the Latin ones that they pass for."""


def ngram_copy_share(text: str, source: str, n: int = 4) -> float:
    """Return the share of a text's word n-grams that also stand in `source`; case and punctuation do not count.

    A text of fewer than n words counts as copied only when it equals the source; an empty text has share 0.
    """
    words, source_words = _words(text), _words(source)
    if len(words) < n:
        return float(bool(words) and words == source_words)
    known = set(_ngrams(source_words, n))
    grams = _ngrams(words, n)
    return sum(gram in known for gram in grams) / len(grams)


def repeated_share(text: str, n: int = 4) -> float:
    """Return the share of a text's word n-grams that already stood earlier in it; 0 for fewer than n words."""
    grams = _ngrams(_words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def find_ending_copy(message_a: str, message_b: str, limit: float) -> str:
    """Return why a round ending is a copy, or "" when it is none.

    B copies A when its own 4-grams are A's, or when each message stands nearly whole in the other (mean of both
    shares).
    """
    b_from_a = ngram_copy_share(message_b, message_a)
    a_in_b = ngram_copy_share(message_a, message_b)
    if b_from_a > limit or (b_from_a + a_in_b) / 2 > limit:
        return "message B copies message A"
    if repeated_share(message_b) > REPEAT_LIMIT:
        return "message B repeats itself"
    return ""


def find_answer_copy(answer: str, dilemma: str, limit: float) -> str:
    """Return why an answer is a copy, or "" when it is none."""
    if ngram_copy_share(answer, dilemma) > limit:
        return "the answer copies the dilemma"
    if repeated_share(answer) > REPEAT_LIMIT:
        return "the answer repeats itself"
    return ""


def _words(text: str) -> list[str]:
    letters = unicodedata.normalize("NFKD", neutralise(text).translate(_LOOK_ALIKES))
    return re.findall(r"\w+", "".join(c for c in letters if unicodedata.category(c) != "Mn").casefold())


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
