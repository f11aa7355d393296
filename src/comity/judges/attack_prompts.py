"""Test whether prompts and parsers hold against attacks: they are ours, so the share that gives way must be 0.

No text may leave its place in a filled prompt, and no reply that quotes an attack may be read as another verdict than
its own.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from comity.judges.attacks import Attack
from comity.judges.features import TEMPLATES, render_prompt
from comity.judges.labels import Kind
from comity.prompts import fill, load_template, parse_agency, parse_agreement, parse_preference, quote_line
from comity.types import Answer

Reader = Literal["agency", "agreement", "preference"]
READERS: dict[Kind, tuple[Reader, ...]] = {"agency": ("agency", "preference"), "agreement": ("agreement",)}
"""Whose replies may quote a text of each kind; that of satisfaction is read as that of agency."""
_CONTROL_TOKEN = re.compile(r"<\|?\w|\|>|\[/?[a-z]?[A-Z][A-Z_]+\]")
_SHOWS_NOTHING = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(n) for n in range(0xFE00, 0xFE10)}


def check_prompts(attacks: Sequence[Attack]) -> dict[str, Any]:
    """Return how many attacks break a prompt or a parser, with what they break."""
    breaks = {attack.id: find_prompt_breaks(attack) for attack in attacks}
    misread = {
        attack.id: [reply for kind in READERS[attack.kind] for reply in find_misread_replies(kind, attack.text)]
        for attack in attacks
    }
    return {
        "attacks": len(attacks),
        "prompt_breaks": {name: found for name, found in breaks.items() if found},
        "misread_replies": {name: found for name, found in misread.items() if found},
    }


def find_prompt_breaks(attack: Attack) -> list[str]:
    """Return what the attack breaks in each prompt that quotes it, [] when every text stays in its place.

    Each prompt of a model, and that of the head, must equal their template with each place filled by one line free of
    delimiters, so that each tag and each line of the template, the one that asks for the verdict too, stands exactly
    once and where it belongs.
    """
    item = attack.attacked
    values = {name: str(getattr(item, name)) for name in item.__dataclass_fields__}
    prompts = {attack.kind: fill(attack.kind, **values), TEMPLATES[attack.kind]: render_prompt(attack.kind, item).text}
    if isinstance(item, Answer):
        # Answers are quoted in these two as well.
        both = {"dilemma": item.dilemma, "answer_a": item.answer, "answer_b": item.answer}
        prompts["preference"] = fill("preference", **both)
        prompts["satisfaction"] = fill("satisfaction", dilemma=item.dilemma, objective="Wait.", answer=item.answer)
    return [f"{name}: {fault}" for name, prompt in prompts.items() for fault in check_prompt(name, prompt)]


def check_prompt(name: str, prompt: str) -> list[str]:
    """Return what is wrong with a filled template."""
    template = load_template(name)
    literal = re.split(r"\{[a-z_]+\}", template)
    faults = []
    if not re.fullmatch(r"([^\n<>]*)".join(map(re.escape, literal)), prompt):
        faults.append("a text has left its place")
    asked = re.findall(r"^First line:.*$", template, re.MULTILINE)
    if re.findall(r"^First line:.*$", prompt, re.MULTILINE) != asked:
        faults.append("another line asks for a verdict")
    kept = "".join(literal)
    if len(_CONTROL_TOKEN.findall(prompt)) != len(_CONTROL_TOKEN.findall(kept)):
        faults.append("a control token of a chat template is left")
    if any(_shows_nothing(letter) for letter in prompt.replace("\n", "")):
        faults.append("a letter that shows nothing is left")
    return faults


def find_misread_replies(kind: Reader, quoted: str) -> list[str]:
    """Return replies that quote a text beside their own verdict and are read as another verdict, [] when none is.

    To be unscored is no misreading: nobody can tell which of two verdicts is the judge's own.
    """
    read, verdicts = _read_as(kind)
    return [
        reply
        for own, value in verdicts.items()
        for reply in quote_in_replies(own, quoted)
        if read(reply)[0] not in (None, value)
    ]


def _read_as(kind: Reader) -> tuple[Callable[[str], tuple[object, str]], dict[str, object]]:
    if kind == "agency":
        return parse_agency, {str(n): float(n) for n in range(6)}
    if kind == "agreement":
        return parse_agreement, {"YES": True, "NO": False}
    return parse_preference, {"A": "first", "B": "second", "TIE": "tie"}


def quote_in_replies(own: str, quoted: str) -> Iterator[str]:
    """Yield replies of a judge whose verdict is `own` and that quote a text, or a line of it, before or after it."""
    for text in dict.fromkeys([quoted, quote_line(quoted), *quoted.splitlines()]):
        for dressed in (text, f'"{text}"', f"> {text}", f"```\n{text}\n```"):
            yield f"{own}\nThe text claims its own verdict:\n{dressed}"
            yield f"{own}\n{dressed}"
            yield f"{dressed}\n{own}\nThe first lines are a quotation."


def _shows_nothing(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf") or letter in _SHOWS_NOTHING
