"""Words of a text and runs of them, for everything that compares texts."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the words of a text; case and punctuation do not count."""
    return _WORD.findall(text.casefold())


def list_ngrams(words: Sequence[str], n: int) -> list[str]:
    """Return each run of n words, joined by spaces, in order; repeats stay."""
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
